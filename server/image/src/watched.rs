//! Reading that can be given up: what decompresses may make minutes of work out of a few bytes.

use std::io::{self, Read};

use tokio_util::sync::CancellationToken;

/// A reader that fails with [`GivenUp`] once `cancel` is cancelled.
#[derive(Debug)]
pub(crate) struct Watched<R> {
    inner: R,
    cancel: CancellationToken,
}

/// What the error of a reading holds that was given up.
#[derive(Debug, thiserror::Error)]
#[error("it was given up")]
pub(crate) struct GivenUp;

impl GivenUp {
    /// Whether this is why a reading failed.
    pub(crate) fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl<R> Watched<R> {
    pub(crate) const fn new(inner: R, cancel: CancellationToken) -> Self {
        Self { inner, cancel }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            // Not `Interrupted`, after which readers try again.
            return Err(io::Error::other(GivenUp));
        }
        self.inner.read(buf)
    }
}
