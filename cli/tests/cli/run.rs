//! `banger run` and `banger vm exec`: exit codes, streams, clean-up.

use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use super::fake::Fake;
use super::fake::running::pattern;
use super::*;

#[test]
fn run_prints_what_the_command_prints_and_leaves_nothing() {
    let fake = Fake::start();
    let run = output(&fake, &["run", "debian", "--", "both"]);
    assert_eq!((text(&run.stdout), code(&run)), ("out\n", 0));
    assert!(text(&run.stderr).ends_with("err\n"));
    assert_eq!(fake.state.called("DeleteVm"), 1);
    assert!(fake.state.vms.lock().unwrap().is_empty());
}

#[test]
fn run_ends_with_the_commands_own_code() {
    let fake = Fake::start();
    for (command, expected) in [
        (&["exit", "0"][..], 0),
        (&["exit", "3"], 3),
        (&["exit", "255"], 255),
        (&["die", "15"], 143),
        (&["oom"], 137),
        (&["deadline"], 124),
        (&["vm-gone"], 125),
        (&["missing"], 127),
        (&["plain"], 126),
    ] {
        let run = output(&fake, &[&["run", "debian", "--"], command].concat());
        assert_eq!(code(&run), expected, "{command:?}: {}", text(&run.stderr));
    }
    assert!(
        fake.state.vms.lock().unwrap().is_empty(),
        "every VM is removed, however it ended"
    );
}

#[test]
fn run_keeps_the_vm_when_asked_to() {
    let fake = Fake::start();
    let run = output(
        &fake,
        &[
            "run", "--keep", "--name", "dev", "-m", "2G", "debian", "--", "echo", "hi",
        ],
    );
    assert_eq!(text(&run.stdout), "hi\n");
    let vms = fake.state.vms.lock().unwrap();
    let spec = vms.values().next().unwrap().spec.clone().unwrap();
    assert_eq!(
        (spec.name.as_str(), spec.memory_mib, spec.ephemeral),
        ("dev", 2048, false)
    );
}

#[test]
fn run_without_a_command_runs_the_images_else_a_shell() {
    let fake = Fake::start();
    assert_eq!(
        text(&output(&fake, &["run", "debian"]).stdout),
        "the image's command\n"
    );
    assert_eq!(text(&output(&fake, &["run", "bare"]).stdout), "a shell\n");
}

#[test]
fn pull_says_when_the_image_is_pulled() {
    let fake = Fake::start();
    assert_eq!(
        code(&output(&fake, &["run", "unpulled", "--", "exit", "0"])),
        0
    );
    let never = output(
        &fake,
        &["run", "--pull", "never", "unpulled", "--", "exit", "0"],
    );
    assert_eq!(code(&never), 125);
    assert!(text(&never.stderr).contains("error: there is no image `unpulled`\nremedy: Pull it"));
    assert_eq!(
        code(&output(
            &fake,
            &["run", "--pull", "always", "debian", "--", "exit", "0"]
        )),
        0
    );
    let calls = fake.state.calls.lock().unwrap();
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.starts_with("PullImage debian"))
            .count(),
        1
    );
}

#[test]
fn a_kernel_that_came_for_an_image_goes_when_the_image_does_not_come() {
    let fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vmlinux");
    std::fs::write(&file, "a kernel").unwrap();
    let file = file.to_str().unwrap();
    for _ in 0..2 {
        let refused = output(&fake, &["image", "pull", "private", "--kernel-file", file]);
        assert_eq!(code(&refused), 125);
        let told = text(&refused.stderr);
        assert!(told.contains("the registry wants credentials"), "{told}");
        let kernels = output(&fake, &["kernel", "list", "-q"]);
        assert_eq!(text(&kernels.stdout), "");
    }
    let pulled = output(&fake, &["image", "pull", "debian", "--kernel-file", file]);
    assert_eq!(code(&pulled), 0);
    let kernels = output(&fake, &["kernel", "list", "-q"]);
    assert_eq!(text(&kernels.stdout), "6-1-0\n");
}

