use tokio::io::AsyncReadExt;

use super::*;

#[test]
fn the_last_event_tells_how_it_ended() {
    let table = [
        (
            Some("guest-shutdown"),
            Ending::Code(0),
            VmmExit::GuestPowerOff,
        ),
        (Some("guest-reset"), Ending::Code(0), VmmExit::GuestReset),
        (Some("guest-panic"), Ending::Unknown, VmmExit::GuestReset),
    ];
    for (reason, ending, exit) in table {
        assert_eq!(judge(reason, ending, "words"), exit);
    }
}

#[test]
fn any_other_end_carries_what_is_known() {
    let detail = |reason, ending, tail: &str| match judge(reason, ending, tail) {
        VmmExit::Other { detail } => detail,
        exit => panic!("{exit:?}"),
    };
    assert_eq!(detail(None, Ending::Signal(9), ""), "signal 9");
    assert_eq!(
        detail(
            Some("host-signal"),
            Ending::Code(0),
            "terminating on signal 15"
        ),
        "exit code 0; host-signal; terminating on signal 15"
    );
    assert!(detail(None, Ending::Unknown, "").contains("earlier daemon"));
    assert_eq!(
        detail(None, Ending::Code(1), &"é".repeat(9999))
            .chars()
            .count(),
        MAX_DETAIL
    );
}

#[tokio::test]
async fn bytes_that_came_with_the_handshake_are_read_first() {
    let (stream, theirs) = UnixStream::pair().unwrap();
    let link = Arc::new(rustix::io::fcntl_dupfd_cloexec(&stream, 0).unwrap());
    let mut channel = AgentChannel {
        stream,
        rest: b"tsrif".to_vec(),
        _link: Arc::clone(&link),
    };
    theirs.try_write(b" then").unwrap();
    let mut text = [0; 10];
    channel.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"first then");
    shut_down(&Arc::downgrade(&link));
    assert_eq!(
        channel.read(&mut text).await.unwrap(),
        0,
        "a replaced channel has ended"
    );
}
