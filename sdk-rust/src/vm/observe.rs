//! How much VMs use, and who listens in them.

use std::future::IntoFuture;
use std::time::Duration;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};

use super::{Vms, span};
use crate::client::Retry;
use crate::error::{Error, Result};
use crate::stream::Watched;

/// The VMs of one measurement, in no order.
pub type Round = Vec<v1::VmStats>;

impl Vms {
    /// How much a VM uses. Takes a quarter of a second, over which what changes is measured.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked. A guest that does not answer is no error: the answer
    /// then has its `guest_error`.
    pub async fn stats(&self, vm: impl Into<String>) -> Result<v1::VmStats> {
        const CALL: &str = "GetVmStats";
        let request = v1::GetVmStatsRequest { vm: vm.into() };
        let call = || async { self.rpc().get_vm_stats(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.stats.ok_or(Error::Protocol {
            during: CALL,
            detail: "no stats",
        })
    }

    /// How much a VM uses, every `interval` (0.5 s to 60 s), until it is deleted. Goes on over broken connections.
    pub fn watch_stats(
        &self,
        vm: impl Into<String>,
        interval: Duration,
    ) -> BoxStream<'static, Result<Round>> {
        watch(self.clone(), vm.into(), interval)
    }

    /// How much every VM uses, every `interval` (0.5 s to 60 s). Goes on over broken connections.
    #[must_use]
    pub fn watch_all_stats(&self, interval: Duration) -> BoxStream<'static, Result<Round>> {
        watch(self.clone(), String::new(), interval)
    }

    /// The public key of a VM's ssh server ([`TunnelTarget::Ssh`](crate::TunnelTarget::Ssh)), as `TYPE BASE64`.
    ///
    /// # Errors
    /// When there is no such VM, or the daemon cannot be asked.
    pub async fn ssh_host_key(&self, vm: impl Into<String>) -> Result<String> {
        let request = v1::GetSshHostKeyRequest { vm: vm.into() };
        let call = || async { self.rpc().get_ssh_host_key(request.clone()).await };
        let answer = self.client.repeat("GetSshHostKey", call).await?;
        Ok(answer.public_key)
    }

    /// Who listens in a running VM.
    pub fn ports(&self, vm: impl Into<String>) -> ListPorts {
        ListPorts {
            vms: self.clone(),
            request: v1::ListPortsRequest {
                vm: vm.into(),
                probe: false,
            },
        }
    }
}

/// A question who listens, asked when it is awaited.
#[derive(Debug)]
#[must_use = "it is asked when this is awaited"]
pub struct ListPorts {
    vms: Vms,
    request: v1::ListPortsRequest,
}

impl ListPorts {
    /// Asks each listener on the guest's loopback for its page too, from within the guest.
    pub const fn probe(mut self) -> Self {
        self.request.probe = true;
        self
    }
}

impl IntoFuture for ListPorts {
    type Output = Result<v1::ListPortsResponse>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let (vms, request) = (&self.vms, &self.request);
            let call = || async { vms.rpc().list_ports(request.clone()).await };
            vms.client.repeat("ListPorts", call).await
        }
        .boxed()
    }
}

fn watch(vms: Vms, vm: String, interval: Duration) -> BoxStream<'static, Result<Round>> {
    let watch = Watch {
        retry: vms.client.retry(),
        vms,
        request: v1::WatchVmStatsRequest {
            vm,
            interval: Some(span(interval)),
        },
        stream: None,
        measured: Round::new(),
    };
    stream::try_unfold(watch, |mut watch| async move {
        Ok(watch.next().await?.map(|round| (round, watch)))
    })
    .boxed()
}

struct Watch {
    vms: Vms,
    request: v1::WatchVmStatsRequest,
    stream: Option<Watched<v1::WatchVmStatsResponse>>,
    retry: Retry,
    /// Of the measurement under way.
    measured: Round,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Round>> {
        use v1::watch_vm_stats_response::Message;
        loop {
            match self.step().await {
                Ok(Message::Stats(stats)) => {
                    if !self.request.vm.is_empty() {
                        // A name may go to another VM while we are away.
                        self.request.vm.clone_from(&stats.vm);
                    }
                    self.measured.push(stats);
                }
                Ok(Message::Round(_)) => {
                    self.retry.established();
                    return Ok(Some(std::mem::take(&mut self.measured)));
                }
                Ok(Message::Deleted(_)) => return Ok(None),
                Ok(Message::Heartbeat(_)) => {}
                Err(error) => {
                    self.stream = None;
                    self.measured.clear();
                    self.retry.after(error).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<v1::watch_vm_stats_response::Message> {
        const CALL: &str = "WatchVmStats";
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let answer = self.vms.rpc().watch_vm_stats(self.request.clone()).await;
                empty.insert(self.vms.client.watched(answer, CALL)?)
            }
        };
        let message = stream.next().await?.ok_or(Error::cut_short(CALL))?;
        message.message.ok_or(Error::Protocol {
            during: CALL,
            detail: "an empty message",
        })
    }
}
