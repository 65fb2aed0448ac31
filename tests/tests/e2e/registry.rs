//! Logging in to registries: a real registry, Docker's and Podman's files, and where no password may be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use banger_e2e::image::TestImage;
use banger_e2e::registry::Registry;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::{self, has, is_nowhere_in};
use crate::suite::{Suite, refused};

const USER: &str = "marked";
/// Found nowhere by chance.
const PASSWORD: &str = "marker-9d41c07e5b";
/// The user with the password, as `htpasswd -B` writes it.
const LINE: &str = "marked:$2b$05$abcdefghijklmnopqrstuu0LPPzVwlNglTj8IrrmZscrlZiu7LJWe";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "credentials_of_a_request_are_stored_and_logged_nowhere",
            lane: Lane::Own,
            test: nowhere,
        },
        Case {
            name: "a_build_pulls_with_its_callers_logins_and_keeps_them_nowhere",
            lane: Lane::Own,
            test: build,
        },
        Case {
            name: "the_daemon_logs_in_by_its_own_files",
            lane: Lane::Own,
            test: own_files,
        },
    ]
}

/// A registry that wants a login, with the test image in it.
fn registry(suite: &Suite, name: &str) -> (Registry, String) {
    let registry = Registry::with_login(&suite.scratch, name, LINE);
    let reference = registry.reference("private/box:1");
    suite
        .scratch
        .run("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .args(["--dest-tls-verify=false", "--dest-creds"])
        .arg(format!("{USER}:{PASSWORD}"))
        .arg(layout(suite.image()))
        .arg(format!("docker://{reference}"))
        .ok();
    (registry, reference)
}

fn layout(image: &TestImage) -> String {
    format!("oci:{}:{}", image.layout.display(), image.tag)
}

fn auths(key: &str) -> String {
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#)
}

fn nowhere(suite: &Suite) -> Verdict {
    let (registry, reference) = registry(suite, "login");
    let options = DaemonOptions {
        config: "log_level = \"trace\"".into(),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&suite.scratch, &suite.binaries, "nowhere", options);
    let work = suite.scratch.dir("logins");
    let pull =
        |more: &[&str]| daemon.banger([&["image", "pull", reference.as_str()], more].concat());
    let remove = || drop(daemon.banger(["image", "remove", &reference]).ok());

    let error = refused(pull(&["--no-auth-file"]), 125, "REGISTRY_UNAUTHORIZED");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("without credentials"),
        "{error}"
    );
    let by_hand = ["--username", USER, "--password-stdin"];
    let error = refused(
        pull(&by_hand).stdin("wrong\n"),
        125,
        "REGISTRY_UNAUTHORIZED",
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("with these credentials"),
        "{error}"
    );
    pull(&by_hand).stdin(format!("{PASSWORD}\n")).ok();
    remove();

    let file = work.join("auth.json");
    fs::write(&file, auths(&format!("{}/private", registry.address))).unwrap();
    pull(&["--auth-file", file.to_str().unwrap()]).ok();
    remove();
    pull(&[]).env("REGISTRY_AUTH_FILE", &file).ok();
    remove();
    fs::write(work.join("config.json"), auths(&registry.address)).unwrap();
    pull(&[]).env("DOCKER_CONFIG", &work).ok();
    remove();
    refused(
        pull(&["--no-auth-file"]).env("DOCKER_CONFIG", &work),
        125,
        "REGISTRY_UNAUTHORIZED",
    );
    let helper = work.join("docker-credential-test");
    let answer = format!(r#"{{"ServerURL":"","Username":"{USER}","Secret":"{PASSWORD}"}}"#);
    fs::write(&helper, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(work.join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let path = format!("{}:{}", work.display(), std::env::var("PATH").unwrap());
    pull(&[]).env("DOCKER_CONFIG", &work).env("PATH", path).ok();
    refused(
        pull(&["--auth-file", "/nowhere/auth.json"]),
        125,
        "REGISTRY_CREDENTIALS_UNREADABLE",
    );

    kept_nowhere(&daemon, &reference);
    daemon.clear();
    fs::remove_dir_all(work).unwrap();
    Verdict::Passed
}

/// Looks for the password where a daemon that logs everything keeps things.
fn kept_nowhere(daemon: &Daemon, target: &str) {
    let operations = daemon
        .banger(["operation", "list", "--output", "json"])
        .ok()
        .out();
    assert!(
        operations.contains(target),
        "the work is there: {operations}"
    );
    let log = fs::read(daemon.log_path()).unwrap();
    assert!(has(&log, b"TRACE"), "everything is logged");
    for secret in secrets() {
        assert!(!has(operations.as_bytes(), &secret), "in the operations");
        assert!(!has(&log, &secret), "in the log");
        let looked_at = is_nowhere_in(&daemon.state, &secret, "");
        assert!(
            looked_at > 3,
            "the database, its log, blobs: {looked_at} files"
        );
    }
}

/// The password, and every form that base64 gives it.
fn secrets() -> Vec<Vec<u8>> {
    let whole = STANDARD.encode(format!("{USER}:{PASSWORD}")).into_bytes();
    let mut secrets = secret::forms(PASSWORD);
    secrets.push(whole);
    secrets
}

fn build(suite: &Suite) -> Verdict {
    let (registry, reference) = registry(suite, "build-login");
    let options = DaemonOptions {
        config: "log_level = \"trace\"".into(),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&suite.scratch, &suite.binaries, "build-nowhere", options);
    let work = suite.scratch.dir("build-logins");
    let context = suite.scratch.dir("build-logins-context");
    let (_, repository) = reference.split_once('/').unwrap();
    // No step needs a VM. The registry's name comes by a variable.
    let text = format!("ARG REGISTRY\nFROM scratch\nFROM $REGISTRY/{repository}\nENV A=b\n");
    fs::write(context.join("Dockerfile"), text).unwrap();
    let build = |more: &[&str]| {
        daemon
            .banger(["image", "build", "-t", "private:1"])
            .args(["--build-arg", &format!("REGISTRY={}", registry.address)])
            .args(more.iter().copied())
            .arg(&context)
    };
    let error = refused(build(&["--no-auth-file"]), 125, "REGISTRY_UNAUTHORIZED");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("without credentials"), "{error}");
    // A login for another repository is no login for this one.
    let file = work.join("auth.json");
    let by_file = ["--auth-file", file.to_str().unwrap()];
    fs::write(&file, auths(&format!("{}/other", registry.address))).unwrap();
    refused(build(&by_file), 125, "REGISTRY_UNAUTHORIZED");
    fs::write(&file, auths(&format!("{}/private", registry.address))).unwrap();
    build(&by_file).ok();
    daemon.banger(["image", "prune", "--all"]).ok();
    fs::write(work.join("config.json"), auths(&registry.address)).unwrap();
    build(&[]).env("DOCKER_CONFIG", &work).ok();

    kept_nowhere(&daemon, "private:1");
    daemon.clear();
    fs::remove_dir_all(work).unwrap();
    Verdict::Passed
}

fn own_files(suite: &Suite) -> Verdict {
    let (registry, reference) = registry(suite, "own-login");
    let file = suite.scratch.dir("own-logins").join("auth.json");
    let options = DaemonOptions {
        config: format!("registry_auth_files = [\"/nowhere/auth.json\", {file:?}]"),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&suite.scratch, &suite.binaries, "own-files", options);
    let pull = || daemon.banger(["image", "pull", &reference, "--no-auth-file"]);
    refused(pull(), 125, "REGISTRY_UNAUTHORIZED");
    fs::write(&file, "not json").unwrap();
    let error = refused(pull(), 125, "REGISTRY_CREDENTIALS_UNREADABLE");
    assert!(
        error["remedy"].as_str().unwrap().contains("docker login"),
        "{error}"
    );
    // Read for each pull: no restart.
    fs::write(&file, auths(&registry.address)).unwrap();
    pull().ok();
    daemon.clear();
    Verdict::Passed
}
