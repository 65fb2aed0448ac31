//! Streams that notice their own death, and lists that page by themselves.
//!
//! The daemon speaks at least every 2 s on every stream that may be silent; what is silent for the
//! client's bound is dead.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use crate::error::{CodeRan, Error, Result};

/// Items of a list, over all its pages.
pub type Pages<T> = BoxStream<'static, Result<T>>;

/// A stream of answers that fails when the daemon is silent for too long.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: Streaming<T>,
    during: &'static str,
    silence: Duration,
    /// When the wait for the next message began; survives a wait that is given up.
    waiting_since: Option<Instant>,
}

impl<T> Watched<T> {
    /// Watches `inner`, the answer to the call `during`.
    pub(crate) const fn new(inner: Streaming<T>, during: &'static str, silence: Duration) -> Self {
        Self {
            inner,
            during,
            silence,
            waiting_since: None,
        }
    }

    /// The stream, for one who notices silence otherwise.
    pub(crate) fn into_inner(self) -> Streaming<T> {
        self.inner
    }

    /// The next message; `None` at the end. Cancel-safe: no message is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let answer = timeout_at(since + self.silence, self.inner.message()).await;
        self.waiting_since = None;
        match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(Error::from_status(status, self.during)),
            Err(_) => Err(Error::ConnectionSilent {
                during: self.during,
                silent: self.silence,
                code_ran: CodeRan::Maybe,
                process: None,
            }),
        }
    }
}

/// The messages of a streaming request. A type of its own, because the compiler cannot prove of a bare
/// boxed stream inside a future that it lives long enough.
pub(crate) struct Messages<M>(BoxStream<'static, M>);

impl<M> Messages<M> {
    pub(crate) fn new(stream: impl Stream<Item = M> + Send + 'static) -> Self {
        Self(stream.boxed())
    }
}

impl<M> Stream for Messages<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.poll_next_unpin(context)
    }
}

/// A list whose pages `fetch` gets: the token of a page to its items and the token of the next.
pub(crate) fn pages<T, F, Fut>(fetch: F) -> Pages<T>
where
    T: Send + 'static,
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(Vec<T>, String)>> + Send + 'static,
{
    let first = Some((String::new(), fetch));
    stream::try_unfold(first, |state| async move {
        let Some((token, fetch)) = state else {
            return Ok::<_, Error>(None);
        };
        let (items, next) = fetch(token).await?;
        let state = (!next.is_empty()).then_some((next, fetch));
        Ok(Some((items, state)))
    })
    .flat_map(|page| match page {
        Ok(items) => stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn all_pages_are_read_in_order_and_only_as_needed() {
        let list = pages(|token: String| async move {
            match token.as_str() {
                "" => Ok((vec![1, 2], "b".to_owned())),
                "b" => Ok((vec![], "c".to_owned())),
                _ => Ok((vec![3], String::new())),
            }
        });
        assert_eq!(list.try_collect::<Vec<_>>().await.unwrap(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_failed_page_ends_the_list_with_the_error() {
        let list = pages(|token: String| async move {
            if token.is_empty() {
                Ok((vec![1], "b".to_owned()))
            } else {
                Err(Error::InputClosed)
            }
        });
        let items: Vec<_> = list.collect().await;
        assert!(matches!(items[..], [Ok(1), Err(Error::InputClosed)]));
    }
}
