//! The files that a guest's own programs look into for names: two under /etc, and more where the image's own init
//! would else have its way.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use banger_proto::guest::v1::Network;

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

/// The host name, which an init sets anew from there.
const HOSTNAME: &str = "/etc/hostname";
/// What systemd's network daemon is told of the interface. `/run` is memory, and is read before the image's own.
const NETWORKD: &str = "/run/systemd/network/00-banger.network";
/// That udev keeps the interface's name.
const LINK: &str = "/run/systemd/network/00-banger.link";
/// What systemd's resolver is told of name servers, where nobody else tells it.
const RESOLVED: &str = "/run/systemd/resolved.conf.d/banger.conf";

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

    /// Writes what an init of the image's own sets up from.
    pub(super) fn write_for_init(&self, network: Option<&Network>) {
        let mut texts = Vec::new();
        if !self.hostname.is_empty() {
            texts.push((HOSTNAME, format!("{}\n", self.hostname)));
        }
        if let (Some(network), Some(servers)) = (network, &self.servers) {
            let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
            texts.extend(systemd(network, &servers.join(" ")));
        }
        for (path, text) in texts {
            report(Path::new(path), write(Path::new(path), &text));
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

/// systemd.network(5), systemd.link(5) and resolved.conf(5), so that they keep what is set up already.
fn systemd(network: &Network, servers: &str) -> [(&'static str, String); 3] {
    let Network {
        address, gateway, ..
    } = network;
    let gateway = match gateway.as_str() {
        "" => String::new(),
        gateway => format!("Gateway={gateway}\n"),
    };
    [
        (
            NETWORKD,
            format!(
                "[Match]\nName=eth0\n\n[Network]\nAddress={address}\n{gateway}DNS={servers}\nKeepConfiguration=yes\n"
            ),
        ),
        (
            LINK,
            "[Match]\nOriginalName=eth0\n\n[Link]\nName=eth0\n".to_owned(),
        ),
        (RESOLVED, format!("[Resolve]\nDNS={servers}\n")),
    ]
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
    fn systemd_is_told_what_is_set_up() {
        let network = Network {
            address: "10.0.2.15/24".into(),
            gateway: "10.0.2.2".into(),
            dns: Vec::new(),
        };
        let [(_, network), _, (_, resolver)] = systemd(&network, "10.0.2.3 1.1.1.1");
        assert_eq!(
            network,
            "[Match]\nName=eth0\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n\
             DNS=10.0.2.3 1.1.1.1\nKeepConfiguration=yes\n"
        );
        assert_eq!(resolver, "[Resolve]\nDNS=10.0.2.3 1.1.1.1\n");
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
