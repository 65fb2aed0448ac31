//! `WatchVmStats`: how much VMs use, again and again.

use std::time::Duration;

use banger_app::vm::{Meter, Round};
use banger_proto::v1;
use banger_proto::v1::watch_vm_stats_response::Message;
use futures::stream;
use tokio::time::Instant;

use crate::grpc::convert;
use crate::grpc::convert::field::small;
use crate::grpc::stream::{Answers, Drain, numbered, served};

/// Measures for one caller. The next measurement begins when its time has come and the caller has read the last.
pub(super) struct Watch {
    meter: Meter,
    interval: Duration,
    due: Instant,
    round: Option<Round>,
    measured: usize,
}

impl Watch {
    pub(super) fn new(meter: Meter, interval: Duration) -> Self {
        Self {
            meter,
            interval,
            due: Instant::now(),
            round: None,
            measured: 0,
        }
    }

    pub(super) fn watch(self, drain: &Drain) -> Answers<v1::WatchVmStatsResponse> {
        let messages = stream::unfold(Some(self), async |watch| {
            let mut watch = watch?;
            match watch.next().await {
                Message::Deleted(deleted) => Some((Ok(Message::Deleted(deleted)), None)),
                message => Some((Ok(message), Some(watch))),
            }
        });
        let messages = served(messages, drain.begun.clone(), || {
            Message::Heartbeat(v1::Heartbeat {})
        });
        numbered(messages, |sequence, message| v1::WatchVmStatsResponse {
            sequence,
            message: Some(message),
        })
    }

    async fn next(&mut self) -> Message {
        loop {
            if let Some(round) = &mut self.round {
                if let Some(stats) = self.meter.next(round).await {
                    self.measured += 1;
                    return Message::Stats(convert::stats::stats(&stats));
                }
                self.round = None;
                return Message::Round(v1::StatsRound {
                    vm_count: small(self.measured),
                });
            }
            tokio::time::sleep_until(self.due).await;
            self.due = Instant::now() + self.interval;
            self.measured = 0;
            self.round = self.meter.round();
            if self.round.is_none() {
                return Message::Deleted(v1::VmDeleted {});
            }
        }
    }
}
