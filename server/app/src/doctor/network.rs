//! What networks of VMs are made of. QEMU's user mode needs nothing but names that resolve; networks of taps need the
//! rest, and the right to make them. A daemon without that right is not asked for what it could not use.

use std::net::IpAddr;

use banger_core::doctor::Finding;

use super::check::{Check, Right};
use super::host::{Host, MendError};

const TUN: &str = "/dev/net/tun";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const RESOLVED: &str = "/run/systemd/resolve/stub-resolv.conf";
/// Why most of these are not asked of an ordinary user's daemon.
const UNPRIVILEGED: &str =
    "without CAP_NET_ADMIN VMs have the user-mode network, which does not need it";

pub(super) const CHECKS: [Check; 5] = [
    Check::files(
        "DNS_SERVERS",
        "The host knows a name server to ask for guests",
        dns_servers,
    ),
    Check::files(
        "DNS_ROUTING",
        "Names of VMs can be routed to the daemon (systemd-resolved)",
        dns_routing,
    ),
    Check::files("TUN_DEVICE", "Taps can be made", tun).mended_by(Right::Root, load_tun),
    Check::files("NFTABLES", "Rules for VMs' networks can be set", nftables),
    Check::files(
        "IP_FORWARDING",
        "The host forwards what VMs send",
        forwarding,
    ),
];

fn dns_servers(host: &Host) -> Finding {
    let cause =
        "Guests ask the host for names, and the host passes that on to the name server it knows.";
    let remedy = "Set up the host's own names: a line `nameserver ADDRESS` in /etc/resolv.conf.";
    let Ok(text) = host.read("/etc/resolv.conf") else {
        return Finding::warning("/etc/resolv.conf cannot be read", cause).remedy(remedy);
    };
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|word| {
            let address = word.split('%').next().unwrap_or_default();
            address.parse::<IpAddr>().is_ok()
        })
        .collect();
    if servers.is_empty() {
        return Finding::warning("/etc/resolv.conf names none", cause).remedy(remedy);
    }
    Finding::ok(servers.join(", "))
}

fn dns_routing(host: &Host) -> Finding {
    if !host.may_change_network() {
        return Finding::skipped(UNPRIVILEGED);
    }
    if !host.exists(RESOLVED) {
        return Finding::warning(
            "systemd-resolved does not run",
            "Only it can send the names of VMs to one server and all others to another; without it VMs have no names on \
             the host.",
        )
        .remedy("Install and start it, or reach VMs through the daemon.")
        .command("apt-get install systemd-resolved");
    }
    let text = host.read("/etc/resolv.conf").unwrap_or_default();
    if text
        .lines()
        .any(|line| line.trim() == "nameserver 127.0.0.53")
    {
        return Finding::ok("systemd-resolved, and programs ask it");
    }
    Finding::warning(
        "systemd-resolved runs, and /etc/resolv.conf does not name it",
        "Programs that read that file ask another server, which knows no VM.",
    )
    .remedy("Point the file to it.")
    .command(format!("ln -sf {RESOLVED} /etc/resolv.conf"))
}

fn tun(host: &Host) -> Finding {
    if host.exists(TUN) {
        return Finding::ok(TUN);
    }
    if !host.may_change_network() {
        return Finding::skipped(UNPRIVILEGED);
    }
    Finding::warning(
        format!("{TUN} is not there"),
        "VMs can have no network but the user-mode one.",
    )
    .remedy("Load its module.")
    .command("modprobe tun")
}

fn load_tun(host: &Host) -> Result<String, MendError> {
    host.load_module("tun")
}

/// Whether the kernel has it, as a module that is loaded or can be, or built in.
fn has_module(host: &Host, name: &str) -> bool {
    if host.exists(&format!("/sys/module/{name}")) {
        return true;
    }
    let release = host.word("/proc/sys/kernel/osrelease").unwrap_or_default();
    let file = format!("/{name}.ko");
    ["modules.builtin", "modules.dep"].iter().any(|list| {
        let listed = host.read(&format!("/lib/modules/{release}/{list}"));
        listed.is_ok_and(|text| {
            text.lines().any(|line| {
                line.split(':')
                    .next()
                    .is_some_and(|path| path.contains(&file))
            })
        })
    })
}

