//! `banger session`: what goes on without the command.

use super::fake::Fake;
use super::fake::running::pattern;
use super::*;

fn start(fake: &Fake, arguments: &[&str]) -> String {
    let started = output(fake, &[&["session", "start", "web"], arguments].concat());
    assert_eq!(code(&started), 0, "{}", text(&started.stderr));
    text(&started.stdout).trim().to_owned()
}

#[test]
fn a_session_is_attached_to_with_its_code_and_all_its_output() {
    let fake = with_vm();
    let id = start(&fake, &["--", "bytes", "300000"]);
    let attached = output(&fake, &["session", "attach", &id]);
    assert_eq!(code(&attached), 0);
    assert!(attached.stdout == pattern(300_000));
    let rest = output(&fake, &["session", "attach", "--offset", "299990", &id]);
    assert!(rest.stdout == pattern(300_000)[299_990..]);
    let none = output(&fake, &["session", "attach", "--no-replay", &id]);
    assert!(none.stdout.is_empty());
    assert_eq!(code(&output(&fake, &["session", "wait", &id])), 0);
}

#[test]
fn a_log_is_separated_by_stream_and_has_a_json_line_for_each_event() {
    let fake = with_vm();
    let id = start(&fake, &["--", "both"]);
    let log = output(&fake, &["session", "log", &id]);
    assert_eq!((text(&log.stdout), text(&log.stderr)), ("out\n", "err\n"));
    let log = output(&fake, &["session", "log", "--stream", "stderr", &id]);
    assert_eq!((text(&log.stdout), text(&log.stderr)), ("", "err\n"));
    let log = output(&fake, &["session", "log", "--output", "json", &id]);
    let expected = concat!(
        r#"{"type":"output","offset":0,"stream":"stdout","time":"2023-11-14T22:13:24Z","data_base64":"b3V0Cg=="}"#,
        "\n",
        r#"{"type":"output","offset":4,"stream":"stderr","time":"2023-11-14T22:13:24Z","data_base64":"ZXJyCg=="}"#,
        "\n",
        r#"{"type":"exited","exit":{"how":"code","code":0,"signal":null}}"#,
        "\n"
    );
    assert_eq!(text(&log.stdout), expected);
}

#[test]
fn a_session_is_signalled_waited_for_and_removed() {
    let fake = with_vm();
    let id = start(&fake, &["--", "sleep"]);
    assert_eq!(
        code(&output(&fake, &["session", "signal", &id, "SIGTERM"])),
        0
    );
    assert_eq!(code(&output(&fake, &["session", "wait", &id])), 143);
    let waited = output(&fake, &["session", "wait", "--output", "json", &id]);
    assert_eq!(
        text(&waited.stdout),
        "{\"how\":\"signal\",\"code\":null,\"signal\":\"SIGTERM\"}\n"
    );
    assert_eq!(
        text(&output(&fake, &["session", "list", "web", "-q"]).stdout).trim(),
        id
    );
    assert_eq!(code(&output(&fake, &["session", "remove", &id])), 0);
    assert!(
        output(&fake, &["session", "list", "web", "-q"])
            .stdout
            .is_empty()
    );
}

#[test]
fn input_of_an_attached_session_goes_on_over_a_broken_connection() {
    let fake = with_vm();
    let id = start(&fake, &["-i", "--", "cat"]);
    fake.cut_after(400_000);
    let mut data = pattern(2_000_000);
    // The detach keys are keys only where somebody types them.
    data[1_000_000..1_000_002].copy_from_slice(b"\x10\x11");
    data.push(0x10);
    let attached = output_with_stdin(&fake, &["session", "attach", &id], &data);
    assert_eq!(code(&attached), 0, "{}", text(&attached.stderr));
    assert!(attached.stdout == data);
}
