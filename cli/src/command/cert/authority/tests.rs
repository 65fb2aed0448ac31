use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn order(name: &str) -> Order {
    Order {
        name: name.to_owned(),
        kind: Kind::Client {
            role: "user".to_owned(),
        },
        sans: Vec::new(),
        days: 30,
        out: None,
        replace: false,
    }
}

fn server(name: &str, sans: &[&str]) -> Order {
    Order {
        kind: Kind::Server,
        sans: sans.iter().map(|&san| san.to_owned()).collect(),
        ..order(name)
    }
}

/// An authority in a directory that ends with the test.
fn made() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/pki");
    Authority::make(&path, "an authority", 365).unwrap();
    (dir, path)
}

#[test]
fn an_authority_is_its_keepers_alone_and_never_replaced() {
    let (_dir, path) = made();
    assert_eq!((mode(&path), mode(&path.join(KEY))), (0o700, 0o600));
    let again = Authority::make(&path, "another", 1).unwrap_err();
    assert!(matches!(again, CertError::Exists { .. }), "{again}");
    fs::set_permissions(path.join(KEY), fs::Permissions::from_mode(0o640)).unwrap();
    let exposed = Authority::open(&path).unwrap().issue(order("ci"));
    assert_eq!(exposed.unwrap_err().reason(), "CERT_KEY_EXPOSED");
    let nothing = Authority::open(&path.join("b")).unwrap_err();
    assert_eq!(nothing.reason(), "CERT_NO_AUTHORITY");
}

#[test]
fn what_is_issued_is_recorded_and_replaced_only_when_asked() {
    let (_dir, path) = made();
    let issue = |order| Authority::open(&path).unwrap().issue(order);
    let (first, directory) = issue(order("ci")).unwrap();
    assert_eq!(directory, path.join("clients/ci"));
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("client.key")), 0o600);
    let before = fs::read(directory.join("client.crt")).unwrap();
    assert_eq!(issue(order("ci")).unwrap_err().reason(), "CERT_EXISTS");
    assert_eq!(fs::read(directory.join("client.crt")).unwrap(), before);
    let again = Order {
        replace: true,
        ..order("ci")
    };
    let (second, _) = issue(again).unwrap();
    assert_ne!(first.serial, second.serial);
    assert_ne!(fs::read(directory.join("client.crt")).unwrap(), before);
    let entries = Authority::open(&path).unwrap().entries();
    assert_eq!(entries, [first, second]);
}

#[test]
fn a_revoked_certificate_is_on_the_list_and_by_its_name_all_are() {
    let (_dir, path) = made();
    let listed = || {
        let text = read(&path.join(REVOKED)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        let list = x509_parser::parse_x509_crl(&pem.contents).unwrap().1;
        let serials = list.iter_revoked_certificates();
        let mut serials: Vec<String> = serials.map(|one| hexadecimal(one.raw_serial())).collect();
        serials.sort();
        (serials, list.crl_number().unwrap().clone())
    };
    let issue = |name: &str, out: &str| {
        let order = Order {
            out: Some(path.join(out)),
            ..order(name)
        };
        Authority::open(&path).unwrap().issue(order).unwrap().0
    };
    let (one, two, other) = (issue("ci", "1"), issue("ci", "2"), issue("ann", "3"));
    let revoke = |what: &str| Authority::open(&path).unwrap().revoke(what);
    assert_eq!(listed(), (Vec::new(), 1_u32.into()));
    let revoked = revoke(&one.serial.to_uppercase()).unwrap();
    assert_eq!(revoked.len(), 1);
    assert_eq!(listed(), (vec![one.serial.clone()], 2_u32.into()));
    assert_eq!(revoke("ci").unwrap()[0].serial, two.serial);
    let mut both = vec![one.serial, two.serial];
    both.sort();
    assert_eq!(listed(), (both, 3_u32.into()));
    assert_eq!(revoke("ci").unwrap_err().reason(), "CERT_NOT_FOUND");
    let now = Timestamp::now();
    let entries = Authority::open(&path).unwrap().entries();
    let left: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.ends_within(now, 31))
        .collect();
    assert_eq!(left, [&other]);
    assert!(!other.ends_within(now, 29));
}

#[test]
fn names_that_mean_something_else_are_refused() {
    let (_dir, path) = made();
    let issue = |order| Authority::open(&path).unwrap().issue(order);
    for name in ["", "a b", "../x", "a/b", "uid:0", "ä", ".", &"x".repeat(65)] {
        let refused = issue(order(name)).unwrap_err();
        assert_eq!(refused.reason(), "CERT_NAME_INVALID", "{name}");
    }
    for name in ["", "a b", "a/b", "-a", "a..b", "*"] {
        let refused = issue(server(name, &[])).unwrap_err();
        assert_eq!(refused.reason(), "CERT_NAME_INVALID", "{name}");
        assert!(issue(server("h", &[name])).is_err(), "{name}");
    }
    let (_, directory) = issue(server("h.example", &["10.0.0.1", "::1"])).unwrap();
    assert_eq!(directory, path.join("servers/h.example"));
    let outlives = Order {
        days: 366,
        ..order("old")
    };
    let refused = issue(outlives).unwrap_err();
    assert_eq!(refused.reason(), "CERT_OUTLIVES_AUTHORITY");
}
