use super::*;

const NAMES: Names = Names {
    file: "answers.json",
    dir_prefix: "probe-",
};

fn key(kernel: u64) -> Key {
    let file = |inode| FileKey {
        device: 1,
        inode,
        size_bytes: 2,
        modified_ns: -3,
    };
    Key {
        host_boot_id: "boot".into(),
        program: "/usr/bin/qemu".into(),
        version: "7.2".into(),
        kernel: file(kernel),
        initramfs: file(9),
    }
}

#[test]
fn an_answer_is_recalled_for_its_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let trials = Trials::new(dir.path(), NAMES);
    assert_eq!(trials.recall(&key(1)), None);
    trials.remember(&key(1), &Ok(()));
    trials.remember(&key(2), &Err("hangs".into()));
    let later = Trials::new(dir.path(), NAMES);
    assert_eq!(later.recall(&key(1)), Some(Ok(())));
    assert_eq!(later.recall(&key(2)), Some(Err("hangs".into())));
    assert_eq!(later.recall(&key(3)), None);
    assert_eq!(
        later.recall(&Key {
            host_boot_id: "next".into(),
            ..key(1)
        }),
        None
    );
}

#[test]
fn the_newest_answer_counts_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let trials = Trials::new(dir.path(), NAMES);
    trials.remember(&key(0), &Ok(()));
    trials.remember(&key(0), &Err("no".into()));
    assert_eq!(trials.recall(&key(0)), Some(Err("no".into())));
    for kernel in 1..=40 {
        trials.remember(&key(kernel), &Ok(()));
    }
    assert_eq!(trials.load().len(), MAX_REMEMBERED);
    assert_eq!(trials.recall(&key(0)), None);
    assert_eq!(trials.recall(&key(40)), Some(Ok(())));
}

#[test]
fn a_broken_file_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let trials = Trials::new(dir.path(), NAMES);
    for garbage in ["", "{", "[1]", "\0"] {
        fs::write(dir.path().join(NAMES.file), garbage).unwrap();
        assert_eq!(trials.recall(&key(1)), None);
    }
    trials.remember(&key(1), &Ok(()));
    assert_eq!(trials.recall(&key(1)), Some(Ok(())));
}

#[test]
fn a_changed_kernel_is_another_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    fs::write(&path, "one").unwrap();
    let before = FileKey::of(&path).unwrap();
    assert_eq!(before, FileKey::of(&path).unwrap());
    fs::write(&path, "longer").unwrap();
    assert_ne!(before, FileKey::of(&path).unwrap());
}

#[test]
fn last_words_are_one_line_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(last_words(dir.path()), "");
    let mut writer = crate::console::ConsoleWriter::open(dir.path(), 1000).unwrap();
    writer.append(b"\x1b[2Jpanic\r\nhere\n");
    assert_eq!(last_words(dir.path()), "; its last words: [2Jpanic  here");
}

#[test]
fn what_a_try_left_is_swept_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (left, other) = (dir.path().join("probe-abc"), dir.path().join("vms"));
    for path in [&left, &other, &other.join("probe-vm")] {
        fs::create_dir(path).unwrap();
    }
    let name = format!("banger-{}", VmId::new());
    let vmm = |cwd: &Path| {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "read line", "-name", &name])
            .current_dir(cwd);
        command.stdin(std::process::Stdio::piped()).spawn().unwrap()
    };
    let (mut of_try, mut of_vm) = (vmm(&left), vmm(&other.join("probe-vm")));
    Trials::new(dir.path(), NAMES).sweep();
    assert!(!of_try.wait().unwrap().success());
    assert!(of_vm.try_wait().unwrap().is_none());
    assert!(!left.exists() && other.join("probe-vm").exists());
    of_vm.kill().unwrap();
    of_vm.wait().unwrap();
    Trials::new(Path::new("/nonexistent"), NAMES).sweep();
}
