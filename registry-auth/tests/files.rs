//! Files as tools write them, and as they should not be.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use banger_registry_auth::{AuthError, AuthFiles, Login, Place};

fn password(username: &str, password: &str) -> Option<Login> {
    Some(Login::Password {
        username: username.into(),
        password: password.into(),
    })
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

async fn ask(files: &AuthFiles, registry: &str, repository: &str) -> Option<Login> {
    files
        .login(&Place::new(registry, repository))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_nearest_entry_wins_and_others_are_not_told() {
    let directory = tempfile::tempdir().unwrap();
    // me:whole, me:part, me:exact
    let file = write(
        directory.path(),
        "auth.json",
        r#"{"auths":{
            "reg.example:5000":{"auth":"bWU6d2hvbGU="},
            "reg.example:5000/team":{"auth":"bWU6cGFydA=="},
            "reg.example:5000/team/app":{"auth":"bWU6ZXhhY3Q="},
            "https://index.docker.io/v1/":{"username":"hub","password":"pw"},
            "tok.example":{"auth":"bWU6d2hvbGU=","identitytoken":"refresh"},
            "empty.example":{}
        }}"#,
    );
    let files = AuthFiles::of(vec![file]);
    for (registry, repository, expected) in [
        ("reg.example:5000", "team/app", password("me", "exact")),
        ("reg.example:5000", "team/app/more", password("me", "exact")),
        ("reg.example:5000", "team/other", password("me", "part")),
        ("reg.example:5000", "teams", password("me", "whole")),
        ("reg.example", "team/app", None),
        ("docker.io", "library/debian", password("hub", "pw")),
        (
            "tok.example",
            "x",
            Some(Login::IdentityToken("refresh".into())),
        ),
        ("empty.example", "x", None),
    ] {
        assert_eq!(
            ask(&files, registry, repository).await,
            expected,
            "{registry}/{repository}"
        );
    }
}

#[tokio::test]
async fn the_first_file_that_knows_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let none = write(directory.path(), "none.json", "{}");
    let one = write(
        directory.path(),
        "1",
        r#"{"auths":{"r.example":{"auth":"YTox"}}}"#,
    );
    let two = write(
        directory.path(),
        "2",
        r#"{"auths":{"r.example":{"auth":"Yjoy"}}}"#,
    );
    let files = AuthFiles::of(vec![directory.path().join("missing"), none, one, two]);
    assert_eq!(ask(&files, "r.example", "x").await, password("a", "1"));
    let only = AuthFiles::only(directory.path().join("missing"));
    let error = only.login(&Place::new("r", "x")).await.unwrap_err();
    assert!(matches!(error, AuthError::Read { .. }), "{error}");
}

#[test]
fn a_users_files_are_where_podman_and_docker_keep_them() {
    let set = |pairs: &'static [(&str, &str)]| {
        AuthFiles::of_user(move |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    };
    let of = |paths: &[&str]| AuthFiles::of(paths.iter().map(PathBuf::from).collect());
    assert_eq!(
        set(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/u")]),
        of(&[
            "/run/u/containers/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json"
        ])
    );
    assert_eq!(
        set(&[
            ("HOME", "/h"),
            ("DOCKER_CONFIG", "/d"),
            ("XDG_CONFIG_HOME", "/c")
        ]),
        of(&["/c/containers/auth.json", "/d/config.json"])
    );
    assert_eq!(
        set(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/r")]),
        AuthFiles::only("/r".into())
    );
}

#[tokio::test]
async fn a_damaged_file_is_named_and_nothing_of_it_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    for text in [
        r#"{"auths":{"r":{"auth":"hunter2 is no base64"}}}"#,
        r#"{"auths":"hunter2"}"#,
        r#"{"auths":{"r":{"auth":"aHVudGVyMg=="}}}"#, // no colon
        r#"{"auths":{"r":{"auth":["hunter2"]}}}"#,
        "hunter2",
        r#"{"credsStore":"../hunter2"}"#,
    ] {
        let file = write(directory.path(), "bad.json", text);
        let error = AuthFiles::only(file.clone())
            .login(&Place::new("r", "x"))
            .await
            .unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains("bad.json"), "{told}");
        assert!(
            !told.contains("hunter2") && !told.contains("aHVudGVyMg"),
            "{told}"
        );
        assert!(!error.remedy().is_empty());
    }
    let long = write(directory.path(), "long.json", &" ".repeat((1 << 20) + 1));
    let error = AuthFiles::only(long)
        .login(&Place::new("r", "x"))
        .await
        .unwrap_err();
    assert!(matches!(error, AuthError::TooLarge { .. }), "{error}");
    let error = AuthFiles::only("/dev/zero".into())
        .login(&Place::new("r", "x"))
        .await;
    assert!(matches!(error.unwrap_err(), AuthError::Read { .. }));
}
