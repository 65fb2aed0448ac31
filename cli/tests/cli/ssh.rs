//! The lines for ssh, and what they have ssh run.

use super::*;

#[test]
fn the_configuration_names_this_program_and_the_daemon() {
    let fake = with_vm();
    let output = banger(&fake, &["ssh-config", "--user", "app", "--start"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let socket = fake.socket().display().to_string();
    let program = env!("CARGO_BIN_EXE_banger");
    let expected = format!(
        "Host *.vm\n    User app\n    \
         ProxyCommand \"{program}\" --host \"{socket}\" ssh-proxy --start %h\n    \
         KnownHostsCommand \"{program}\" --host \"{socket}\" ssh-host-key %H\n    \
         UserKnownHostsFile /dev/null\n    GlobalKnownHostsFile /dev/null\n    \
         StrictHostKeyChecking yes\n    UpdateHostKeys no\n    CheckHostIP no\n"
    );
    assert_eq!(text, expected);
    let words = ["ssh-config", "--identity", "/keys/mine", "--output", "json"];
    let output = banger(&fake, &words).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["host"], "*.vm");
    assert_eq!(json["options"]["User"], "root");
    assert_eq!(json["options"]["IdentityFile"], "\"/keys/mine\"");
}

#[test]
fn a_host_key_is_told_for_the_host_that_was_asked_for() {
    let fake = with_vm();
    for host in ["web.vm", "[web.vm]:2222", "web"] {
        let output = banger(&fake, &["ssh-host-key", host]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("{host} ssh-ed25519 AAAA\n"));
    }
    for host in ["other.vm", "*.vm"] {
        let output = banger(&fake, &["ssh-host-key", host]).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_stopped_vm_is_started_for_ssh_if_that_was_asked_for() {
    let fake = with_vm();
    let state = || {
        let inspected = output(&fake, &["vm", "inspect", "web", "--output", "json"]);
        let json: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
        json["state"].as_str().unwrap().to_owned()
    };
    let running = state();
    output(&fake, &["vm", "stop", "web"]);
    let stopped = state();
    assert_ne!(stopped, running);
    // The fake daemon has no ssh server: what matters is what was done before it was asked for.
    for (words, expected) in [
        (&["ssh-proxy", "web.vm"][..], &stopped),
        (&["ssh-proxy", "--start", "web.vm"], &running),
    ] {
        let proxied = output(&fake, words);
        assert_eq!(code(&proxied), 125, "{proxied:?}");
        assert!(text(&proxied.stderr).contains("there is no socket"));
        assert_eq!(&state(), expected, "{words:?}");
    }
}
