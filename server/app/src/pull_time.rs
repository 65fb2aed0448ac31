//! How long a pull or an import may take, with everything that comes along.

use std::time::{Duration, Instant};

use banger_image::StoreError;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::error::AppError;

/// The time of one pull or import, which all its parts share: the kernel's and the image's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PullTime {
    begun: Instant,
    whole: Duration,
}

impl PullTime {
    /// Begins now, as long as the configuration says.
    pub(crate) fn begin(context: &Context) -> Self {
        Self {
            begun: Instant::now(),
            whole: context.config.pull.timeout,
        }
    }

    /// What is left for the next part.
    pub(crate) fn left(self) -> Duration {
        self.whole.saturating_sub(self.begun.elapsed())
    }

    /// That it is over.
    pub(crate) fn over(self) -> AppError {
        let deadline = self.whole;
        StoreError::Deadline { deadline }.into()
    }

    /// Does a part, which ends when the token it gets is cancelled: with `cancel`, or when the time is over.
    pub(crate) async fn bound<T, W: Future<Output = Result<T, AppError>>>(
        self,
        cancel: &CancellationToken,
        work: impl FnOnce(CancellationToken) -> W,
    ) -> Result<T, AppError> {
        let within = cancel.child_token();
        let mut work = std::pin::pin!(work(within.clone()));
        // cancel-safe: `work` is only borrowed
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(self.left()) => {}
        }
        within.cancel();
        // It may have come in the last moment.
        work.await.map_err(|_| self.over())
    }

    /// Does a part that may be dropped at any instant, until `cancel` or the time is over.
    pub(crate) async fn within<T>(
        self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, AppError>>,
    ) -> Result<T, AppError> {
        // cancel-safe: the caller says so
        tokio::select! {
            () = cancel.cancelled() => Err(StoreError::Cancelled.into()),
            done = tokio::time::timeout(self.left(), work) => {
                done.unwrap_or_else(|_| Err(self.over()))
            }
        }
    }

    /// The error of a part, which knew only what was left for it.
    pub(crate) fn explain(self, error: AppError) -> AppError {
        match error {
            AppError::Image(StoreError::Deadline { .. }) => self.over(),
            other => other,
        }
    }
}
