//! How long a pull may take, with everything that comes along.

use std::time::{Duration, Instant};

use banger_image::StoreError;

use crate::Context;
use crate::error::AppError;

/// The time of one pull, which all its parts share: the kernel's and the image's.
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

    /// The error of a part, which knew only what was left for it.
    pub(crate) fn explain(self, error: AppError) -> AppError {
        match error {
            AppError::Image(StoreError::Deadline { .. }) => self.over(),
            other => other,
        }
    }
}
