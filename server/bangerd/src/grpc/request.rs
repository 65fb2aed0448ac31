//! What is wrong with a request before any service sees it, and what its id makes of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_app::{App, AppError};
use banger_core::{Digest, Explain, Failure, FailureKind, Owner, chain};
use banger_store::{Answer, RequestKey, StoreError};
use prost::Message;
use tonic::{Response, Status};

use super::status;

/// Why a request is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// A field is wrong.
    #[error("{field} {problem}")]
    Invalid {
        /// Its path in the request.
        field: &'static str,
        /// What is wrong, as the end of a sentence that begins with the field.
        problem: String,
    },
    /// A request that was not whole in time.
    #[error("the request was not whole within {within:?}")]
    RequestLate {
        /// The time.
        within: Duration,
    },
    /// A stream whose first message did not come.
    #[error("the first message of the stream was not whole within {within:?}")]
    FirstMessageLate {
        /// The time.
        within: Duration,
    },
    /// More than the one message that a call is.
    #[error("the call takes one message, and a second came")]
    SecondMessage,
    /// A stream that ended or broke off before it was whole.
    #[error("the caller ended the stream before it was whole")]
    CutShort,
    /// The daemon is stopping; the stream can be taken up again.
    #[error("the daemon is stopping")]
    Draining,
    /// The guest says that output of an exec is lost, which the process was held for.
    #[error("{lost_bytes} bytes of output were lost in the VM")]
    OutputLost {
        /// How many.
        lost_bytes: u64,
    },
}

impl RequestError {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            problem: problem.into(),
        }
    }

    pub(crate) fn missing(field: &'static str) -> Self {
        Self::invalid(field, "is missing")
    }
}

impl Explain for RequestError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Invalid { field, .. } => FailureKind::InvalidArgument {
                field: (*field).to_owned(),
            },
            Self::RequestLate { .. } | Self::FirstMessageLate { .. } => {
                FailureKind::DeadlineExceeded
            }
            Self::SecondMessage => FailureKind::InvalidArgument {
                field: "message".to_owned(),
            },
            Self::CutShort => FailureKind::Cancelled,
            Self::Draining => FailureKind::Unavailable {
                retry_after: Duration::from_secs(1),
            },
            Self::OutputLost { .. } => FailureKind::DataLoss {
                resource: "session".into(),
                name: String::new(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::RequestLate { .. } => "REQUEST_LATE",
            Self::FirstMessageLate { .. } => "FIRST_MESSAGE_LATE",
            Self::SecondMessage => "SECOND_MESSAGE",
            Self::CutShort => "CUT_SHORT",
            Self::Draining => "DRAINING",
            Self::OutputLost { .. } => "OUTPUT_LOST",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Invalid { .. } => "Correct the field and send the request again.",
            Self::RequestLate { .. } => {
                "Send the request in one go, over a faster way; `limits.request_timeout` in the daemon's configuration allows more time."
            }
            Self::FirstMessageLate { .. } => {
                "Send the first message with the call; `limits.request_timeout` in the daemon's configuration allows more time."
            }
            Self::SecondMessage => "Make a call of its own for each message.",
            Self::CutShort => return None,
            Self::Draining => {
                "Connect again when the daemon is back, and go on where this ended. VMs run on."
            }
            Self::OutputLost { .. } => {
                "The VM's agent broke its promise: stop and start the VM, and report it with the daemon's log."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Invalid { field, problem } => {
                vec![("field", (*field).to_owned()), ("problem", problem.clone())]
            }
            Self::OutputLost { lost_bytes } => vec![("lost_bytes", lost_bytes.to_string())],
            Self::RequestLate { within } | Self::FirstMessageLate { within } => {
                vec![("limit_seconds", within.as_secs_f32().to_string())]
            }
            Self::SecondMessage | Self::CutShort | Self::Draining => Vec::new(),
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        status::explain(&error)
    }
}

/// The key of a call that has a request id: `body` is the request without it.
pub(crate) fn key<M: Message>(
    method: &str,
    id: &str,
    body: &M,
) -> Result<Option<RequestKey>, RequestError> {
    if id.is_empty() {
        return Ok(None);
    }
    let uuid = uuid::Uuid::try_parse(id).ok().filter(|_| id.len() == 36);
    let uuid = uuid.ok_or_else(|| RequestError::invalid("request_id", "is not a UUID"))?;
    Ok(Some(RequestKey {
        id: uuid.hyphenated().to_string(),
        // Set by whoever uses the key, who knows who calls.
        owner: Owner::daemon(),
        method: method.to_owned(),
        body_digest: Digest::of(&body.encode_to_vec()),
    }))
}

/// Does `work` to its end though the caller hangs up meanwhile, at whatever instant: what it begins is whole or not there,
/// and a repeat finds it. A handler's own future is dropped where it stands.
pub(crate) fn to_its_end<T, W>(
    app: &App,
    work: W,
) -> impl Future<Output = Result<T, Status>> + use<T, W>
where
    T: Send + 'static,
    W: Future<Output = Result<T, AppError>> + Send + 'static,
{
    let begun = app.tasks().spawn(work);
    async move {
        match begun.await {
            Ok(done) => done.map_err(|error| status::of(&error)),
            Err(_) => Err(status::panicked()),
        }
    }
}

/// One turn for each caller and request id: the ids of one caller are nothing to another.
type Turns = HashMap<(Owner, String), Arc<tokio::sync::Mutex<()>>>;

/// What becomes of a call of which nobody finds out whether it was made before, since the database fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsure {
    /// It is refused.
    Refused,
    /// It is made: another time changes nothing, and what it ends must be ended whatever the disk does.
    Made,
}

