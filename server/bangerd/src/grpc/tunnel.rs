//! `TunnelService`.

use std::sync::Arc;

use banger_app::tunnel::Events;
use banger_core::tunnel::{TunnelEvent, Window};
use banger_proto::v1;
use banger_proto::v1::tunnel_service_server::TunnelService;
use futures::stream::{self, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::convert::tunnel::Far;
use super::convert::{field, tunnel};
use super::request::RequestError;
use super::stream::{Answers, Drain, first, served};
use super::{Api, process, refused, status};

#[tonic::async_trait]
impl TunnelService for Api {
    type ForwardStream = Answers<v1::ForwardResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<v1::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        use v1::forward_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let vm = field::named("start.vm", &start.vm)?;
        let target = tunnel::target(start.target)?;
        let limit = tunnel::connect_timeout(start.connect_timeout)?;
        let flow = Arc::new(Flow::default());
        let (input, faults) = process::input(messages, {
            let flow = flow.clone();
            move |message| tunnel::input(message, &flow.inward, &flow.outward)
        });
        let events = match target {
            Far::Socket(target) => {
                let tunnels = &self.app.tunnels;
                tunnels.forward(vm, &target, limit, input).await
            }
            Far::Ssh => banger_ssh::connect(&self.app, vm, input).await,
        };
        let events = events.map_err(refused)?;
        Ok(Response::new(forwarded(events, faults, flow, &self.drain)))
    }
}

/// Both directions of a tunnel, for which the caller is held to its word.
#[derive(Debug, Default)]
struct Flow {
    /// From the caller to the guest.
    inward: Window,
    /// From the guest to the caller.
    outward: Window,
}

impl Flow {
    /// What the guest does, which was checked where it was heard.
    fn count(&self, event: &TunnelEvent) {
        match event {
            TunnelEvent::Data(data) => {
                let _ = self.outward.send(data.len() as u64);
            }
            TunnelEvent::End => self.outward.end(),
            TunnelEvent::Taken(taken) => {
                let _ = self.inward.take(*taken);
            }
            TunnelEvent::Heartbeat => {}
        }
    }
}

/// What the caller of a tunnel is told.
fn forwarded(
    events: Events,
    faults: process::Faults,
    flow: Arc<Flow>,
    drain: &Drain,
) -> Answers<v1::ForwardResponse> {
    let connected = stream::iter([Ok(tunnel::connected())]);
    let events = events.map(move |event| {
        let event = event.map_err(|error| status::of(&error))?;
        flow.count(&event);
        Ok(tunnel::event(event))
    });
    let messages = process::until_fault(connected.chain(events).boxed(), faults);
    served(messages, drain.over.clone(), || {
        tunnel::event(TunnelEvent::Heartbeat)
    })
}
