use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use banger_proto::guest::v1::{IdentityFile, SetIdentityRequest};
use rustix::process::{getgid, getuid};

use super::*;

/// A root whose user `me` is whoever runs the test.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let passwd = format!(
        "me:x:{}:{}::/home/me:/bin/sh\n",
        getuid().as_raw(),
        getgid().as_raw()
    );
    fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    root
}

fn request(files: &[(&str, u32, &str)]) -> SetIdentityRequest {
    let file = |(path, mode, content): &(&str, u32, &str)| IdentityFile {
        path: (*path).into(),
        mode: *mode,
        content: content.to_string().into(),
    };
    SetIdentityRequest {
        user: "me".into(),
        files: files.iter().map(file).collect(),
        ..SetIdentityRequest::default()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_appear_with_their_modes_in_a_home_that_is_made() {
    let root = root();
    let home = root.path().join("home/me");
    set(
        root.path(),
        &request(&[("~/.config/tool/token", 0o600, "one")]),
    )
    .unwrap();
    let token = home.join(".config/tool/token");
    assert_eq!(fs::read_to_string(&token).unwrap(), "one");
    assert_eq!((mode(&token), mode(&home.join(".config"))), (0o600, 0o700));
    set(
        root.path(),
        &request(&[("~/.config/tool/token", 0o640, "two")]),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(&token).unwrap(), "two");
    assert_eq!(mode(&token), 0o640);
    assert_eq!(fs::read_dir(token.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn keys_and_git_names_are_set_once() {
    let root = root();
    let request = SetIdentityRequest {
        user: "me".into(),
        git_name: "Ann".into(),
        authorized_keys: vec!["ssh-ed25519 AAAA".into()],
        ..SetIdentityRequest::default()
    };
    let ssh = root.path().join("home/me/.ssh");
    fs::create_dir_all(&ssh).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o777)).unwrap();
    set(root.path(), &request).unwrap();
    set(root.path(), &request).unwrap();
    let keys = ssh.join("authorized_keys");
    assert_eq!(fs::read_to_string(&keys).unwrap(), "ssh-ed25519 AAAA\n");
    assert_eq!((mode(&keys), mode(&ssh)), (0o600, 0o755));
    let config = root.path().join("etc/gitconfig");
    assert_eq!(
        fs::read_to_string(config).unwrap(),
        "[user]\n\tname = \"Ann\"\n"
    );
}

#[test]
fn paths_that_lead_upwards_and_users_that_are_unknown_are_refused() {
    let root = root();
    for path in ["~/../x", "/a/../b", "a", "~x/y", ""] {
        assert!(
            set(root.path(), &request(&[(path, 0o600, "x")])).is_err(),
            "{path}"
        );
    }
    let nobody = SetIdentityRequest {
        user: "nobody".into(),
        ..request(&[("~/x", 0o600, "x")])
    };
    let refusal = set(root.path(), &nobody).unwrap_err();
    assert_eq!(refusal.reason(), "USER_NOT_FOUND");
}

/// Needs root, to be somebody else.
#[test]
fn a_users_links_lead_nowhere_that_the_user_could_not_go() {
    if !getuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let root = root();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        root.path().join("etc/passwd"),
        "me:x:4242:4242::/home/me:/bin/sh\n",
    )
    .unwrap();
    set(root.path(), &request(&[("~/mine", 0o600, "x")])).unwrap();
    let mine = fs::metadata(root.path().join("home/me/mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (4242, 4242));
    symlink(root.path().join("etc"), root.path().join("home/me/link")).unwrap();
    let refusal = set(root.path(), &request(&[("~/link/shadow", 0o600, "x")])).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "`/home/me/link/shadow`: writing: Permission denied"
    );
    assert!(!root.path().join("etc/shadow").exists());
    // The thread has its own rights again.
    set(root.path(), &request(&[("/etc/tool/token", 0o600, "x")])).unwrap();
    let token = fs::metadata(root.path().join("etc/tool/token")).unwrap();
    assert_eq!(token.uid(), 4242);
}