/// Calls with a request id that go on now: a repeat waits for the first, then gets its answer.
#[derive(Debug, Default)]
pub(crate) struct Once {
    running: Mutex<Turns>,
}

impl Once {
    /// Does `work` once for each request id, and to its end though the caller hangs up. Only a success is
    /// kept: what failed may be tried again with the same id.
    pub(crate) async fn answer<M, W>(
        self: &Arc<Self>,
        app: &Arc<App>,
        key: Option<RequestKey>,
        work: W,
    ) -> Result<Response<M>, Status>
    where
        M: Message + Default + 'static,
        W: Future<Output = Result<M, AppError>> + Send + 'static,
    {
        self.answer_if(Unsure::Refused, app, key, work).await
    }

    /// As [`Once::answer`], with another way where the database fails.
    pub(crate) async fn answer_if<M, W>(
        self: &Arc<Self>,
        unsure: Unsure,
        app: &Arc<App>,
        key: Option<RequestKey>,
        work: W,
    ) -> Result<Response<M>, Status>
    where
        M: Message + Default + 'static,
        W: Future<Output = Result<M, AppError>> + Send + 'static,
    {
        let (once, whose) = (self.clone(), app.clone());
        let key = key.map(|key| key.of(app.caller()));
        let answer = to_its_end(app, async move {
            match key {
                Some(key) => once.keyed(unsure, &whose, &key, work).await,
                None => work.await,
            }
        });
        answer.await.map(Response::new)
    }

    async fn keyed<M, W>(
        &self,
        unsure: Unsure,
        app: &App,
        key: &RequestKey,
        work: W,
    ) -> Result<M, AppError>
    where
        M: Message + Default,
        W: Future<Output = Result<M, AppError>>,
    {
        let work = first_or_kept(unsure, app, key, work);
        self.in_turn(Some(key), work).await
    }

