//! A change that carries a request id, so that a repeat of it is the same change.

use std::fmt;
use std::future::{Future, IntoFuture};

use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use crate::error::Result;

/// A change that is sent when it is awaited. It has a request id of its own unless one is given: a
/// repeat with the same id, even by another process, gets the first's answer.
#[must_use = "a request is sent when it is awaited"]
pub struct Request<T> {
    id: Uuid,
    send: Box<dyn FnOnce(String) -> BoxFuture<'static, Result<T>> + Send>,
}

impl<T> Request<T> {
    pub(crate) fn new<F, Fut>(send: F) -> Self
    where
        F: FnOnce(String) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        Self {
            id: Uuid::new_v4(),
            send: Box::new(|id| send(id).boxed()),
        }
    }

    /// With this request id.
    pub const fn request_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }
}

impl<T> IntoFuture for Request<T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'static, Result<T>>;

    fn into_future(self) -> Self::IntoFuture {
        (self.send)(self.id.to_string())
    }
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
