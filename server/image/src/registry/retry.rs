//! Trying again: how long to wait, what a registry may ask for, and what is told meanwhile.

use std::time::{Duration, SystemTime};

use banger_core::operation::{Progress, StageKey};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::RegistryError;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, RETRY_AFTER_MAX};

/// The stage in which a pull waits because its registry asked for it.
const WAIT: &str = "wait";

/// How long a registry asks to wait: seconds or a date (RFC 9110 section 10.2.3). A date that is over is no
/// wait at all.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Whether what failed should be tried once more: it may pass, and not later than a pull can wait for.
pub(super) fn is_worth_it(error: &RegistryError) -> bool {
    error.is_transient() && asked(error) <= RETRY_AFTER_MAX
}

fn asked(error: &RegistryError) -> Duration {
    match error {
        RegistryError::RateLimited { retry_after, .. } => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

/// Waits before the try after `tried` tries: longer each time, and as long as the registry asks. A wait that
/// was asked for is a stage of the pull.
pub(super) async fn back_off(error: &RegistryError, tried: u32, progress: &dyn Progress) {
    let own = BACKOFF_FIRST * 2u32.saturating_pow(tried.saturating_sub(1).min(16));
    let asked = asked(error);
    let wait = own.min(BACKOFF_MAX).max(asked);
    let RegistryError::RateLimited {
        registry, status, ..
    } = error
    else {
        tracing::debug!(tried, error = %banger_core::chain(error), "a request to a registry failed, trying again");
        tokio::time::sleep(wait).await;
        return;
    };
    tracing::info!(%registry, status, tried, wait_seconds = wait.as_secs_f32(), "a registry asks to wait");
    let item = format!(
        "{registry} answered {status}, try {tried}: {} s",
        wait.as_secs_f32().ceil()
    );
    let key = StageKey::item(WAIT, item);
    progress.start(&key, None);
    tokio::time::sleep(wait).await;
    progress.finish(&key);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_until_a_date() {
        assert_eq!(asks("7"), Some(Duration::from_secs(7)));
        assert_eq!(asks("0"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        let waited = asks(&soon).unwrap();
        assert!((28..=30).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(asks("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        for nonsense in ["-1", "soon", "1.5", ""] {
            assert_eq!(asks(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn nobody_waits_longer_than_the_bound() {
        let limited = |seconds| RegistryError::RateLimited {
            registry: "r".into(),
            status: 429,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert!(is_worth_it(&limited(RETRY_AFTER_MAX.as_secs())));
        assert!(!is_worth_it(&limited(RETRY_AFTER_MAX.as_secs() + 1)));
    }
}
