//! Ports: those that the daemon listens on, and those that the host has left for what guests connect to.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use banger_core::doctor::Finding;

use super::check::{Check, Right};
use super::host::{Host, MendError};

/// Which local ports programs are given that ask for none (ip_sysctl in the kernel's documentation).
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Of these, those that nobody is given.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// Sockets of the network namespace that the daemon is in (proc_net(5)).
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state LISTEN there.
const LISTENS: &str = "0A";
/// Of the ports to be given, the share in percent that is a warning.
const USED_PERCENT_MAX: usize = 80;

pub(super) const LISTENERS: [Check; 2] = [
    Check::files(
        "LISTEN_ADDRESSES",
        "The daemon listens where its configuration says",
        listeners,
    ),
    Check::files(
        "LISTEN_PORTS_RESERVED",
        "No other program is given a port that the daemon listens on",
        reserved,
    )
    .mended_by(Right::Root, reserve),
];

pub(super) const LOCAL: [Check; 1] = [Check::files(
    "LOCAL_PORTS",
    "There are local ports for what guests connect to",
    local,
)];

/// A TCP socket of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    listens: bool,
    inode: String,
}

/// `0100007F:1F90`: each word of an address is in the host's order, the port is a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()
        .map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect());
    let bytes = words?;
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let listens = fields.nth(1)? == LISTENS;
    let inode = fields.nth(5)?.to_owned();
    Some(Socket {
        local,
        listens,
        inode,
    })
}

/// All TCP sockets; `None` where the host does not tell.
fn sockets(host: &Host) -> Option<Vec<Socket>> {
    let texts: Vec<String> = TABLES
        .iter()
        .filter_map(|table| host.read(table).ok())
        .collect();
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    (!texts.is_empty()).then(|| lines.filter_map(socket).collect())
}

