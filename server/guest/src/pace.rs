//! Streams into a guest: who is waited for, the source or the guest, and how long the guest has.
//!
//! A source may be as slow as it likes: a person may be typing. A guest that does not take what there is, or does not
//! answer when all has come, has a limit.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use banger_core::guest::GuestError;
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::watch;

use crate::link::Hold;

/// Who is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The source has nothing yet.
    Source,
    /// The guest was given something and has not asked for more.
    Guest,
    /// The guest was given all.
    Answer,
}

/// How long a guest has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To take what there is.
    pub(crate) taking: Duration,
    /// To answer when all has come.
    pub(crate) answering: Duration,
}

/// A source that tells who is waited for.
pub(crate) struct Paced<M> {
    source: BoxStream<'static, M>,
    told: watch::Sender<Waiting>,
}

/// Notices a guest that takes too long.
#[derive(Debug)]
pub(crate) struct Pace {
    told: watch::Receiver<Waiting>,
    patience: Patience,
}

/// `source` on its way, and what notices that the guest does not take it.
pub(crate) fn paced<M>(
    source: impl Stream<Item = M> + Send + 'static,
    patience: Patience,
) -> (Paced<M>, Pace) {
    let (told, seen) = watch::channel(Waiting::Guest);
    let source = source.boxed();
    let pace = Pace {
        told: seen,
        patience,
    };
    (Paced { source, told }, pace)
}

impl<M> Stream for Paced<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M>> {
        let polled = self.source.poll_next_unpin(context);
        let waiting = match &polled {
            Poll::Pending => Waiting::Source,
            Poll::Ready(Some(_)) => Waiting::Guest,
            Poll::Ready(None) => Waiting::Answer,
        };
        self.told.send_replace(waiting);
        polled
    }
}

impl Pace {
    /// Resolves when the guest has taken too long. While it is held, time stands still for it.
    pub(crate) async fn lost(mut self, during: &'static str, hold: Hold) -> GuestError {
        loop {
            let waiting = *self.told.borrow_and_update();
            let limit = match waiting {
                Waiting::Source => {
                    self.change().await;
                    continue;
                }
                Waiting::Guest => self.patience.taking,
                Waiting::Answer => self.patience.answering,
            };
            // Whatever changes, the level is read again.
            if hold.within(limit, self.change()).await.is_none() {
                return GuestError::Deadline { during, limit };
            }
        }
    }

    /// Waits for another state. A source that is gone is waited for no more, though the guest still is.
    async fn change(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const PATIENCE: Patience = Patience {
        taking: Duration::from_secs(30),
        answering: Duration::from_secs(300),
    };

    #[tokio::test(start_paused = true)]
    async fn a_slow_source_has_all_the_time_and_a_slow_guest_has_not() {
        let (mut source, pace) = paced(stream::iter([1]).chain(stream::pending()), PATIENCE);
        assert_eq!(source.next().await, Some(1));
        // The source has nothing more now.
        assert!(futures::poll!(source.next()).is_pending());
        let hour = Duration::from_secs(3600);
        assert!(
            tokio::time::timeout(hour, pace.lost("write", Hold::default()))
                .await
                .is_err()
        );
        let (mut source, pace) = paced(stream::repeat(1), PATIENCE);
        assert_eq!(source.next().await, Some(1));
        let expected = GuestError::Deadline {
            during: "write",
            limit: PATIENCE.taking,
        };
        assert_eq!(pace.lost("write", Hold::default()).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_is_held_has_all_the_time_until_it_goes_on() {
        let hold = Hold::default();
        hold.set(true);
        let (mut source, pace) = paced(stream::repeat(1), PATIENCE);
        assert_eq!(source.next().await, Some(1));
        let mut lost = std::pin::pin!(pace.lost("write", hold.clone()));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut lost).await.is_err());
        hold.set(false);
        let nearly = PATIENCE.taking.mul_f32(0.9);
        assert!(tokio::time::timeout(nearly, &mut lost).await.is_err());
        let expected = GuestError::Deadline {
            during: "write",
            limit: PATIENCE.taking,
        };
        assert_eq!(lost.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_its_own_time() {
        let (mut source, pace) = paced(stream::iter([1]), PATIENCE);
        while source.next().await.is_some() {}
        let expected = GuestError::Deadline {
            during: "write",
            limit: PATIENCE.answering,
        };
        assert_eq!(pace.lost("write", Hold::default()).await, expected);
    }
}
