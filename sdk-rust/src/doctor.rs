//! Whether a daemon's host is fit.

use banger_proto::v1;
use banger_proto::v1::doctor_response::Message;
use futures::stream::{self, BoxStream, StreamExt};

use crate::client::Client;
use crate::error::{CodeRan, Error, Result};
use crate::stream::Watched;

const CALL: &str = "Doctor";

/// A piece of a diagnosis.
#[derive(Debug, Clone, PartialEq)]
pub enum DoctorEvent {
    /// A check ended. They come in no order; `position` has one.
    Check(Box<v1::DoctorCheck>),
    /// All have; the last event.
    Summary(v1::DoctorSummary),
}

/// A look at the host, begun when it is made a stream.
#[derive(Debug)]
#[must_use = "the host is looked at when it is made a stream"]
pub struct Doctor {
    client: Client,
    request: v1::DoctorRequest,
}

impl Doctor {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            request: v1::DoctorRequest {
                fix: false,
                checks: Vec::new(),
            },
        }
    }

    /// Mends what can be mended without harm; each check tells what was changed for it.
    pub const fn fix(mut self) -> Self {
        self.request.fix = true;
        self
    }

    /// Only these checks, by id, e.g. `KVM_BOOTS_GUEST`.
    pub fn checks<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> Self {
        self.request.checks.extend(ids.into_iter().map(Into::into));
        self
    }

    /// The checks as they end, then the summary. A daemon that does not answer is noticed.
    pub fn stream(self) -> BoxStream<'static, Result<DoctorEvent>> {
        let begun = stream::once(self.begin());
        begun
            .flat_map(|stream| match stream {
                Ok(stream) => events(stream),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    async fn begin(self) -> Result<Watched<v1::DoctorResponse>> {
        let mut host = v1::host_service_client::HostServiceClient::new(self.client.channel());
        let silence = self.client.silence();
        let answer = tokio::time::timeout(silence, host.doctor(self.request)).await;
        let answer = answer.map_err(|_| Error::ConnectionSilent {
            during: CALL,
            silent: silence,
            code_ran: CodeRan::Maybe,
            process: None,
        })?;
        self.client.watched(answer, CALL)
    }
}

fn events(stream: Watched<v1::DoctorResponse>) -> BoxStream<'static, Result<DoctorEvent>> {
    stream::try_unfold(Some(stream), |stream| async move {
        let Some(mut stream) = stream else {
            return Ok(None);
        };
        loop {
            let answer = stream.next().await?.ok_or(Error::cut_short(CALL))?;
            match answer.message {
                Some(Message::Check(check)) => {
                    return Ok(Some((DoctorEvent::Check(Box::new(check)), Some(stream))));
                }
                Some(Message::Summary(summary)) => {
                    return Ok(Some((DoctorEvent::Summary(summary), None)));
                }
                Some(Message::Heartbeat(_)) => {}
                None => {
                    return Err(Error::Protocol {
                        during: CALL,
                        detail: "an empty message",
                    });
                }
            }
        }
    })
    .boxed()
}
