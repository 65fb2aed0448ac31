//! The audit log.

use banger_proto::v1;
use v1::host_service_client::HostServiceClient;

use crate::client::Client;
use crate::stream::{Pages, pages};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

/// Which calls are wanted of the audit log. Made by [`Client::audit`].
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `list`"]
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
}
