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

/// The file of host names.
pub(super) const HOSTS: &str = "/etc/hosts";
/// The file of name servers.
pub(super) const RESOLVER: &str = "/etc/resolv.conf";

/// What a guest is told of names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) hostname: String,
    pub(super) address: Option<Ipv4Addr>,
    /// Absent where the guest has no network.
    pub(super) servers: Option<Vec<IpAddr>>,
}

impl Names {
    /// Writes both files where programs look for them. A read-only or odd /etc is no reason to have no
    /// guest; the names then do not resolve.
    pub(super) fn write(&self) {
        for (path, text) in [(HOSTS, self.hosts()), (RESOLVER, self.resolver())] {
            if let Some(text) = text {
                report(Path::new(path), write(Path::new(path), &text));
            }
        }
    }

    /// The host names, by a line that is added unless some line names the guest; none where nothing is to
    /// be changed.
    pub(super) fn hosts(&self) -> Option<String> {
        if fs::metadata(HOSTS).is_ok_and(|file| file.len() > HOSTS_MAX_BYTES) {
            return None;
        }
        let text = fs::read_to_string(HOSTS).unwrap_or_default();
        hosts(&text, &self.hostname, self.address)
    }

    /// The name servers.
    pub(super) fn resolver(&self) -> Option<String> {
        let mut text = String::new();
        for server in self.servers.as_ref()? {
            // Writing to a string does not fail.
            let _ = writeln!(text, "nameserver {server}");
        }
        Some(text)
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

pub(super) fn report(path: &Path, result: io::Result<()>) {
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
