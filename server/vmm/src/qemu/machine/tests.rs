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
