use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/bangerd.toml");

/// The example with its settings switched on.
fn example() -> String {
    let setting = |line: &str| {
        let line = line.strip_prefix('#')?;
        let (key, _) = line.split_once(" = ")?;
        key.chars()
            .all(|c| c.is_ascii_lowercase() || c == '_')
            .then(|| line.to_owned())
    };
    EXAMPLE
        .lines()
        .filter_map(setting)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_example_is_the_defaults_and_has_every_key() {
    let table: toml::Table = example().parse().unwrap();
    let example = Config::parse(&example()).unwrap();
    assert_eq!(example, Config::defaults(&Place::system()));
    let all = toml::Table::try_from(&example).unwrap();
    assert_eq!(
        all.keys().collect::<Vec<_>>(),
        table.keys().collect::<Vec<_>>()
    );
    assert!(example.check().is_ok());
}

#[test]
fn the_example_as_it_is_changes_nothing() {
    assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
}

#[test]
fn every_key_of_the_example_is_explained() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let is_setting = line.strip_prefix('#').is_some_and(|line| {
            line.split_once(" = ")
                .is_some_and(|(key, _)| !key.contains(' '))
        });
        if is_setting {
            assert!(number > 0 && lines[number - 1].starts_with("# "), "{line}");
        }
    }
}

#[test]
fn all_mistakes_are_told_together() {
    let text = "max_vms = \"many\"\nno_such_key = 1\nboot_timeout = \"soon\"\naccelerator = \"hvf\"\nstate_dir = \"/x\"\nstop_kill_timeout = \"0s\"\n";
    let mistakes = Config::parse(text).unwrap_err();
    let at: Vec<&str> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
    assert_eq!(at.len(), 5, "{mistakes:?}");
    for key in [
        "`max_vms`",
        "`no_such_key`",
        "`boot_timeout`",
        "`accelerator`",
        "`stop_kill_timeout`",
    ] {
        assert!(at.contains(&key), "{key} in {mistakes:?}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_told_by_line() {
    let mistakes = Config::parse("max_vms = 1\n= 2\n").unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].at, "line 2");
}

#[test]
fn values_out_of_range_are_refused_together() {
    let text = "max_vms = 0\nboot_timeout = \"0s\"\nstop_kill_timeout = \"-1s\"\nstate_dir = \"x\"\nlog_level = \"loud=loud\"\nconsole_max_bytes = 1\noperation_retention = \"20000h\"\n";
    let refused = Config::parse(text)
        .unwrap()
        .check()
        .unwrap_err()
        .to_string();
    for key in [
        "max_vms",
        "boot_timeout",
        "stop_kill_timeout",
        "state_dir",
        "log_level",
        "console_max_bytes",
        "operation_retention",
    ] {
        assert!(
            refused.contains(&format!("`{key}`: ")),
            "{key} in {refused}"
        );
    }
    assert!(
        refused.starts_with("the configuration has 7 mistake(s):"),
        "{refused}"
    );
}

#[test]
fn a_socket_path_too_long_for_the_kernel_is_refused() {
    let config = Config {
        socket: format!("/{}", "x".repeat(107)).into(),
        ..Config::default()
    };
    assert!(config.check().is_err());
}

#[test]
fn a_user_has_the_places_of_the_xdg_specification() {
    let place = Place::user(7, |name| (name == "HOME").then(|| "/home/u".into()));
    assert_eq!(
        place.config,
        Path::new("/home/u/.config/banger/bangerd.toml")
    );
    assert_eq!(place.state_dir, Path::new("/home/u/.local/state/banger"));
    assert_eq!(place.socket, Path::new("/run/user/7/banger/bangerd.sock"));
    let place = Place::user(7, |name| match name {
        "XDG_STATE_HOME" => Some("/s".into()),
        "XDG_RUNTIME_DIR" => Some("relative".into()),
        _ => None,
    });
    assert_eq!(place.state_dir, Path::new("/s/banger"));
    assert_eq!(place.socket, Path::new("/run/user/7/banger/bangerd.sock"));
}

#[test]
fn a_configured_agent_is_taken_as_it_is() {
    assert_eq!(place::agent(Path::new("/a/b")), Path::new("/a/b"));
}
