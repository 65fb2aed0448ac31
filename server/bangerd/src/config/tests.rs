use banger_core::Role;

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

/// The example's tables under `key`, switched on.
fn tables_of_the_example(key: &str) -> String {
    // Each table ends with the first line that is neither a key of it nor a comment.
    let mut is_wanted = false;
    let head = format!("[{key}.");
    let lines = EXAMPLE.lines().filter_map(|line| {
        let line = line.strip_prefix('#')?;
        if line.starts_with('[') {
            is_wanted = line.starts_with(&head);
            return is_wanted.then_some(line);
        }
        (is_wanted && line.starts_with("  ") && line.contains(" = ")).then_some(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_has_every_key_of_a_catalogs_server() {
    let config = Config::parse(&tables_of_the_example("catalogs")).unwrap();
    config.check().unwrap();
    let every = CatalogConfig {
        ca_file: Some("/etc/banger/catalog-ca.pem".into()),
        client_cert_file: Some("/etc/banger/catalog-client.pem".into()),
        client_key_file: Some("/etc/banger/catalog-client.key".into()),
    };
    assert_eq!(config.catalogs["catalog.example.com"], every);
    let settings = &config.app().pull.catalogs["catalog.example.com"];
    assert_eq!(settings.ca_file, every.ca_file);
    assert_eq!(settings.client_cert_file, every.client_cert_file);
    assert_eq!(settings.client_key_file, every.client_key_file);
}

#[test]
fn mistakes_of_catalogs_servers_are_told_together() {
    let text = r#"
[catalogs."https://c.example/"]
[catalogs."c.example"]
ca_file = "relative.pem"
client_key_file = "/key"
insecure = true
"#;
    let mut told: Vec<String> = Config::parse(text)
        .unwrap_err()
        .iter()
        .map(|mistake| mistake.to_string())
        .map(|mistake| mistake.split(": ").next().unwrap().to_owned())
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "`catalogs.\"c.example\".ca_file`",
            "`catalogs.\"c.example\".client_cert_file`",
            "`catalogs.\"c.example\".insecure`",
            "`catalogs.\"https://c.example/\"`",
        ]
    );
}

#[test]
fn the_example_has_every_key_of_a_registry() {
    let config = Config::parse(&tables_of_the_example("registries")).unwrap();
    config.check().unwrap();
    let mut keys: Vec<String> = config
        .registries
        .values()
        .flat_map(|registry| toml::Table::try_from(registry).unwrap())
        .filter(|(_, value)| {
            *value != toml::Value::Boolean(false)
                && value.as_array().is_none_or(|list| !list.is_empty())
        })
        .map(|(key, _)| key)
        .collect();
    keys.sort();
    keys.dedup();
    let every = RegistryConfig {
        mirrors: vec!["x".into()],
        insecure: true,
        ca_file: Some("/x".into()),
        client_cert_file: Some("/x".into()),
        client_key_file: Some("/x".into()),
    };
    let every: Vec<String> = toml::Table::try_from(every)
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let mut every = every;
    every.sort();
    assert_eq!(keys, every);
}

/// The example's tables of what is served and to whom, switched on.
fn doors_of_the_example() -> String {
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
    let from_tcp = lines.skip_while(|line| *line != "[tcp]");
    let lines = from_tcp.take_while(|line| !line.starts_with("[access"));
    let kept = lines.filter(|line| line.starts_with('[') || line.starts_with("  "));
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_has_every_key_of_tcp_and_limits() {
    let text = doors_of_the_example();
    let config = Config::parse(&text).unwrap();
    config.check().unwrap();
    let keys = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    let given: toml::Table = text.parse().unwrap();
    let given = |key: &str| given[key].as_table().unwrap().clone();
    fn whole(value: impl serde::Serialize) -> toml::Table {
        toml::Table::try_from(value).unwrap()
    }
    assert_eq!(keys(&given("tcp")), keys(&whole(config.tcp.clone())));
    assert_eq!(keys(&given("limits")), keys(&whole(config.limits.clone())));
    assert_eq!(config.limits, LimitsConfig::default());
    let usual = TcpConfig::default();
    let numbers = TcpConfig {
        listen: Vec::new(),
        cert_file: PathBuf::new(),
        key_file: PathBuf::new(),
        client_ca_files: Vec::new(),
        crl_files: Vec::new(),
        identities: Vec::new(),
        ..config.tcp
    };
    assert_eq!(numbers, usual);
}

/// The example's tables of quotas, switched on.
fn quotas_of_the_example() -> String {
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
    let from_quotas = lines.skip_while(|line| *line != "[quota]");
    let lines = from_quotas.take_while(|line| !line.starts_with("[registries"));
    let kept = lines.filter(|line| line.starts_with('[') || line.starts_with("  "));
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_has_every_key_of_a_quota() {
    let config = Config::parse(&quotas_of_the_example()).unwrap();
    config.check().unwrap();
    let every = Limits {
        vms: Some(50),
        running_vms: Some(20),
        vcpus: Some(40),
        memory_mib: Some(32_768),
        volumes: Some(100),
        disk_mib: Some(409_600),
    };
    assert_eq!(config.quota, every);
    let quotas = config.app().quotas;
    assert_eq!(quotas.of(&Owner::of_uid(1000)).vms, Some(200));
    assert_eq!(quotas.of(&Owner::of_uid(1000)).vcpus, Some(40));
    assert_eq!(quotas.of(&Owner::of_uid(7)), every);
}

#[test]
fn ratios_are_numbers_with_and_without_a_fraction() {
    let config = Config::parse("memory_overcommit = 2\nvcpu_overcommit = 0.5\n").unwrap();
    assert_eq!(config.memory_overcommit, Ratio::of_whole(2));
    assert_eq!(config.vcpu_overcommit, Ratio::of_thousandths(500));
    let refused = Config::parse("memory_overcommit = -1\nvcpu_overcommit = 1e9\n").unwrap_err();
    assert_eq!(refused.len(), 2, "{refused:?}");
    let nothing = Config::parse("memory_overcommit = 0\nvcpu_overcommit = 0.0\n").unwrap();
    let told = nothing.check().unwrap_err().to_string();
    assert!(told.contains("2 mistake(s)"), "{told}");
}

#[test]
fn mistakes_of_quotas_are_told_by_owner_and_key() {
    let text = r#"
[quota]
vms = -1
vcpuz = 3
[owners."uid:1000"]
memory_mib = "much"
[owners.1000]
vms = 3
"#;
    let told = Config::parse(text).unwrap_err();
    let mut at: Vec<&str> = told.iter().map(|mistake| mistake.at.as_str()).collect();
    at.sort_unstable();
    assert_eq!(
        at,
        [
            "`owners.\"1000\"`",
            "`owners.\"uid:1000\".memory_mib`",
            "`quota.vcpuz`",
            "`quota.vms`",
        ],
        "{told:?}"
    );
}

#[test]
fn mistakes_of_registries_are_told_with_all_others() {
    let text = r#"
max_vms = "many"
registry_auth_files = ["relative.json"]
[registries."https://r.example"]
[registries."r.example:5000"]
mirrors = ["http://m.example", "ok.example/proxy"]
insecure = "yes"
ca = "/x"
ca_file = "relative.pem"
client_cert_file = "/x"
[registries."s.example"]
insecure = true
ca_file = "/ca.pem"
mirrors = ["s.example"]
"#;
    let told = Config::parse(text).unwrap_err();
    let mut at: Vec<&str> = told.iter().map(|mistake| mistake.at.as_str()).collect();
    at.sort_unstable();
    assert_eq!(
        at,
        [
            "`max_vms`",
            "`registries.\"https://r.example\"`",
            "`registries.\"r.example:5000\".ca_file`",
            "`registries.\"r.example:5000\".ca`",
            "`registries.\"r.example:5000\".client_key_file`",
            "`registries.\"r.example:5000\".insecure`",
            "`registries.\"r.example:5000\".mirrors`",
            "`registries.\"s.example\".ca_file`",
            "`registries.\"s.example\".mirrors`",
            "`registry_auth_files`",
        ],
        "{told:?}"
    );
}

#[test]
fn roles_at_the_socket_are_by_name_or_number() {
    let text = "[access]\nsocket_role = 'viewer'\n[access.users]\nroot = 'user'\n1000 = 'operator'\n[access.groups]\nroot = 'user'\n";
    let config = Config::parse(text).unwrap();
    config.check().unwrap();
    assert_eq!(config.access.socket_role, Role::Viewer);
    let wrong = "[access]\nsocket_role = 'boss'\nroles = 1\n[access.users]\nno-such-user-here = 'user'\n[access.groups]\nno-such-group-here = 'user'\n";
    let told = Config::parse(wrong).unwrap_err();
    let mut at: Vec<&str> = told.iter().map(|mistake| mistake.at.as_str()).collect();
    at.sort_unstable();
    assert_eq!(
        at,
        [
            "`access.groups.\"no-such-group-here\"`",
            "`access.roles`",
            "`access.socket_role`",
            "`access.users.\"no-such-user-here\"`",
        ],
        "{told:?}"
    );
}
