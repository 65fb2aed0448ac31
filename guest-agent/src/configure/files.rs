//! The two files under /etc that a guest's own programs look into for names.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The first lines of a hosts file that was missing.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
/// Debian's address for a host name without one.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
/// Longest hosts file of an image that is extended; a longer one is left as it is.
const HOSTS_MAX_BYTES: u64 = 1 << 20;

/// Makes `hostname` resolve, by a line that is added unless some line names it.
pub(super) fn write_hosts(hostname: &str, address: Option<Ipv4Addr>) {
    let path = Path::new("/etc/hosts");
    if fs::metadata(path).is_ok_and(|file| file.len() > HOSTS_MAX_BYTES) {
        return;
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    if let Some(text) = hosts(&text, hostname, address) {
        report(path, write(path, &text));
    }
}

/// The new content; none where nothing is to be changed.
fn hosts(text: &str, hostname: &str, address: Option<Ipv4Addr>) -> Option<String> {
    let names = |line: &str, name: &str| {
        let line = line.split('#').next().unwrap_or("");
        line.split_whitespace().skip(1).any(|word| word == name)
    };
    let mut new = text.to_owned();
    if !text.lines().any(|line| names(line, "localhost")) {
        new.insert_str(0, LOCALHOST);
    }
    if !hostname.is_empty() && !text.lines().any(|line| names(line, hostname)) {
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        // Writing to a string does not fail.
        let _ = writeln!(new, "{}\t{hostname}", address.unwrap_or(OWN_ADDRESS));
    }
    (new != text).then_some(new)
}

/// Writes the name servers.
pub(super) fn write_resolver(servers: &[IpAddr]) {
    let mut text = String::new();
    for server in servers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    let path = Path::new("/etc/resolv.conf");
    report(path, write(path, &text));
}

/// Writes through a symbolic link where it leads somewhere, making the directories it leads through, and
/// else in its place.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Ok(target) = fs::read_link(path) {
        let target = path.parent().unwrap_or(Path::new("/")).join(target);
        let made = target.parent().map_or(Ok(()), fs::create_dir_all);
        if made.is_ok() && fs::write(path, text).is_ok() {
            return Ok(());
        }
        fs::remove_file(path)?;
    }
    fs::write(path, text)
}

fn report(path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("banger-agent: could not write {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_hosts_file_is_made() {
        let text = hosts("", "web", Some(Ipv4Addr::new(10, 0, 2, 15))).unwrap();
        assert_eq!(text, format!("{LOCALHOST}10.0.2.15\tweb\n"));
    }

    #[test]
    fn a_hosts_file_that_names_the_host_is_left_alone() {
        assert_eq!(hosts("127.0.0.1 localhost web", "web", None), None);
        let text = hosts("127.0.0.1 localhost # web", "web", None).unwrap();
        assert_eq!(text, "127.0.0.1 localhost # web\n127.0.1.1\tweb\n");
    }

    #[test]
    fn a_link_is_written_through_and_a_dangling_one_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("etc/resolv.conf");
        fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../run/systemd/stub.conf", &link).unwrap();
        write(&link, "x").unwrap();
        let target = dir.path().join("run/systemd/stub.conf");
        assert_eq!(fs::read_to_string(target).unwrap(), "x");
        assert!(link.is_symlink());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("resolv.conf");
        std::os::unix::fs::symlink("resolv.conf", &link).unwrap();
        write(&link, "x").unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "x");
        assert!(!link.is_symlink());
    }
}
