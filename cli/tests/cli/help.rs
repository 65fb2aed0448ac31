//! The whole of the help, so that a change of the command tree is seen, and completion.

use std::fmt::Write;
use std::path::Path;

use super::fake::Fake;
use super::*;

/// The commands under `path`, by their help.
fn tree(fake: &Fake, path: &[&str], all: &mut String) {
    let help = output(fake, &[path, &["--help"]].concat());
    assert_eq!(code(&help), 0);
    let help = text(&help.stdout).to_owned();
    let banner = format!("banger {}", path.join(" "));
    writeln!(all, "=== {}\n{help}", banner.trim_end()).unwrap();
    if path.len() == 2 || !help.contains("\nCommands:\n") {
        let examples = help.contains("Examples:");
        assert!(examples, "`{banner}` has no example");
        return;
    }
    let commands = help
        .split("\nCommands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    for line in commands.lines() {
        let Some(name) = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))
        else {
            continue;
        };
        let name = name.split_whitespace().next().unwrap();
        if name != "help" {
            tree(fake, &[path, &[name]].concat(), all);
        }
    }
}

#[test]
fn the_help_is_as_recorded_and_every_command_has_an_example() {
    let fake = Fake::start();
    let mut all = String::new();
    tree(&fake, &[], &mut all);
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("UPDATE_HELP").is_some() {
        std::fs::write(&recorded, &all).unwrap();
    }
    let before = std::fs::read_to_string(&recorded).unwrap_or_default();
    assert!(
        before == all,
        "the help has changed: look at it, then run with UPDATE_HELP=1"
    );
}

#[test]
fn completion_knows_commands_and_the_names_of_living_vms() {
    let fake = with_vm();
    for shell in ["bash", "zsh", "fish"] {
        let script = output(&fake, &["completion", shell]);
        assert!(text(&script.stdout).contains("BANGER_COMPLETE"), "{shell}");
    }
    let complete = |words: &[&str]| {
        let mut command = banger(&fake, &[&["--", "banger"], words].concat());
        command.env("BANGER_COMPLETE", "fish");
        text(&command.output().unwrap().stdout).to_owned()
    };
    assert!(complete(&["vm", "st"]).contains("start"));
    assert!(complete(&["vm", "stop", ""]).contains("web"));
    assert!(complete(&["vm", "forward", ""]).contains("web"));
}

#[test]
fn the_version_is_printed() {
    let version = output(&Fake::start(), &["--version"]);
    assert_eq!(
        text(&version.stdout),
        concat!("banger ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
