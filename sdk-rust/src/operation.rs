//! Long work: following it to its end, and watching it from anywhere.

use std::fmt;
use std::future::Future;

use banger_proto::v1;
use futures::stream::{self, BoxStream, StreamExt};
use v1::operation_service_client::OperationServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::stream::{Pages, Watched, pages};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

/// What is called with an operation each time it has changed.
pub(crate) struct Progress(Option<Callback>);

/// What a caller gave to be told.
type Callback = Box<dyn FnMut(&v1::Operation) + Send>;

impl Progress {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn to(callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        Self(Some(Box::new(callback)))
    }

    pub(crate) fn tell(&mut self, operation: &v1::Operation) {
        if let Some(callback) = &mut self.0 {
            callback(operation);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Progress"
        } else {
            "no progress"
        })
    }
}

/// One message of a long call.
pub(crate) enum Step<T> {
    /// The operation has changed.
    Progress(v1::Operation),
    /// The result; the last message.
    Done(T),
    /// A heartbeat.
    Idle,
}

/// A message of a long call, as a [`Step`].
pub(crate) trait IntoStep<T> {
    /// `None` for a message without content.
    fn into_step(self) -> Option<Step<T>>;
}

/// Follows a long call to its result. `open` makes the call, and makes it again, with the same request
/// id, when the connection breaks.
pub(crate) async fn follow<R, T, F, Fut>(
    client: &Client,
    during: &'static str,
    progress: &mut Progress,
    mut open: F,
) -> Result<T>
where
    R: IntoStep<T>,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Watched<R>>>,
{
    let mut retry = client.retry();
    loop {
        let error = match open().await {
            Ok(stream) => {
                retry.reset();
                match follow_once(stream, during, progress).await {
                    Ok(result) => return Ok(result),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        retry.after(error).await?;
    }
}

/// Follows one stream of a long call to its result.
pub(crate) async fn follow_once<R: IntoStep<T>, T>(
    mut stream: Watched<R>,
    during: &'static str,
    progress: &mut Progress,
) -> Result<T> {
    while let Some(message) = stream.next().await? {
        match message.into_step() {
            Some(Step::Progress(operation)) => progress.tell(&operation),
            Some(Step::Done(result)) => return Ok(result),
            Some(Step::Idle) => {}
            None => {
                return Err(Error::Protocol {
                    during,
                    detail: "an empty message",
                });
            }
        }
    }
    Err(Error::cut_short(during))
}

/// Operations.
#[derive(Debug, Clone)]
pub struct Operations {
    client: Client,
}

impl Operations {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn rpc(&self) -> OperationServiceClient<tonic::transport::Channel> {
        OperationServiceClient::new(self.client.channel())
    }

    /// The operation with this id.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, id: impl Into<String>) -> Result<v1::Operation> {
        const CALL: &str = "GetOperation";
        let request = v1::GetOperationRequest {
            operation: id.into(),
        };
        let call = || async { self.rpc().get_operation(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.operation.ok_or(Error::Protocol {
            during: CALL,
            detail: "no operation",
        })
    }

    /// All operations that are kept, newest first.
    #[must_use]
    pub fn list(&self) -> Pages<v1::Operation> {
        let this = self.clone();
        pages(move |page_token| {
            let this = this.clone();
            async move {
                let request = v1::ListOperationsRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                };
                let call = || async { this.rpc().list_operations(request.clone()).await };
                let page = this.client.repeat("ListOperations", call).await?;
                Ok((page.operations, page.next_page_token))
            }
        })
    }

    /// Gives an operation up, and returns it when it has ended: failed with OPERATION_CANCELLED, or as it ended before.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn cancel(&self, id: impl Into<String>) -> Result<v1::Operation> {
        const CALL: &str = "CancelOperation";
        let request = v1::CancelOperationRequest {
            operation: id.into(),
        };
        let call = || async { self.rpc().cancel_operation(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.operation.ok_or(Error::Protocol {
            during: CALL,
            detail: "no operation",
        })
    }

    /// The operation now, then after each change, until it has ended. Goes on over broken connections.
    pub fn watch(&self, id: impl Into<String>) -> BoxStream<'static, Result<v1::Operation>> {
        let watch = Watch {
            retry: self.client.retry(),
            operations: self.clone(),
            id: id.into(),
            stream: None,
            ended: false,
        };
        stream::try_unfold(watch, |mut watch| async move {
            Ok(watch.next().await?.map(|operation| (operation, watch)))
        })
        .boxed()
    }
}

/// A watch of one operation, over as many connections as it takes.
struct Watch {
    operations: Operations,
    id: String,
    stream: Option<Watched<v1::WatchOperationResponse>>,
    retry: crate::client::Retry,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<v1::Operation>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.step().await {
                Ok(Some(operation)) => {
                    self.retry.established();
                    self.ended = operation.end_time.is_some();
                    return Ok(Some(operation));
                }
                Ok(None) => {}
                Err(error) => {
                    self.stream = None;
                    self.retry.after(error).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<v1::Operation>> {
        const CALL: &str = "WatchOperation";
        use v1::watch_operation_response::Message;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let request = v1::WatchOperationRequest {
                    operation: self.id.clone(),
                };
                let answer = self.operations.rpc().watch_operation(request).await;
                empty.insert(self.operations.client.watched(answer, CALL)?)
            }
        };
        let message = stream.next().await?.ok_or(Error::cut_short(CALL))?;
        match message.message {
            Some(Message::Operation(operation)) => Ok(Some(operation)),
            Some(Message::Heartbeat(_)) => Ok(None),
            None => Err(Error::Protocol {
                during: CALL,
                detail: "an empty message",
            }),
        }
    }
}