/// The inodes of this process's sockets.
fn own_inodes(host: &Host) -> BTreeSet<String> {
    let descriptors = fs::read_dir(host.path("/proc/self/fd"));
    let links = descriptors.into_iter().flatten().flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let text = link.to_str()?.strip_prefix("socket:[")?;
        Some(text.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// Those whose port is fixed.
fn fixed(host: &Host) -> Vec<SocketAddr> {
    let addresses = host.listen.iter().copied();
    addresses.filter(|address| address.port() != 0).collect()
}

fn listeners(host: &Host) -> Finding {
    if host.listen.is_empty() {
        return Finding::skipped("no TCP address is configured (`tcp.listen`)");
    }
    let Some(sockets) = sockets(host) else {
        return Finding::skipped("/proc/net/tcp does not tell");
    };
    let own = own_inodes(host);
    for address in fixed(host) {
        let mut there = sockets
            .iter()
            .filter(|socket| socket.listens && socket.local == address);
        let has = |socket: &Socket| own.contains(&socket.inode);
        match (there.clone().any(has), there.next()) {
            (true, _) => {}
            (false, Some(_)) => {
                return Finding::problem(
                    format!("another process listens on {address}"),
                    "Clients that mean the daemon reach that process; it cannot show the daemon's certificate.",
                )
                .remedy("Find out which it is and end it, or choose another address in `tcp.listen`; then start the daemon anew: VMs run on.")
                .command(format!("ss -ltnp 'sport = :{}'", address.port()));
            }
            (false, None) => {
                return Finding::problem(
                    format!("nobody listens on {address}"),
                    "Clients of other hosts do not reach the daemon there.",
                )
                .remedy(
                    "Start the daemon anew: VMs run on. Its log says if the address cannot be had.",
                )
                .command("systemctl restart bangerd");
            }
        }
    }
    let shown: Vec<String> = host.listen.iter().map(ToString::to_string).collect();
    Finding::ok(shown.join(", "))
}

/// The first and last port that programs are given.
fn range(host: &Host) -> Option<(u16, u16)> {
    let text = host.word(RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `8080,9000-9010`.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

/// Ports of the daemon's that others may be given.
fn unreserved(host: &Host) -> Option<BTreeSet<u16>> {
    let (first, last) = range(host)?;
    let list = host.word(RESERVED).unwrap_or_default();
    let ports = fixed(host).into_iter().map(|address| address.port());
    let open = ports.filter(|port| (first..=last).contains(port) && !is_reserved(&list, *port));
    Some(open.collect())
}

/// The list of reserved ports with these.
fn with(host: &Host, ports: &BTreeSet<u16>) -> String {
    let list = host.word(RESERVED).filter(|list| !list.is_empty());
    let ports = ports.iter().map(ToString::to_string);
    list.into_iter().chain(ports).collect::<Vec<_>>().join(",")
}

fn reserved(host: &Host) -> Finding {
    if fixed(host).is_empty() {
        return Finding::skipped("the daemon listens on no fixed port");
    }
    let Some(ports) = unreserved(host) else {
        return Finding::skipped(format!("{RANGE} does not tell"));
    };
    if ports.is_empty() {
        return Finding::ok("none of them is in the range of local ports, or it is reserved");
    }
    let list = with(host, &ports);
    let shown: Vec<String> = ports.iter().map(ToString::to_string).collect();
    Finding::warning(
        format!("{} in the range of local ports", shown.join(", ")),
        "While the daemon is down, a connection of any program may be given the port, and then the daemon cannot start.",
    )
    .remedy("Reserve it, for good by a file in /etc/sysctl.d, or choose a port outside of the range.")
    .command(format!("sysctl -w net.ipv4.ip_local_reserved_ports={list}"))
}

fn reserve(host: &Host) -> Result<String, MendError> {
    let ports = unreserved(host).unwrap_or_default();
    let list = with(host, &ports);
    fs::write(host.path(RESERVED), &list).map_err(|source| MendError::Step {
        step: format!("write {list} to {RESERVED}"),
        source,
    })?;
    Ok(format!("set net.ipv4.ip_local_reserved_ports to {list}"))
}

fn local(host: &Host) -> Finding {
    let (Some((first, last)), Some(sockets)) = (range(host), sockets(host)) else {
        return Finding::skipped(format!("{RANGE} or /proc/net/tcp does not tell"));
    };
    let is_given = |port: &u16| (first..=last).contains(port);
    let used: BTreeSet<u16> = sockets
        .iter()
        .map(|socket| socket.local.port())
        .filter(is_given)
        .collect();
    let all = usize::from(last.saturating_sub(first)) + 1;
    let found = format!("{} of {all} in use ({first} to {last})", used.len());
    if used.len() * 100 < all * USED_PERCENT_MAX {
        return Finding::ok(found);
    }
    Finding::warning(
        found,
        "Each connection that a guest of the user-mode network makes has a port of the host's; with none left, guests and the daemon itself connect to nothing.",
    )
    .remedy("Widen the range, or find out who holds so many connections.")
    .command("sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, inode: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0\n"
        )
    }

    /// A host whose daemon listens on 127.0.0.1:8080, by a socket of this inode.
    fn host(tables: &[(&str, &str)], own: u32) -> (tempfile::TempDir, Host) {
        let (dir, mut host) = laid_out::host(tables);
        host.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))];
        let descriptors = dir.path().join("proc/self/fd");
        fs::create_dir_all(&descriptors).unwrap();
        std::os::unix::fs::symlink(format!("socket:[{own}]"), descriptors.join("3")).unwrap();
        (dir, host)
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        if cfg!(target_endian = "little") {
            let loopback = address("0100007F:1F90").unwrap();
            assert_eq!(loopback, SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
            let six = address("00000000000000000000000001000000:0050").unwrap();
            assert_eq!(six, SocketAddr::from((Ipv6Addr::LOCALHOST, 80)));
        }
        for wrong in ["", "0100007F", "0100:1F90", "0100007G:1F90", "ä100007F:1"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_is_found_among_the_hosts_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (_dir, laid) = laid_out::host(&[]);
        let mut host = Host::new(
            std::path::Path::new("/"),
            &crate::AppConfig::new(laid.state_dir, "agent".into()),
        );
        host.listen = vec![listener.local_addr().unwrap()];
        assert_eq!(listeners(&host).verdict, Verdict::Ok);
    }

    #[test]
    fn who_listens_is_told_apart() {
        let (_dir, none) = laid_out::host(&[]);
        assert_eq!(listeners(&none).verdict, Verdict::Skipped);
        let table = format!("{HEAD}{}", line("0100007F:1F90", LISTENS, 77));
        let tables = [("/proc/net/tcp", table.as_str())];
        let (_dir, own) = host(&tables, 77);
        assert_eq!(listeners(&own), Finding::ok("127.0.0.1:8080"));
        let (_dir, other) = host(&tables, 78);
        let found = listeners(&other);
        assert_eq!(found.found, "another process listens on 127.0.0.1:8080");
        assert!(found.command.contains(":8080"));
        let connected = format!("{HEAD}{}", line("0100007F:1F90", "01", 77));
        let (_dir, nobody) = host(&[("/proc/net/tcp", &connected)], 77);
        assert_eq!(listeners(&nobody).found, "nobody listens on 127.0.0.1:8080");
    }

    #[test]
    fn a_port_that_others_may_be_given_is_reserved_beside_those_that_are() {
        let (_dir, outside) = host(&[(RANGE, "32768\t60999\n")], 1);
        assert_eq!(reserved(&outside).verdict, Verdict::Ok);
        let (dir, inside) = host(&[(RANGE, "8000 9000\n"), (RESERVED, "8001,8100-8200\n")], 1);
        let told = reserved(&inside);
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.command.ends_with("=8001,8100-8200,8080"), "{told:?}");
        reserve(&inside).unwrap();
        assert_eq!(reserved(&inside).verdict, Verdict::Ok);
        let written = fs::read_to_string(dir.path().join(RESERVED.trim_start_matches('/')));
        assert_eq!(written.unwrap(), "8001,8100-8200,8080");
    }

    #[test]
    fn a_range_that_is_nearly_used_up_is_a_warning() {
        let used = |count: u16| {
            let ports = (0..count).map(|at| line(&format!("0100007F:{:04X}", 100 + at), "01", 1));
            format!("{HEAD}{}", ports.collect::<String>())
        };
        for (count, verdict) in [(7, Verdict::Ok), (8, Verdict::Warning)] {
            let table = used(count);
            let (_dir, host) = host(&[(RANGE, "100 109\n"), ("/proc/net/tcp", &table)], 1);
            let found = local(&host);
            assert_eq!(found.verdict, verdict);
            assert_eq!(found.found, format!("{count} of 10 in use (100 to 109)"));
        }
    }
}
