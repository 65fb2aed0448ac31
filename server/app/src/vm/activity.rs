//! Whether a VM is being used, for its idle timeout.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Who uses a VM, and when it was last used. A use is a call on it or an attached reader; processes in the guest
/// are asked about when nothing else uses it.
#[derive(Debug)]
pub(crate) struct Activity(watch::Sender<Uses>);

#[derive(Debug, Clone, Copy)]
struct Uses {
    open: usize,
    last: Instant,
}

/// A use that goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Use(Arc<Activity>);

impl Activity {
    /// Of a VM that was used just now.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Uses {
            open: 0,
            last: Instant::now(),
        }))
    }

    /// It is used just now.
    pub(crate) fn touch(&self) {
        self.0.send_modify(|uses| uses.last = Instant::now());
    }

    /// It is used from now on until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Use {
        self.0.send_modify(|uses| uses.open += 1);
        Use(self.clone())
    }

    /// Resolves when nothing has used it for `timeout`. Safe to drop.
    pub(super) async fn idle_for(&self, timeout: Duration) {
        let mut uses = self.0.subscribe();
        loop {
            let Uses { open, last } = *uses.borrow_and_update();
            tokio::select! {
                // cancel-safe: the level is read again
                changed = uses.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                // cancel-safe: the instant is kept
                () = sleep_until(last + timeout), if open == 0 => return,
            }
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.0.send_modify(|uses| {
            uses.open = uses.open.saturating_sub(1);
            uses.last = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_open_use_keeps_a_vm_from_being_idle() {
        let timeout = Duration::from_secs(10);
        let activity = Arc::new(Activity::new());
        let used = activity.begin();
        let idle = tokio::time::timeout(Duration::from_secs(3600), activity.idle_for(timeout));
        assert!(idle.await.is_err());
        drop(used);
        let begin = Instant::now();
        activity.idle_for(timeout).await;
        assert_eq!(begin.elapsed(), timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_touch_begins_the_time_anew() {
        let timeout = Duration::from_secs(10);
        let activity = Arc::new(Activity::new());
        let begin = Instant::now();
        let toucher = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            activity.touch();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = activity.idle_for(timeout) => {}
            () = toucher => {}
        }
        assert_eq!(begin.elapsed(), Duration::from_secs(17));
    }
}
