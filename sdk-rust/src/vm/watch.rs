//! A VM's changes and its console, over as many connections as it takes.

use banger_proto::v1;
use futures::stream::{self, BoxStream, StreamExt};

use super::Vms;
use crate::client::Retry;
use crate::error::{Error, Result};
use crate::stream::Watched;

/// What a watch of a VM tells.
#[derive(Debug, Clone)]
pub enum VmEvent {
    /// The VM as it is now.
    State(Box<v1::Vm>),
    /// It is deleted; the last event.
    Deleted,
}

/// The VM now, then each change, until it is deleted.
pub(super) fn watch(vms: Vms, vm: String) -> BoxStream<'static, Result<VmEvent>> {
    let watch = Watch {
        retry: vms.client.retry(),
        vms,
        vm,
        stream: None,
        ended: false,
    };
    stream::try_unfold(watch, |mut watch| async move {
        Ok(watch.next().await?.map(|event| (event, watch)))
    })
    .boxed()
}

struct Watch {
    vms: Vms,
    vm: String,
    stream: Option<Watched<v1::WatchVmResponse>>,
    retry: Retry,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<VmEvent>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.step().await {
                Ok(Some(event)) => {
                    self.retry.established();
                    self.ended = matches!(event, VmEvent::Deleted);
                    return Ok(Some(event));
                }
                Ok(None) => {}
                Err(error) => {
                    self.stream = None;
                    self.retry.after(error).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<VmEvent>> {
        const CALL: &str = "WatchVm";
        use v1::watch_vm_response::Message;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let request = v1::WatchVmRequest {
                    vm: self.vm.clone(),
                };
                let answer = self.vms.rpc().watch_vm(request).await;
                empty.insert(self.vms.client.watched(answer, CALL)?)
            }
        };
        let message = stream.next().await?.ok_or(Error::cut_short(CALL))?;
        match message.message {
            Some(Message::Vm(vm)) => {
                self.vm.clone_from(&vm.id); // a name may go to another VM while we are away
                Ok(Some(VmEvent::State(Box::new(vm))))
            }
            Some(Message::Deleted(_)) => Ok(Some(VmEvent::Deleted)),
            Some(Message::Heartbeat(_)) => Ok(None),
            None => Err(Error::Protocol {
                during: CALL,
                detail: "an empty message",
            }),
        }
    }
}

/// A reading of a console, begun when it is made a stream.
#[derive(Debug)]
#[must_use = "a console is read when it is made a stream"]
pub struct Console {
    vms: Vms,
    request: v1::ReadConsoleRequest,
    stream: Option<Watched<v1::ReadConsoleResponse>>,
    retry: Retry,
}

impl Console {
    pub(super) fn new(vms: Vms, vm: String) -> Self {
        let request = v1::ReadConsoleRequest {
            vm,
            offset: None,
            follow: false,
            tail_lines: None,
        };
        Self {
            retry: vms.client.retry(),
            vms,
            request,
            stream: None,
        }
    }

    /// From this byte on instead of from the oldest that is kept.
    pub const fn offset(mut self, offset: i64) -> Self {
        self.request.offset = Some(offset);
        self
    }

    /// Begins so many lines before the end, at most 10,000.
    pub const fn tail(mut self, lines: i32) -> Self {
        self.request.tail_lines = Some(lines);
        self
    }

    /// Goes on with what comes until the VM stops.
    pub const fn follow(mut self) -> Self {
        self.request.follow = true;
        self
    }

    /// The pieces, in order; goes on where it was over broken connections.
    pub fn stream(self) -> BoxStream<'static, Result<v1::ConsoleOutput>> {
        stream::try_unfold(self, |mut console| async move {
            Ok(console.next().await?.map(|output| (output, console)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<v1::ConsoleOutput>> {
        loop {
            match self.step().await {
                Ok(Some(output)) => {
                    self.retry.established();
                    let length = i64::try_from(output.data.len()).unwrap_or(i64::MAX);
                    self.request.offset = Some(output.offset.saturating_add(length));
                    self.request.tail_lines = None;
                    return Ok(Some(output));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.stream = None;
                    self.retry.after(error).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<v1::ConsoleOutput>> {
        const CALL: &str = "ReadConsole";
        use v1::read_console_response::Message;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let answer = self.vms.rpc().read_console(self.request.clone()).await;
                empty.insert(self.vms.client.watched(answer, CALL)?)
            }
        };
        loop {
            let Some(message) = stream.next().await? else {
                return Ok(None);
            };
            match message.message {
                Some(Message::Output(output)) => return Ok(Some(output)),
                Some(Message::Heartbeat(_)) => {}
                None => {
                    return Err(Error::Protocol {
                        during: CALL,
                        detail: "an empty message",
                    });
                }
            }
        }
    }
}
