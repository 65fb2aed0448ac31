use std::io::Read as _;
use std::process::{Command, Stdio};

use super::*;

fn sleeper() -> std::process::Child {
    Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_program_name_with_parentheses_does_not_shift_the_fields() {
    let fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
    let stat = format!("7 (a) b (c)) {}", fields.join(" "));
    assert_eq!(start_ticks(&stat), Some(22));
}

#[test]
fn a_cut_stat_line_has_no_start_time() {
    assert_eq!(start_ticks("7 (a) S 1 2"), None);
    assert_eq!(start_ticks(""), None);
}

#[test]
fn a_replaced_executable_is_still_the_same() {
    assert_eq!(
        without_deleted_mark("/usr/bin/q (deleted)".into()),
        PathBuf::from("/usr/bin/q")
    );
    assert_eq!(
        without_deleted_mark("/usr/bin/q".into()),
        PathBuf::from("/usr/bin/q")
    );
}

#[test]
fn only_a_name_of_ours_marks_a_process_as_ours() {
    let id = VmId::new();
    let line = |name: &str| format!("qemu\0-S\0-name\0{name}\0-m\x00256").into_bytes();
    assert_eq!(named_vm(&line(&format!("banger-{id}"))), Some(id));
    assert_eq!(named_vm(&line("banger-")), None);
    assert_eq!(named_vm(&line("other")), None);
    assert_eq!(named_vm(b"qemu\0-name"), None);
    assert_eq!(named_vm(b"vi\0banger-name"), None);
}

#[tokio::test]
async fn a_recycled_pid_is_not_adopted() {
    let mut child = sleeper();
    let real = identify(child.id()).unwrap();
    let mut other_start = real.clone();
    other_start.start_ticks += 1;
    let mut other_program = real.clone();
    other_program.executable = "/usr/bin/qemu-system-x86_64".into();
    let mut other_boot = real.clone();
    other_boot.host_boot_id = "another".into();
    for identity in [&other_start, &other_program, &other_boot] {
        assert!(Process::find(identity).unwrap().is_none(), "{identity:?}");
        assert!(!kill_exactly(identity).unwrap());
    }
    assert!(
        child.try_wait().unwrap().is_none(),
        "nothing may have signalled it"
    );
    assert!(kill_exactly(&real).unwrap());
    child.wait().unwrap();
    assert!(Process::find(&real).unwrap().is_none());
}

#[tokio::test]
async fn pids_that_cannot_be_are_gone() {
    let mut identity = identify(std::process::id()).unwrap();
    for pid in [0, u32::MAX, i32::MAX as u32] {
        identity.pid = pid;
        assert!(Process::find(&identity).unwrap().is_none());
    }
}

#[tokio::test]
#[expect(
    clippy::zombie_processes,
    reason = "that it is reaped otherwise is what the test shows"
)]
async fn the_end_of_a_child_is_told_and_the_child_reaped() {
    let child = sleeper();
    let process = Process::of_child(child.id()).unwrap();
    assert!(process.signal(Signal::TERM).unwrap());
    assert_eq!(process.ended().await.unwrap(), Ending::Signal(15));
    assert_eq!(
        process.ended().await.unwrap(),
        Ending::Unknown,
        "a second waiter does not hang"
    );
    assert!(!process.signal(Signal::TERM).unwrap());
    assert!(
        !Path::new(&format!("/proc/{}", child.id())).exists(),
        "no zombie"
    );
}

#[test]
fn a_process_elsewhere_is_no_stray() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(find_strays(dir.path()).unwrap(), []);
    assert!(find_strays(&dir.path().join("absent")).is_err());
}

#[tokio::test]
async fn a_vmm_that_no_journal_knows_is_found_by_its_name_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let id = VmId::new();
    // A shell that keeps our words as its arguments stands in for the VMM.
    let mut child = Command::new("sh")
        .args(["-c", "echo; read line", "-name", &format!("banger-{id}")])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Between the start of a program and its first instruction, /proc tells no command line.
    let mut said = [0];
    child.stdout.take().unwrap().read_exact(&mut said).unwrap();
    let strays = find_strays(dir.path()).unwrap();
    assert_eq!(strays.len(), 1);
    assert_eq!((strays[0].vm, strays[0].identity.pid), (id, child.id()));
    assert!(kill_exactly(&strays[0].identity).unwrap());
    child.wait().unwrap();
}
