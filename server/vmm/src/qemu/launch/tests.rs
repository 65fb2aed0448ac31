use super::*;

fn executable(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("program");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn the_version_is_the_word_after_version() {
    let dir = tempfile::tempdir().unwrap();
    let table = [
        (
            "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2)'",
            "7.2.22",
        ),
        ("echo QEMU emulator version", "unknown"),
        ("exit 1", "unknown"),
        ("head -c 100000 /dev/zero", "unknown"),
        (
            "echo version 0123456789012345678901234567890123456789",
            "01234567890123456789012345678901",
        ),
    ];
    for (script, expected) in table {
        let program = executable(dir.path(), script);
        assert_eq!(version(&program).await.unwrap(), expected, "{script}");
    }
}

#[test]
fn a_path_is_not_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let program = executable(dir.path(), "");
    assert_eq!(find_program(&program).unwrap(), program);
    assert!(find_program(&dir.path().join("absent")).is_err());
    assert!(
        find_program(dir.path()).is_err(),
        "a directory is no program"
    );
    assert!(find_program(Path::new("sh")).unwrap().is_absolute());
}

#[test]
fn a_stale_socket_of_an_earlier_run_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let vm_dir = VmDir::open(dir.path()).unwrap();
    let first = listen(&vm_dir, "a.sock").unwrap();
    drop(first);
    let _second = listen(&vm_dir, "a.sock").unwrap();
    let mode = fs::metadata(dir.path().join("a.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_directory_with_a_very_long_path_has_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("x".repeat(200)).join("y".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let vm_dir = VmDir::open(&deep).unwrap();
    let _listener = listen(&vm_dir, "a.sock").unwrap();
    connect(&vm_dir, "a.sock", "test").await.unwrap();
}
