//! What a reader is told whose VM is gone.

use banger_core::Timestamp;
use banger_core::session::Stream as Output;
use bytes::Bytes;
use futures::stream;

use super::*;

#[tokio::test]
async fn a_vm_that_is_gone_ends_the_output_where_its_reader_is() {
    let output = SessionEvent::Output {
        offset: 1000,
        stream: Output::Stdout,
        time: Timestamp::now(),
        data: Bytes::from_static(b"seven b"),
    };
    let gap = SessionEvent::Gap {
        offset: 1007,
        lost_bytes: 93,
    };
    for (events, expected) in [
        (vec![output.clone(), gap], 1100),
        (vec![output, SessionEvent::Heartbeat], 1007),
        (
            vec![SessionEvent::Screen {
                offset: 12,
                data: Bytes::new(),
            }],
            12,
        ),
    ] {
        let lost = Err(GuestError::Lost { during: "attach" });
        let events = stream::iter(events.into_iter().map(Ok).chain([lost]));
        let mut judged = Judged {
            events: events.boxed(),
            view: None,
            _used: (),
            end_offset: 0,
        };
        let mut last = None;
        while let Some(event) = judged.next().await {
            last = Some(event.unwrap());
        }
        let expected = SessionEvent::Exited {
            exit: Exit::VmGone,
            end_offset: expected,
        };
        assert_eq!(last, Some(expected));
    }
}