fn nftables(host: &Host) -> Finding {
    if !host.may_change_network() {
        return Finding::skipped(UNPRIVILEGED);
    }
    let cause =
        "VMs' networks cannot be translated and kept apart; the user-mode network works without.";
    if !has_module(host, "nf_tables") {
        return Finding::warning("the kernel has no nf_tables", cause)
            .remedy("Use a kernel with CONFIG_NF_TABLES.")
            .command("modprobe nf_tables");
    }
    match host.program("nft") {
        Some(program) => Finding::ok(program.display().to_string()),
        None => Finding::warning(
            "the kernel has nf_tables, and `nft` is not installed",
            cause,
        )
        .remedy("Install it.")
        .command("apt-get install nftables"),
    }
}

fn forwarding(host: &Host) -> Finding {
    if !host.may_change_network() {
        return Finding::skipped(UNPRIVILEGED);
    }
    match host.number(FORWARDING) {
        None => Finding::skipped(format!("{FORWARDING} is not there")),
        Some(0) => Finding::warning(
            "net.ipv4.ip_forward=0",
            "What VMs send by taps does not leave the host; the user-mode network works without.",
        )
        .remedy("Turn it on where such networks are wanted. The doctor does not, because it makes the host a router.")
        .command("sysctl -w net.ipv4.ip_forward=1"),
        Some(_) => Finding::ok("net.ipv4.ip_forward=1"),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    const PRIVILEGED: (&str, &str) = ("/proc/self/status", "CapEff:\t000001ffffffffff\n");

    #[test]
    fn name_servers_are_those_with_an_address() {
        let look = |text: &str| {
            let (_dir, host) = laid_out::host(&[("/etc/resolv.conf", text)]);
            dns_servers(&host)
        };
        assert_eq!(
            look("search x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n"),
            Finding::ok("10.0.0.1, fe80::1%eth0")
        );
        assert_eq!(
            look("# nameserver 10.0.0.1\nnameserver x\n").verdict,
            Verdict::Warning
        );
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(dns_servers(&host).verdict, Verdict::Warning);
    }

    #[test]
    fn names_are_routed_where_resolved_is_asked() {
        let stub = (RESOLVED, "nameserver 127.0.0.53\n");
        let (dir, host) = laid_out::host(&[PRIVILEGED]);
        assert!(dns_routing(&host).command.contains("systemd-resolved"));
        laid_out::write(dir.path(), stub.0, stub.1);
        laid_out::write(dir.path(), "/etc/resolv.conf", "nameserver 10.0.0.1\n");
        assert!(dns_routing(&host).command.starts_with("ln -sf"));
        laid_out::write(dir.path(), "/etc/resolv.conf", stub.1);
        assert_eq!(dns_routing(&host).verdict, Verdict::Ok);
    }

    #[test]
    fn a_tap_device_is_there_or_its_module_is_loaded() {
        let (dir, host) = laid_out::host(&[PRIVILEGED]);
        assert_eq!(tun(&host).command, "modprobe tun");
        let device = dir.path().join("dev/net");
        let script = format!("mkdir -p {0} && : > {0}/tun", device.display());
        laid_out::program(dir.path(), "modprobe", &script);
        assert_eq!(load_tun(&host).unwrap(), "loaded the kernel module tun");
        assert_eq!(tun(&host), Finding::ok(TUN));
    }

    #[test]
    fn rules_need_the_kernel_and_the_program() {
        let (dir, host) = laid_out::host(&[PRIVILEGED, ("/proc/sys/kernel/osrelease", "6.1\n")]);
        assert!(nftables(&host).found.contains("no nf_tables"));
        let dep = "kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko\n";
        laid_out::write(dir.path(), "/lib/modules/6.1/modules.dep", dep);
        assert!(nftables(&host).command.contains("install nftables"));
        laid_out::program(dir.path(), "nft", "");
        assert_eq!(nftables(&host).verdict, Verdict::Ok);
    }

    #[test]
    fn a_host_that_does_not_forward_is_a_warning() {
        let (dir, host) = laid_out::host(&[PRIVILEGED, (FORWARDING, "0\n")]);
        assert_eq!(forwarding(&host).verdict, Verdict::Warning);
        laid_out::write(dir.path(), FORWARDING, "1\n");
        assert_eq!(forwarding(&host).verdict, Verdict::Ok);
    }

    #[test]
    fn an_ordinary_users_daemon_is_not_asked_for_what_it_could_not_use() {
        let (_dir, host) = laid_out::host(&[("/proc/self/status", "CapEff:\t0000000000000000\n")]);
        for check in [dns_routing, tun, nftables, forwarding] {
            assert_eq!(check(&host), Finding::skipped(UNPRIVILEGED));
        }
    }
}
