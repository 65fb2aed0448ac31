use super::*;

fn git(directory: &Path) -> Git {
    Git::at(Arc::new(HostLauncher), Cancel::default(), directory)
}

#[test]
fn output_input_and_failure_are_told() {
    let place = tempfile::tempdir().unwrap();
    let git = git(place.path());
    assert!(git.line(&["--version"]).unwrap().starts_with("git version"));
    let hash = git
        .feed(&["hash-object", "--stdin"], |to| to.write_all(b"hello\n"))
        .unwrap();
    assert_eq!(hash, b"ce013625030ba8dba906f756967f9e9ca394464a\n");
    let error = git.run(&["rev-parse", "HEAD"]).unwrap_err().to_string();
    assert!(error.starts_with("`git rev-parse` returned 128: fatal: not a git repository"));
    assert!(!git.test(&["rev-parse", "HEAD"]).unwrap());
}

#[test]
fn a_repository_above_is_not_found() {
    let place = tempfile::tempdir().unwrap();
    git(place.path()).run(&["init", "-q"]).unwrap();
    let below = place.path().join("below");
    std::fs::create_dir(&below).unwrap();
    assert!(!git(&below).test(&["rev-parse", "--git-dir"]).unwrap());
}

/// Writes little by little until nobody reads any more.
fn trickle(to: &mut dyn Write) -> io::Result<()> {
    loop {
        to.write_all(b"x")?;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// It reads all of its input before it says anything.
const ENDLESS: [&str; 2] = ["hash-object", "--stdin"];

#[test]
fn what_takes_too_long_is_ended() {
    let place = tempfile::tempdir().unwrap();
    let git = git(place.path()).with_deadline(Duration::from_millis(200));
    let result = git.feed(&ENDLESS, trickle);
    assert!(
        matches!(result, Err(GitError::TimedOut { .. })),
        "{result:?}"
    );
}

#[test]
fn what_is_given_up_ends_at_once() {
    let place = tempfile::tempdir().unwrap();
    let git = git(place.path());
    let cancel = git.cancel().clone();
    let result = git.feed(&ENDLESS, move |to| {
        cancel.cancel();
        trickle(to)
    });
    assert!(matches!(result, Err(GitError::Cancelled)), "{result:?}");
    assert!(matches!(git.run(&["--version"]), Err(GitError::Cancelled)));
}

#[test]
fn hooks_and_helpers_of_a_repository_do_not_run() {
    let place = tempfile::tempdir().unwrap();
    let git = git(place.path());
    git.run(&["init", "-q", "-b", "main"]).unwrap();
    let trap = place.path().join("sprung");
    let script = format!("#!/bin/sh\ntouch {}\n", trap.display());
    let hooks = place.path().join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    for hook in [
        "pre-commit",
        "post-checkout",
        "reference-transaction",
        "post-index-change",
    ] {
        let path = hooks.join(hook);
        std::fs::write(&path, &script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let hook = hooks.join("pre-commit");
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "diff.external",
    ] {
        git.run(&["config".as_ref(), key.as_ref(), hook.as_os_str()])
            .unwrap();
    }
    std::fs::write(place.path().join("file"), "x").unwrap();
    git.run(&["add", "file"]).unwrap();
    let tree = git.line(&["write-tree"]).unwrap();
    let named = git
        .clone()
        .with_setting("user.name=x")
        .with_setting("user.email=x@example.com");
    let commit = named.line(&["commit-tree", &tree, "-m", "x"]).unwrap();
    git.run(&["update-ref", "HEAD", &commit]).unwrap();
    git.run(&["status"]).unwrap();
    git.run(&["log", "-p"]).unwrap();
    git.run(&["checkout", "-q", "-f", "HEAD"]).unwrap();
    assert!(!trap.exists());
}

/// What could start a program or reach somebody, what a repository may say, and what holds. Most of it stands behind
/// something else (nothing here asks for a remote, so no ssh is started), and is seen here alone.
const HELD: [(&str, &str, &str); 19] = [
    ("core.hooksPath", "hooks", "/dev/null"),
    ("core.fsmonitor", "true", "false"),
    ("core.sshCommand", "theirs", "false"),
    ("core.gitProxy", "theirs", ""),
    ("core.askPass", "theirs", "false"),
    ("core.pager", "theirs", "cat"),
    ("core.editor", "theirs", "false"),
    ("core.alternateRefsCommand", "theirs", "true"),
    ("core.attributesFile", "theirs", "/dev/null"),
    ("core.excludesFile", "theirs", "/dev/null"),
    ("credential.helper", "theirs", ""),
    ("protocol.allow", "always", "never"),
    ("diff.external", "theirs", ""),
    ("uploadpack.packObjectsHook", "theirs", ""),
    ("commit.gpgSign", "true", "false"),
    ("log.showSignature", "true", "false"),
    ("submodule.recurse", "true", "false"),
    ("gc.auto", "1", "0"),
    ("maintenance.auto", "true", "false"),
];

#[test]
fn what_a_repository_says_comes_after_what_is_said_here() {
    let place = tempfile::tempdir().unwrap();
    let git = git(place.path());
    git.run(&["init", "-q"]).unwrap();
    for (key, theirs, _) in HELD {
        git.run(&["config", key, theirs]).unwrap();
    }
    for (key, _, ours) in HELD {
        assert_eq!(git.line(&["config", "--get", key]).unwrap(), ours, "{key}");
    }
}

#[test]
fn the_environment_is_made_from_nothing() {
    let place = tempfile::tempdir().unwrap();
    let git = git(place.path()).with_setting("alias.environment=!env");
    let told = git.line(&["environment"]).unwrap();
    let told: Vec<&str> = told.lines().collect();
    for held in [
        "HOME=/",
        "GIT_CONFIG_NOSYSTEM=1",
        "GIT_CONFIG_SYSTEM=/dev/null",
        "GIT_CONFIG_GLOBAL=/dev/null",
        "GIT_ATTR_NOSYSTEM=1",
        "GIT_TERMINAL_PROMPT=0",
        "GIT_ASKPASS=false",
        "SSH_ASKPASS=false",
        "GIT_SSH_COMMAND=false",
        "GIT_EDITOR=false",
        "GIT_SEQUENCE_EDITOR=false",
        "GIT_PAGER=cat",
        "GIT_OPTIONAL_LOCKS=0",
        "GIT_NO_REPLACE_OBJECTS=1",
        "GIT_NO_LAZY_FETCH=1",
        "GIT_ALLOW_PROTOCOL=none",
    ] {
        assert!(told.contains(&held), "{held} is not in {told:?}");
    }
    // This test has a manifest's directory in its own environment.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(
        !told.iter().any(|one| one.starts_with("CARGO_")),
        "{told:?}"
    );
}
