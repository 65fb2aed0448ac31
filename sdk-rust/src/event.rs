//! What happens on the host, over as many connections as it takes.

use banger_proto::v1;
use futures::stream::{self, BoxStream, StreamExt};
use v1::host_service_client::HostServiceClient;
use v1::watch_events_request::Start as Begin;
use v1::watch_events_response::Message;

use crate::client::{Client, Retry};
use crate::error::{Error, Result};
use crate::stream::Watched;

pub use v1::event::Kind as EventKind;

/// What a watch of the host tells.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// Where every VM is: the first, and again after events were lost, and when another daemon has taken over,
    /// whose numbers begin anew. All that was built from events before is replaced by it.
    Snapshot {
        /// The host, with the effect of all events up to its sequence.
        snapshot: v1::EventsSnapshot,
        /// Events that were lost before it.
        dropped_count: i64,
    },
    /// The next event.
    Event(Box<v1::Event>),
}

/// A watch of what happens on the host, begun when it is made a stream.
#[derive(Debug)]
#[must_use = "events are watched when this is made a stream"]
pub struct Events {
    client: Client,
    request: v1::WatchEventsRequest,
    stream: Option<Watched<v1::WatchEventsResponse>>,
    retry: Retry,
    /// Of the daemon that told last.
    epoch: String,
}

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            retry: client.retry(),
            client,
            request: v1::WatchEventsRequest::default(),
            stream: None,
            epoch: String::new(),
        }
    }

    /// Only events of these kinds.
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        self.request.kinds = kinds.into_iter().map(Into::into).collect();
        self
    }

    /// Only events of this VM, by id or name, and of work on it.
    pub fn vm(mut self, vm: impl Into<String>) -> Self {
        self.request.vm = vm.into();
        self
    }

    /// Begins with the events that the daemon still keeps; the snapshot follows them. If the connection breaks among
    /// them, they come again.
    pub fn kept(mut self) -> Self {
        self.request.start = Some(Begin::Kept(true));
        self
    }

    /// Begins after an event that was seen before, by its sequence and the epoch of the snapshot before it.
    pub fn after(mut self, epoch: impl Into<String>, sequence: i64) -> Self {
        self.epoch = epoch.into();
        self.seen(sequence);
        self
    }

    /// What happens, in order; never ends by itself. Where the connection breaks it goes on after the last event,
    /// or with a snapshot where that is not possible.
    pub fn stream(self) -> BoxStream<'static, Result<HostEvent>> {
        stream::try_unfold(self, |mut events| async move {
            let event = events.next().await?;
            Ok(Some((event, events)))
        })
        .boxed()
    }

    fn seen(&mut self, sequence: i64) {
        // Of kept events the epoch comes with the snapshot that follows them.
        if !self.epoch.is_empty() {
            self.request.start = Some(Begin::After(v1::EventPosition {
                epoch: self.epoch.clone(),
                sequence,
            }));
        }
    }

    async fn next(&mut self) -> Result<HostEvent> {
        loop {
            match self.step().await {
                Ok((dropped_count, Message::Snapshot(snapshot))) => {
                    self.retry.established();
                    self.epoch.clone_from(&snapshot.epoch);
                    self.seen(snapshot.sequence);
                    return Ok(HostEvent::Snapshot {
                        snapshot,
                        dropped_count,
                    });
                }
                Ok((_, Message::Event(event))) => {
                    self.retry.established();
                    self.seen(event.sequence);
                    return Ok(HostEvent::Event(Box::new(event)));
                }
                Ok((_, Message::Heartbeat(_))) => {}
                Err(error) => {
                    self.stream = None;
                    self.retry.after(error).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(i64, Message)> {
        const CALL: &str = "WatchEvents";
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let mut host = HostServiceClient::new(self.client.channel());
                let answer = host.watch_events(self.request.clone()).await;
                empty.insert(self.client.watched(answer, CALL)?)
            }
        };
        let answer = stream.next().await?.ok_or(Error::cut_short(CALL))?;
        let message = answer.message.ok_or(Error::Protocol {
            during: CALL,
            detail: "an empty message",
        })?;
        Ok((answer.dropped_count, message))
    }
}
