//! Streams of answers: what they have in common. Each says something at least every [`HEARTBEAT`], and each
//! ends when the daemon stops: those that can be taken up again at once, the others when the grace is over.

use std::sync::Arc;
use std::time::Duration;

use banger_app::{App, AppError};
use banger_core::OperationId;
use banger_core::operation::{Operation, OperationState};
use banger_proto::v1;
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use super::convert;
use super::request::RequestError;
use super::status;

/// The longest silence of a stream.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// Changes of an operation are merged over this time: at most 10 messages in a second.
const MERGED_OVER: Duration = Duration::from_millis(100);

/// What a streaming handler returns.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// When streams end with the daemon.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// The daemon has begun to stop: what can be taken up again ends.
    pub begun: CancellationToken,
    /// The grace is over: everything ends.
    pub over: CancellationToken,
}

/// Fills the silences of `stream`, and ends it when `end` is cancelled.
pub(crate) fn served<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    end: CancellationToken,
    beat: fn() -> T,
) -> Answers<T> {
    let next = move |state: Option<BoxStream<'static, Result<T, Status>>>| {
        let end = end.clone();
        async move {
            let mut stream = state?;
            tokio::select! {
                biased; // a stream that is never silent must end too
                // cancel-safe: holds no state
                () = end.cancelled() => Some((Err(RequestError::Draining.into()), None)),
                // cancel-safe: what the stream has begun stays in it
                item = tokio::time::timeout(HEARTBEAT, stream.next()) => match item {
                    Ok(item) => item.map(|item| (item, Some(stream))),
                    Err(_) => Some((Ok(beat()), Some(stream))),
                },
            }
        }
    };
    stream::unfold(Some(stream.boxed()), next).boxed()
}

/// Counts the messages of a stream, from 1.
pub(crate) fn numbered<M: Send + 'static, T: Send + 'static>(
    messages: Answers<M>,
    answer: fn(i64, M) -> T,
) -> Answers<T> {
    let number = move |(index, message): (usize, Result<M, Status>)| {
        message.map(|message| answer(i64::try_from(index + 1).unwrap_or(i64::MAX), message))
    };
    messages.enumerate().map(number).boxed()
}

/// The first message of a caller's stream. It comes in time, or `intake` says that it did not.
pub(crate) async fn first<T>(messages: &mut Streaming<T>) -> Result<T, Status> {
    let message = messages.message().await?;
    message.ok_or_else(|| RequestError::CutShort.into())
}

/// The messages of a stream that follows an operation.
pub(crate) trait OperationMessage: Sized + Send + 'static {
    /// The operation as it is now.
    fn operation(operation: v1::Operation) -> Self;

    /// Nothing new.
    fn heartbeat() -> Self;

    /// What the operation made, by the operation's target.
    fn resource(app: &App, target: &str) -> impl Future<Output = Result<Self, AppError>> + Send;
}

/// Follows an operation to its end: its changes, then what it made, or its failure.
pub(crate) async fn operation<T: OperationMessage>(
    app: &Arc<App>,
    drain: &Drain,
    id: OperationId,
) -> Result<Response<Answers<T>>, Status> {
    let changes = changes(
        app.operations
            .watch(id)
            .await
            .map_err(|error| status::of(&error))?,
    );
    let app = app.clone();
    let messages = changes.flat_map(move |change| {
        let app = app.clone();
        let (shown, last) = match change {
            Ok(operation) => (
                Ok(T::operation(convert::operation::operation(&operation))),
                Some(operation),
            ),
            Err(status) => (Err(status), None),
        };
        let last = last.filter(|operation| operation.state.is_final());
        let end = stream::iter(last).then(move |operation| {
            let app = app.clone();
            async move { outcome(&app, &operation).await }
        });
        stream::iter([shown]).chain(end)
    });
    Ok(Response::new(served(
        messages,
        drain.over.clone(),
        T::heartbeat,
    )))
}

pub(crate) async fn outcome<T: OperationMessage>(
    app: &App,
    operation: &Operation,
) -> Result<T, Status> {
    match &operation.state {
        OperationState::Failed { failure } => {
            Err(status::of_operation(&operation.id.to_string(), failure))
        }
        OperationState::Running | OperationState::Succeeded => {
            let made = T::resource(app, &operation.target).await;
            made.map_err(|error| {
                status::of_operation(&operation.id.to_string(), &error.to_failure())
            })
        }
    }
}

/// An operation now, then as it changes, merged; the end is told at once.
pub(crate) fn changes(
    receiver: watch::Receiver<Arc<Operation>>,
) -> impl Stream<Item = Result<Arc<Operation>, Status>> + Send {
    stream::unfold(
        Some(Changes {
            receiver,
            sent: None,
        }),
        async |changes| {
            let mut changes = changes?;
            match changes.next().await {
                Ok(operation) if operation.state.is_final() => Some((Ok(operation), None)),
                Ok(operation) => Some((Ok(operation), Some(changes))),
                Err(error) => Some((Err(status::of(&error)), None)),
            }
        },
    )
}

struct Changes {
    receiver: watch::Receiver<Arc<Operation>>,
    sent: Option<Instant>,
}

impl Changes {
    async fn next(&mut self) -> Result<Arc<Operation>, AppError> {
        if let Some(sent) = self.sent {
            self.change(sent + MERGED_OVER).await?;
        }
        self.sent = Some(Instant::now());
        Ok(self.receiver.borrow_and_update().clone())
    }

    /// Waits for a change, and then for `due`, unless it was the last.
    async fn change(&mut self, due: Instant) -> Result<(), AppError> {
        // An operation whose task is gone without an end went with the daemon.
        self.receiver
            .changed()
            .await
            .map_err(|_| AppError::Interrupted)?;
        if Instant::now() >= due {
            return Ok(());
        }
        let last = self
            .receiver
            .wait_for(|operation| operation.state.is_final());
        match tokio::time::timeout_at(due, last).await {
            Ok(last) => last.map(drop).map_err(|_| AppError::Interrupted),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
