use super::super::Config;

fn said(text: &str) -> String {
    let wrong = match Config::parse(text) {
        Err(mistakes) => mistakes,
        Ok(config) => config.mistakes(),
    };
    let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn tcp_without_mutual_tls_is_refused_on_every_address() {
    for address in ["127.0.0.1:7443", "[::1]:7443", "0.0.0.0:7443"] {
        let said = said(&format!("[tcp]\nlisten = [\"{address}\"]\n"));
        for key in ["cert_file", "key_file", "client_ca_files"] {
            let line =
                format!("`tcp.{key}`: is missing: the API is served by TCP with mutual TLS only");
            assert!(said.contains(&line), "{line} in {said}");
        }
    }
    let said = said("[tcp]\ncert_file = \"/a\"\nkey_file = \"/b\"\n");
    assert!(
        said.starts_with("`tcp.client_ca_files`: is missing"),
        "{said}"
    );
}

#[test]
fn a_whole_table_is_right() {
    let text = r#"
        [tcp]
        listen = ["0.0.0.0:7443", "[::]:7444"]
        cert_file = "/etc/banger/tls/server.crt"
        key_file = "/etc/banger/tls/server.key"
        client_ca_files = ["/etc/banger/tls/ca.crt"]
        crl_files = ["/etc/banger/tls/ca.crl"]
        [[tcp.identities]]
        uri = "spiffe://corp.example/ci/*"
        organisation = "Corp"
        name = "ci-*"
        role = "user"
        [[tcp.identities]]
        cn = "Ann Example"
        name = "ann"
        role = "operator"
    "#;
    let config = Config::parse(text).unwrap();
    assert_eq!(config.mistakes(), []);
    assert!(config.tcp.has_tls());
    assert_eq!(config.tcp.identities.len(), 2);
    assert_eq!(config.tcp.files().len(), 4);
}

#[test]
fn each_mistake_is_told_by_its_key() {
    let of_types = said(
        "[tcp]\nlisten = [\"localhost\"]\nno_such = 1\nconnections_max = \"many\"\n[[tcp.identities]]\nname = \"a\"\nrole = \"root\"\n",
    );
    for key in ["listen", "no_such", "connections_max", "identities"] {
        assert!(
            of_types.contains(&format!("`tcp.{key}`: ")),
            "{key} in {of_types}"
        );
    }
    let of_values = said(
        r#"
        [tcp]
        cert_file = "server.crt"
        key_file = "/k"
        client_ca_files = ["/c"]
        handshakes_max = 0
        handshake_timeout = "0s"
        [[tcp.identities]]
        name = "all"
        role = "admin"
        [[tcp.identities]]
        uri = "a*b*"
        name = "x"
        role = "user"
        [[tcp.identities]]
        cn = "a"
        name = "ci-*"
        role = "user"
        [[tcp.identities]]
        cn = "a"
        name = "uid:0"
        role = "user"
        "#,
    );
    for part in [
        "`tcp.cert_file`: must be an absolute path",
        "`tcp.handshakes_max`: must be at least 1",
        "`tcp.handshake_timeout`: must be longer",
        "`tcp.identities[0]`: fits every certificate",
        "`tcp.identities[1]`: has a pattern with more than one",
        "`tcp.identities[2]`: has a name with `*`",
        "`tcp.identities[3]`: has a name that is none",
    ] {
        assert!(of_values.contains(part), "{part} in {of_values}");
    }
}
