//! Credential helpers: programs that answer, complain, babble and hang.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// A helper whose program is named by its path's last part, which PATH must find.
fn helper(directory: &Path, name: &str, script: &str) {
    let path = write(
        directory,
        &format!("docker-credential-{name}"),
        &format!("#!/bin/sh\n{script}\n"),
    );
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// All about helpers in one test: PATH belongs to the whole process.
#[test]
fn helpers_are_asked_with_a_deadline_and_without_a_shell() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let path = format!("{}:{}", at.display(), std::env::var("PATH").unwrap());
    // SAFETY: this is the only test of its process.
    unsafe { std::env::set_var("PATH", path) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(helpers(at));
}

async fn helpers(at: &Path) {
    helper(
        at,
        "good",
        r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"for $server $1\",\"Secret\":\"s\"}""#,
    );
    helper(
        at,
        "token",
        r#"echo '{"Username":"<token>","Secret":"refresh"}'"#,
    );
    helper(
        at,
        "knows-nothing",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    helper(at, "broken", "echo 'the key ring is locked'; exit 1");
    helper(at, "babbles", "yes hunter2");
    helper(at, "odd", "echo hunter2");
    helper(at, "hangs", "sleep 300 & echo $! > \"$0.child\"; sleep 300");
    let file = |text: &str| AuthFiles::only(write(at, "config.json", text));
    let ask =
        async |text: &str, registry: &str| file(text).login(&Place::new(registry, "a/b")).await;

    let stored = r#"{"credsStore":"good","auths":{"r.example":{}}}"#;
    let found = ask(stored, "r.example").await.unwrap();
    assert_eq!(found, password("for r.example get", "s"));
    let found = ask(stored, "docker.io").await.unwrap();
    assert_eq!(found, password("for https://index.docker.io/v1/ get", "s"));
    let own = r#"{"credsStore":"broken","credHelpers":{"r.example":"token"}}"#;
    let found = ask(own, "r.example").await.unwrap();
    assert_eq!(found, Some(Login::IdentityToken("refresh".into())));
    let fallback = r#"{"credsStore":"knows-nothing","auths":{"r.example":{"auth":"YTox"}}}"#;
    assert_eq!(
        ask(fallback, "r.example").await.unwrap(),
        password("a", "1")
    );

    let error = ask(r#"{"credsStore":"broken"}"#, "r").await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("failed: the key ring is locked"),
        "{error}"
    );
    let error = ask(r#"{"credsStore":"not-installed"}"#, "r")
        .await
        .unwrap_err();
    assert!(matches!(error, AuthError::HelperStart { .. }), "{error}");
    for name in ["babbles", "odd"] {
        let error = ask(&format!(r#"{{"credsStore":"{name}"}}"#), "r")
            .await
            .unwrap_err();
        assert!(matches!(error, AuthError::HelperAnswer { .. }), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    // A name is never more than a part of a program's name.
    for name in ["../good", "good; touch x", "/bin/sh", "a b"] {
        let error = ask(&format!(r#"{{"credsStore":"{name}"}}"#), "r")
            .await
            .unwrap_err();
        assert!(matches!(error, AuthError::BadHelper { .. }), "{error}");
    }

    let begin = Instant::now();
    let hanging = file(r#"{"credsStore":"hangs"}"#).helper_deadline(Duration::from_millis(500));
    let error = hanging.login(&Place::new("r", "x")).await.unwrap_err();
    assert!(matches!(error, AuthError::HelperDeadline { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    let child = fs::read_to_string(at.join("docker-credential-hangs.child")).unwrap();
    let process = PathBuf::from("/proc").join(child.trim()).join("stat");
    // It is gone, or a zombie that its new parent has not looked at yet.
    let gone = || fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "));
    let until = Instant::now() + Duration::from_secs(5);
    while !gone() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(gone(), "what the helper started is gone too");
}
