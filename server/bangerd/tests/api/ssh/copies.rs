//! Files: `sftp` and `scp` against the files of the VM.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::rig::{Ssh, complaint, ended, with_input};

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// Runs a batch of `sftp`, which must end well; what it prints.
async fn sftp(ssh: &Ssh, batch: &str) -> String {
    let command = ssh.client("sftp", &["-q", "-b", "-", "web"]);
    let output = with_input(command, batch.as_bytes().to_vec()).await;
    assert!(output.status.success(), "{}", complaint(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The complaint of a batch that must fail.
async fn sftp_fails(ssh: &Ssh, batch: &str) -> String {
    let command = ssh.client("sftp", &["-q", "-b", "-", "web"]);
    let output = with_input(command, batch.as_bytes().to_vec()).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    complaint(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_put_and_got_whole() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let sent = noise(9 << 20);
    fs::write(ssh.path("big"), &sent).unwrap();
    fs::set_permissions(ssh.path("big"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::write(ssh.path("empty"), "").unwrap();
    let batch = "put -p big /data/big\nput empty /data/empty\nget -p /data/big back\nget /data/empty none\n";
    sftp(&ssh, batch).await;
    let there = fs::metadata(ssh.guest("/data/big")).unwrap();
    assert_eq!(there.mode() & 0o7777, 0o751);
    assert_eq!(
        there.mtime(),
        fs::metadata(ssh.path("big")).unwrap().mtime()
    );
    assert!(fs::read(ssh.guest("/data/big")).unwrap() == sent);
    assert!(fs::read(ssh.path("back")).unwrap() == sent);
    assert_eq!(fs::read(ssh.path("none")).unwrap(), b"");
    // Shorter than what is there: nothing of it stays.
    fs::write(ssh.path("small"), "small").unwrap();
    sftp(&ssh, "put small /data/big\n").await;
    assert_eq!(fs::read(ssh.guest("/data/big")).unwrap(), b"small");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_changed_linked_and_removed() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    fs::write(ssh.guest("/data/a"), "a").unwrap();
    fs::write(ssh.guest("/data/b"), "b").unwrap();
    let batch = "cd /data\nmkdir dir\nrename a dir/c\nrename b dir/c\nsymlink dir/c link\nchmod 600 dir/c\nls -l dir\npwd\n";
    let said = sftp(&ssh, batch).await;
    assert!(said.contains("-rw-------"), "{said}");
    assert!(said.contains("Remote working directory: /data"), "{said}");
    assert_eq!(fs::read(ssh.guest("/data/dir/c")).unwrap(), b"b");
    assert_eq!(
        fs::read_link(ssh.guest("/data/link")).unwrap().to_str(),
        Some("dir/c")
    );
    assert_eq!(sftp_fails(&ssh, "rm /data/dir\n").await.lines().count(), 1);
    let refused = sftp_fails(&ssh, "rmdir /data/dir\n").await;
    assert!(refused.contains("Failure"), "{refused}");
    sftp(&ssh, "rm /data/dir/c\nrm /data/link\nrmdir /data/dir\n").await;
    assert_eq!(fs::read_dir(ssh.guest("/data")).unwrap().count(), 0);
    let missing = sftp_fails(&ssh, "get /data/none\n").await;
    assert!(missing.contains("not found"), "{missing}");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_go_up_go_by_their_text() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    fs::create_dir_all(ssh.guest("/data/a/b")).unwrap();
    fs::write(ssh.path("file"), "up").unwrap();
    sftp(&ssh, "put file /data/a/b/../c\nget /data/a/../a/c back\n").await;
    assert_eq!(fs::read(ssh.guest("/data/a/c")).unwrap(), b"up");
    assert_eq!(fs::read(ssh.path("back")).unwrap(), b"up");
    ssh.stopped().await;
}

/// A packet of SFTP.
fn packet(kind: u8, id: u32, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let length = u32::try_from(5 + rest.len()).unwrap();
    [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes(), &rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_follows_its_name() {
    const HANDLE: [u8; 8] = [0, 0, 0, 4, 0, 0, 0, 0];
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let string = |text: &[u8]| {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&length[..], text].concat()
    };
    let (from, to) = (string(b"/data/from"), string(b"/data/to"));
    let write = |id, offset: u64, data: &[u8]| {
        packet(6, id, &[&HANDLE, &offset.to_be_bytes(), &string(data)])
    };
    let said = [
        packet(1, 3, &[]),
        packet(3, 1, &[&from, &10_u32.to_be_bytes(), &[0; 4]]),
        write(2, 0, b"0123456789"),
        packet(18, 3, &[&from, &to]),
        // Not in order: it is begun anew.
        write(4, 5, b"five"),
        packet(4, 5, &[&HANDLE]),
    ];
    ssh.ssh_with(&["-s", "web", "sftp"], said.concat()).await;
    assert_eq!(fs::read(ssh.guest("/data/to")).unwrap(), b"01234five9");
    assert!(!ssh.guest("/data/from").exists());
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_any_more_stays_as_it_is() {
    const OPEN: u8 = 3;
    const READ: u32 = 1;
    const WRITE_CREATE_TRUNCATE: u32 = 2 + 8 + 16;
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    fs::write(ssh.guest("/data/file"), "kept").unwrap();
    let open = |id: u32, flags: u32| {
        let path: &[u8] = b"/data/file";
        let length = u32::try_from(path.len()).unwrap().to_be_bytes();
        packet(OPEN, id, &[&length, path, &flags.to_be_bytes(), &[0; 4]])
    };
    let mut said = packet(1, 3, &[]);
    for id in 0..64 {
        said.extend(open(id, READ));
    }
    said.extend(open(64, WRITE_CREATE_TRUNCATE));
    let output = ssh.ssh_with(&["-s", "web", "sftp"], said).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("64 files are open already"), "{text}");
    assert_eq!(fs::read(ssh.guest("/data/file")).unwrap(), b"kept");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_is_listed_whole() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    for number in 0..3000 {
        fs::write(ssh.guest(&format!("/data/file-{number:04}")), "").unwrap();
    }
    let said = sftp(&ssh, "ls -1 /data\n").await;
    let names: Vec<&str> = said.lines().filter(|line| line.contains("file-")).collect();
    assert_eq!(names.len(), 3000);
    assert!(names[2999].ends_with("file-2999"), "{}", names[2999]);
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_users_who_logs_in() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    fs::create_dir(ssh.guest("/data/theirs")).unwrap();
    std::os::unix::fs::chown(ssh.guest("/data/theirs"), Some(12345), Some(12345)).unwrap();
    fs::write(ssh.path("file"), "x").unwrap();
    let as_app = |words: &[&str]| {
        let mut command = ssh.client("sftp", &["-q", "-b", "-", "-o", "User=app"]);
        command.args(words);
        command
    };
    let output = with_input(as_app(&["web"]), b"put file /data/theirs/file\n".to_vec()).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        fs::metadata(ssh.guest("/data/theirs/file")).unwrap().uid(),
        12345
    );
    let output = with_input(as_app(&["web"]), b"put file /data/file\n".to_vec()).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint(&output).contains("ermission denied"),
        "{output:?}"
    );
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_trees_by_sftp_and_by_the_images_own_scp() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    fs::create_dir_all(ssh.path("tree/deep")).unwrap();
    let sent = noise(300_000);
    fs::write(ssh.path("tree/deep/file"), &sent).unwrap();
    let copy = async |words: &[&str]| {
        let output = ended(ssh.client("scp", words)).await;
        assert!(output.status.success(), "{}", complaint(&output));
    };
    copy(&["-q", "-r", "-p", "tree", "web:/data/tree"]).await;
    assert!(fs::read(ssh.guest("/data/tree/deep/file")).unwrap() == sent);
    copy(&["-q", "-r", "web:/data/tree", "back"]).await;
    assert!(fs::read(ssh.path("back/deep/file")).unwrap() == sent);
    // The old way runs scp in the VM, whose processes are this host's here.
    let there = ssh.path("old").display().to_string();
    copy(&["-q", "-O", "-r", "tree", &format!("web:{there}")]).await;
    assert!(fs::read(ssh.path("old/deep/file")).unwrap() == sent);
    copy(&["-q", "-O", &format!("web:{there}/deep/file"), "single"]).await;
    assert!(fs::read(ssh.path("single")).unwrap() == sent);
    ssh.stopped().await;
}
