//! The audit log.

use banger_proto::v1;
use futures::stream::{self, BoxStream, StreamExt as _};
use v1::host_service_client::HostServiceClient;
use v1::watch_audit_response::Message;

use crate::client::{Client, Retry};
use crate::error::{Error, Result};
use crate::stream::{Pages, Watched, pages};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

/// Which calls are wanted of the audit log. Made by [`Client::audit`].
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `list` or `follow`"]
pub struct Audit {
    client: Client,
    request: v1::ListAuditRequest,
}

impl Client {
    /// The audit log, newest first: the calls that changed something, or were to. For admins.
    pub fn audit(&self) -> Audit {
        Audit {
            client: self.clone(),
            request: v1::ListAuditRequest {
                page_size: PAGE_SIZE,
                ..Default::default()
            },
        }
    }
}

impl Audit {
    /// Only calls of this caller, such as `uid:1000` or `cert:ci`.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.request.owner = owner.into();
        self
    }

    /// Only calls that came at this time or later.
    pub fn since(mut self, time: std::time::SystemTime) -> Self {
        self.request.since = Some(time.into());
        self
    }

    /// Only calls of this method, such as `banger.v1.VmService/StopVm`.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.request.method = method.into();
        self
    }

    /// Only calls that did not succeed.
    pub const fn failed(mut self) -> Self {
        self.request.failed = true;
        self
    }

    /// The records.
    #[must_use]
    pub fn list(self) -> Pages<v1::AuditRecord> {
        pages(move |page_token| {
            let this = self.clone();
            async move {
                let request = v1::ListAuditRequest {
                    page_token,
                    ..this.request
                };
                let client = &this.client;
                let call = || async {
                    let mut rpc = HostServiceClient::new(client.channel());
                    rpc.list_audit(request.clone()).await
                };
                let page = client.repeat("ListAudit", call).await?;
                Ok((page.records, page.next_page_token))
            }
        })
    }

    /// The records from after the one of this sequence, 0 for the oldest that is kept, and on as they are written, oldest
    /// first; `None` means those that are written from now on. Never ends by itself; where the connection breaks it goes on
    /// after the last record. Dropping the stream ends it.
    #[must_use]
    pub fn follow(self, after: Option<i64>) -> BoxStream<'static, Result<v1::AuditRecord>> {
        let follow = Follow {
            retry: self.client.retry(),
            client: self.client,
            request: v1::WatchAuditRequest {
                after,
                owner: self.request.owner,
                since: self.request.since,
                method: self.request.method,
                failed: self.request.failed,
            },
            stream: None,
        };
        stream::try_unfold(follow, |mut follow| async move {
            let record = follow.next().await?;
            Ok(Some((record, follow)))
        })
        .boxed()
    }
}

/// The audit log as it is written, over as many connections as it takes.
struct Follow {
    client: Client,
    request: v1::WatchAuditRequest,
    stream: Option<Watched<v1::WatchAuditResponse>>,
    retry: Retry,
}

impl Follow {
    async fn next(&mut self) -> Result<v1::AuditRecord> {
        loop {
            match self.step().await {
                Ok(Message::Started(after)) => {
                    self.retry.established();
                    self.request.after = Some(after);
                }
                Ok(Message::Record(record)) => {
                    self.retry.established();
                    self.request.after = Some(record.sequence);
                    return Ok(record);
                }
                Ok(Message::Heartbeat(_)) => {}
                Err(error) => {
                    self.stream = None;
                    self.retry.after(error).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Message> {
        const CALL: &str = "WatchAudit";
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let mut host = HostServiceClient::new(self.client.channel());
                let answer = host.watch_audit(self.request.clone()).await;
                empty.insert(self.client.watched(answer, CALL)?)
            }
        };
        let answer = stream.next().await?.ok_or(Error::cut_short(CALL))?;
        answer.message.ok_or(Error::Protocol {
            during: CALL,
            detail: "an empty message",
        })
    }
}