#[test]
fn an_image_is_imported_for_a_kernel() {
    let fake = Fake::start();
    let arguments = ["image", "import", "-", "web:1", "--kernel", "small"];
    assert_eq!(
        code(&output_with_stdin(&fake, &arguments, b"an archive")),
        0
    );
    let calls = fake.state.calls.lock().unwrap();
    let call = calls.iter().find(|call| call.starts_with("RegisterImage"));
    assert_eq!(call.unwrap(), "RegisterImage web:1 0 small");
}

#[test]
fn options_reach_the_process() {
    let fake = with_vm();
    let run = output(
        &fake,
        &[
            "vm", "exec", "-e", "A=b=c", "-w", "/tmp", "-u", "nobody", "web", "--", "env",
        ],
    );
    assert_eq!(text(&run.stdout), "A=b=c\nuser=nobody dir=/tmp\n");
}

#[test]
fn ten_megabytes_of_any_bytes_come_out_as_they_are() {
    let fake = with_vm();
    let run = output(&fake, &["vm", "exec", "web", "--", "bytes", "10000000"]);
    assert_eq!(code(&run), 0, "{}", text(&run.stderr));
    assert!(run.stdout == pattern(10_000_000));
}

#[test]
fn ten_megabytes_of_any_bytes_go_in_and_come_back() {
    let fake = with_vm();
    let data = pattern(10_000_000);
    let run = output_with_stdin(&fake, &["vm", "exec", "web", "--", "cat"], &data);
    assert_eq!(code(&run), 0, "{}", text(&run.stderr));
    assert!(run.stdout == data);
    let run = output_with_stdin(&fake, &["vm", "exec", "-n", "web", "--", "cat"], b"unread");
    assert_eq!((code(&run), run.stdout.len()), (0, 0));
}

#[test]
fn output_that_nobody_reads_any_more_ends_quietly_and_cleans_up() {
    let fake = Fake::start();
    let mut command = banger(&fake, &["run", "debian", "--", "bytes", "10000000"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    drop(stdout);
    let run = child.wait_with_output().unwrap();
    assert_eq!(code(&run), 141);
    assert!(
        !text(&run.stderr).contains("error"),
        "{}",
        text(&run.stderr)
    );
    assert!(fake.state.vms.lock().unwrap().is_empty());
}

#[test]
fn a_broken_connection_loses_and_repeats_nothing() {
    let fake = with_vm();
    fake.state.keep_exec.store(true, Ordering::Relaxed);
    fake.cut_after(3_000_000);
    let run = output(&fake, &["vm", "exec", "web", "--", "bytes", "10000000"]);
    assert_eq!(code(&run), 0, "{}", text(&run.stderr));
    assert!(run.stdout == pattern(10_000_000));
    assert!(fake.state.called("AttachSession") > 0);
}

#[test]
fn no_daemon_is_an_error_with_a_remedy() {
    let fake = Fake::start();
    let arguments = ["--host", "/does/not/exist.sock", "run", "debian"];
    let run = output(&fake, &arguments);
    assert_eq!(code(&run), 125);
    let expected = "error: could not connect to bangerd at `/does/not/exist.sock`\n\
        cause: No such file or directory (os error 2)\nremedy: Start bangerd";
    assert!(
        text(&run.stderr).starts_with(expected),
        "{}",
        text(&run.stderr)
    );
    let run = output(&fake, &[&arguments[..], &["--output", "json"]].concat());
    let error: serde_json::Value = serde_json::from_slice(&run.stderr).unwrap();
    assert_eq!(error["code"], "UNAVAILABLE");
    assert_eq!(error["reason"], "DAEMON_UNREACHABLE");
    assert_eq!(error["metadata"]["path"], "/does/not/exist.sock");
    assert_eq!(error["code_ran"], "no");
    let run = output(&fake, &["--host", "tcp://h:1", "vm", "list"]);
    assert!(
        text(&run.stderr).contains("on another host"),
        "{}",
        text(&run.stderr)
    );
}

#[test]
fn wrong_use_is_125_so_that_it_is_no_commands_code() {
    let fake = Fake::start();
    for arguments in [
        &["run"][..],
        &["frob"],
        &["run", "debian", "ls"],
        &["run", "-m", "lots", "x"],
    ] {
        assert_eq!(code(&output(&fake, arguments)), 125, "{arguments:?}");
    }
}
