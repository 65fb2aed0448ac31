//! From a reader's events to the messages of the protocol.

use banger_proto::guest::v1::attach_session_response::Message as Attach;
use banger_proto::guest::v1::read_session_log_response::Message as Read;
use banger_proto::guest::v1::{
    AttachSessionResponse, Exited, Gap, Heartbeat, Output, ReadSessionLogResponse,
};

use crate::session::log::Frame;
use crate::session::reader::Event;

pub(crate) fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn output(frame: Frame) -> Output {
    Output {
        offset: signed(frame.offset),
        stream: frame.stream.into(),
        time: Some(frame.time.into()),
        data: frame.data,
    }
}

/// As an attached reader receives it.
#[must_use]
pub(crate) fn attached(event: Event) -> AttachSessionResponse {
    let message = match event {
        Event::Output(frame) => Attach::Output(output(frame)),
        Event::Gap { offset, lost_bytes } => Attach::Gap(Gap {
            offset: signed(offset),
            lost_bytes: signed(lost_bytes),
        }),
        Event::StdinAck(offset) => Attach::StdinAck(signed(offset)),
        Event::Heartbeat => Attach::Heartbeat(Heartbeat {}),
        Event::Exited { exit, end_offset } => Attach::Exited(Exited {
            exit: Some(exit),
            end_offset: signed(end_offset),
        }),
    };
    AttachSessionResponse {
        message: Some(message),
        start_offset: 0,
        writer_offset: None,
    }
}

/// As a reader of the log receives it, which is told nothing of standard input.
#[must_use]
pub(crate) fn logged(event: Event) -> Option<ReadSessionLogResponse> {
    let message = match attached(event).message? {
        Attach::Output(output) => Read::Output(output),
        Attach::Gap(gap) => Read::Gap(gap),
        Attach::Heartbeat(heartbeat) => Read::Heartbeat(heartbeat),
        Attach::Exited(exited) => Read::Exited(exited),
        Attach::Attached(_) | Attach::StdinAck(_) | Attach::Screen(_) => return None,
    };
    Some(ReadSessionLogResponse {
        message: Some(message),
        start_offset: 0,
    })
}