    /// Does `work` when no other with the same request id goes on; without one, at once.
    pub(crate) async fn in_turn<T>(
        &self,
        key: Option<&RequestKey>,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(key) = key else { return work.await };
        let whose = (key.owner.clone(), key.id.clone());
        let turn = self.lock().entry(whose.clone()).or_default().clone();
        let done = {
            let _turn = turn.lock().await;
            work.await
        };
        drop(turn);
        // Whoever is last to leave takes the entry away: the map's own is then the only one left.
        let mut running = self.lock();
        if running
            .get(&whose)
            .is_some_and(|turn| Arc::strong_count(turn) == 1)
        {
            running.remove(&whose);
        }
        done
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Turns> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn first_or_kept<M: Message + Default>(
    unsure: Unsure,
    app: &App,
    key: &RequestKey,
    work: impl Future<Output = Result<M, AppError>>,
) -> Result<M, AppError> {
    let goes_on = |error: &StoreError| {
        let goes_on = unsure == Unsure::Made;
        if goes_on {
            tracing::error!(
                method = key.method,
                error = chain(error),
                "the database fails; the call is made all the same"
            );
        }
        goes_on
    };
    let kept = match app.store().get_answer(key).await {
        Err(error) if goes_on(&error) => Answer::None,
        kept => kept?,
    };
    match kept {
        Answer::Stored(bytes) => {
            M::decode(bytes.as_slice()).map_err(|_| AppError::Failed(Box::new(unreadable())))
        }
        Answer::Conflict => Err(AppError::RequestIdReused { id: key.id.clone() }),
        Answer::None => {
            let answer = work.await?;
            match app.store().put_answer(key, &answer.encode_to_vec()).await {
                Err(error) if !goes_on(&error) => Err(error.into()),
                _ => Ok(answer),
            }
        }
    }
}

/// A kept answer of a daemon whose messages were others.
fn unreadable() -> Failure {
    Failure {
        kind: FailureKind::Internal,
        reason: "ANSWER_UNREADABLE".into(),
        message: "the answer kept for this request id cannot be read".into(),
        remedy: Some("Look at the resource itself, and use a new request id.".into()),
        metadata: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use banger_proto::v1;

    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_or_absent() {
        let body = v1::DeleteVmRequest::default();
        assert_eq!(key("m", "", &body), Ok(None));
        for id in [
            "x",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
        ] {
            assert_eq!(
                key("m", id, &body),
                Err(RequestError::invalid("request_id", "is not a UUID")),
                "{id}"
            );
        }
        let upper = key("m", "01890A5D-AC96-774B-BCCE-B302099A8057", &body)
            .unwrap()
            .unwrap();
        assert_eq!(upper.id, "01890a5d-ac96-774b-bcce-b302099a8057");
    }

    #[test]
    fn another_body_has_another_digest() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let digest = |vm: &str| {
            key(
                "m",
                id,
                &v1::DeleteVmRequest {
                    vm: vm.into(),
                    ..Default::default()
                },
            )
            .unwrap()
            .unwrap()
            .body_digest
        };
        assert_eq!(digest("a"), digest("a"));
        assert_ne!(digest("a"), digest("b"));
    }

    #[tokio::test]
    async fn the_same_id_of_another_caller_waits_for_nobody() {
        let once = Once::default();
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let body = v1::DeleteVmRequest::default();
        let of = |uid| {
            let key = key("m", id, &body).unwrap().unwrap();
            key.of(&Owner::of_uid(uid))
        };
        let (one, two) = (of(1), of(2));
        let done = once.in_turn(Some(&one), async {
            let again = once.in_turn(Some(&one), async {});
            let mut again = std::pin::pin!(again);
            let waits = futures::poll!(&mut again);
            assert!(waits.is_pending(), "two of one caller at once");
            let other = once.in_turn(Some(&two), async {});
            let other = std::pin::pin!(other);
            futures::poll!(other).is_ready()
        });
        assert!(done.await);
        assert!(once.lock().is_empty());
    }

    #[test]
    fn each_error_says_what_is_wrong() {
        let texts = [
            (RequestError::missing("spec"), "spec is missing"),
            (
                RequestError::RequestLate {
                    within: Duration::from_secs(30),
                },
                "the request was not whole within 30s",
            ),
            (
                RequestError::FirstMessageLate {
                    within: Duration::from_millis(1500),
                },
                "the first message of the stream was not whole within 1.5s",
            ),
            (
                RequestError::SecondMessage,
                "the call takes one message, and a second came",
            ),
            (
                RequestError::CutShort,
                "the caller ended the stream before it was whole",
            ),
            (RequestError::Draining, "the daemon is stopping"),
            (
                RequestError::OutputLost { lost_bytes: 3 },
                "3 bytes of output were lost in the VM",
            ),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
            assert!(error.reason().len() <= 63);
        }
    }
}
