//! The space that is kept free while something comes of which nobody knows how large it becomes: it is looked at again
//! and again, whoever writes, be it the daemon or a VM.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::error::AppError;

/// Between two looks: a fast disk takes less in it than what is kept free where nothing is said.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Does what fills the disk. The token that it gets is cancelled with `cancel`, or when the space above the reserve is
/// gone.
///
/// # Errors
/// Its own, or that there is no space.
pub(crate) async fn spare<T, W: Future<Output = Result<T, AppError>>>(
    context: &Arc<Context>,
    cancel: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> W,
) -> Result<T, AppError> {
    crate::host::admit_disk(context)?;
    until(used_up(context), cancel, work).await
}

/// Waits until the space above the reserve is gone, and says so. Cancel-safe.
pub(crate) async fn used_up(context: &Arc<Context>) -> AppError {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let context = context.clone();
        // A disk that hangs holds up this alone.
        let look = move || crate::host::admit_disk(&context);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(look).await {
            return error;
        }
    }
}

async fn until<T, W: Future<Output = Result<T, AppError>>>(
    refused: impl Future<Output = AppError>,
    cancel: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> W,
) -> Result<T, AppError> {
    let within = cancel.child_token();
    let mut work = std::pin::pin!(work(within.clone()));
    // cancel-safe: `work` is only borrowed
    let refused = tokio::select! {
        result = &mut work => return result,
        refused = refused => refused,
    };
    within.cancel();
    // It may have come in the last moment.
    work.await.map_err(|_| refused)
}

#[cfg(test)]
mod tests {
    use banger_core::Explain as _;

    use super::*;

    const EXHAUSTED: AppError = AppError::Exhausted {
        what: "disk",
        needed_mib: 0,
        available_mib: 0,
    };

    #[tokio::test]
    async fn work_ends_when_the_space_is_used_up_and_says_why() {
        let cancel = CancellationToken::new();
        let given_up = async |within: CancellationToken| {
            within.cancelled().await;
            Err::<(), _>(AppError::Interrupted)
        };
        let ended = until(async { EXHAUSTED }, &cancel, given_up).await;
        assert_eq!(ended.unwrap_err().reason(), "HOST_EXHAUSTED");
        assert!(!cancel.is_cancelled(), "others go on");
        let come = async |within: CancellationToken| {
            within.cancelled().await;
            Ok(7)
        };
        assert_eq!(until(async { EXHAUSTED }, &cancel, come).await.unwrap(), 7);
        cancel.cancel();
        let ended = until(std::future::pending(), &cancel, given_up).await;
        assert_eq!(ended.unwrap_err().reason(), "INTERRUPTED");
    }
}
