//! Files into a VM and out of it, beside the raw channel and beside OpenSSH's scp over the VM's user network.
//!
//! The VM of the comparison is Debian with an sshd, which dials out to scp for want of an address of its own. With
//! `BENCH_FILES_SMALL=0` the small files are left out, which scp takes a quarter of an hour for.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_e2e::Run;
use banger_sdk::{PackedTree, Source, Unpack};

use crate::channel::RawGuest;
use crate::stand::{Stand, block};
use crate::table::{Figures, Table};

const VM: &str = "files";
/// The large file.
const LARGE_BYTES: usize = 1 << 30;
/// What the raw channel and scp carry: rates do not depend on it; the one's guest has less memory, the other is slow.
const BESIDE_BYTES: usize = 256 << 20;
/// The small files.
const SMALL_COUNT: usize = 10_000;
const SMALL_BYTES: usize = 1024;
/// Rounds, in turns.
const ROUNDS: usize = 3;
/// How long scp of all the small files may take.
const SCP_PATIENCE: Duration = Duration::from_secs(900);

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let scp = Scp::prepare(stand);
    let mut raw = RawGuest::boot(stand, "files", "");
    raw.greet();
    let directory = stand.scratch.dir("files");
    large(stand, table, &scp, &mut raw, &directory);
    if std::env::var_os("BENCH_FILES_SMALL").is_none_or(|value| value != "0") {
        small(stand, table, &scp, &directory);
    }
}

fn large(stand: &Stand, table: &mut Table, scp: &Scp, raw: &mut RawGuest, directory: &Path) {
    let (source, target) = (directory.join("large"), directory.join("large-back"));
    fs::write(&source, vec![b'x'; LARGE_BYTES]).unwrap();
    let part = directory.join("part");
    fs::write(&part, vec![b'x'; BESIDE_BYTES]).unwrap();
    let rate = |bytes: usize, took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    let mut up: [Figures; 3] = Default::default();
    let mut down: [Figures; 3] = Default::default();
    let mut kept = Figures::default();
    for _ in 0..ROUNDS {
        let took = timed(|| {
            block(async {
                let files = stand.daemon.client().await.files(VM);
                let source = Source::from(&source);
                files.write("/mnt/large").from(source).await.unwrap();
            });
        });
        up[0].add(rate(LARGE_BYTES, took));
        let took = timed(|| {
            block(async {
                let files = stand.daemon.client().await.files(VM);
                let download = files.download("/mnt/large");
                let done = download.unpack(&target, Unpack::default()).await.unwrap();
                assert_eq!(done.bytes, LARGE_BYTES as u64);
            });
        });
        down[0].add(rate(LARGE_BYTES, took));
        fs::remove_file(&target).unwrap();
        scp.sh("rm -f /mnt/large");
        up[1].add(rate(BESIDE_BYTES, raw.keep(BESIDE_BYTES)));
        down[1].add(rate(BESIDE_BYTES, raw.give(BESIDE_BYTES, io::sink())));
        let file = File::create(&target).unwrap();
        kept.add(rate(BESIDE_BYTES, raw.give(BESIDE_BYTES, file)));
        fs::remove_file(&target).unwrap();
        let took = scp.copy(&[part.as_os_str(), "vm:/mnt/large".as_ref()]);
        up[2].add(rate(BESIDE_BYTES, took));
        let took = scp.copy(&["vm:/mnt/large".as_ref(), target.as_os_str()]);
        down[2].add(rate(BESIDE_BYTES, took));
        fs::remove_file(&target).unwrap();
        scp.sh("rm -f /mnt/large");
    }
    fs::remove_file(&source).unwrap();
    fs::remove_file(&part).unwrap();
    let into_file = (
        down[0].text("MB/s"),
        format!("raw channel, into a file of the host {}", kept.text("MB/s")),
        format!("{:.2} ×", down[0].median() / kept.median()),
    );
    for (what, [ours, channel, scp]) in [("a file of 1 GiB in", up), ("and out", down)] {
        let ratio = |beside: &Figures| format!("{:.2} ×", ours.median() / beside.median());
        let text = |name: &str, beside: &Figures| format!("{name} {}", beside.text("MB/s"));
        let of_channel = text("raw channel, to and from a file", &channel);
        table.line(what, ours.text("MB/s"), of_channel, ratio(&channel));
        let of_scp = text("scp", &scp);
        table.line("the same", ours.text("MB/s"), of_scp, ratio(&scp));
    }
    // What is received is written then, as a download is.
    let (ours, beside, ratio) = into_file;
    table.line("the file out", ours, beside, ratio);
}

fn small(stand: &Stand, table: &mut Table, scp: &Scp, directory: &Path) {
    let (source, target) = (directory.join("small"), directory.join("small-back"));
    for number in 0..SMALL_COUNT {
        let inside = source.join(format!("{:02}", number % 100));
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join(format!("{number}")), vec![b'x'; SMALL_BYTES]).unwrap();
    }
    let mut up: [Figures; 2] = Default::default();
    let mut down: [Figures; 2] = Default::default();
    for _ in 0..ROUNDS {
        let took = timed(|| {
            block(async {
                let files = stand.daemon.client().await.files(VM);
                let tree = PackedTree::content_of(&source);
                files.upload(tree, "/mnt/small").await.unwrap();
            });
        });
        up[0].add_ms(took);
        let took = timed(|| {
            block(async {
                let files = stand.daemon.client().await.files(VM);
                let download = files.download("/mnt/small");
                let done = download.unpack(&target, Unpack::default()).await.unwrap();
                assert!(done.entries > SMALL_COUNT as u64, "{done:?}");
            });
        });
        down[0].add_ms(took);
        fs::remove_dir_all(&target).unwrap();
        scp.sh("rm -rf /mnt/small");
    }
    // Minutes each way: once.
    let recursive = "-r".as_ref();
    let took = scp.copy(&[recursive, source.as_os_str(), "vm:/mnt/small".as_ref()]);
    up[1].add_ms(took);
    let took = scp.copy(&[recursive, "vm:/mnt/small".as_ref(), target.as_os_str()]);
    down[1].add_ms(took);
    fs::remove_dir_all(&target).unwrap();
    scp.sh("rm -rf /mnt/small");
    for (what, [ours, scp]) in [("10,000 files of 1 KiB in", up), ("and out", down)] {
        let ratio = format!("{:.1} × faster", scp.median() / ours.median());
        let beside = format!("scp -r {}", scp.text("ms"));
        table.line(what, ours.text("ms"), beside, ratio);
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// OpenSSH's scp into the VM.
struct Scp<'a> {
    stand: &'a Stand,
    key: PathBuf,
    port: u16,
}

impl<'a> Scp<'a> {
    fn prepare(stand: &'a Stand) -> Self {
        let banger = |words: &[&str]| stand.daemon.banger(words).ok();
        let packages = "--include=openssh-server";
        banger(&["image", "build", "--debian", "bookworm", packages, "ssh:1"]);
        let memory = ["--memory", "2G", "--network", "user"];
        let create = ["vm", "create", "ssh:1", "--name", VM];
        banger(&[&create[..], &memory[..]].concat());
        let key = stand.scratch.path().join("key");
        let keygen = Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        keygen.arg(&key).ok();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let this = Self { stand, key, port };
        let public = fs::read_to_string(this.key.with_extension("pub")).unwrap();
        this.sh(&format!(
            "mkdir -p /root/.ssh /run/sshd; echo '{}' > /root/.ssh/authorized_keys; \
             mount -t tmpfs -o size=1500m tmpfs /mnt",
            public.trim()
        ));
        this
    }

    fn sh(&self, script: &str) {
        let words = ["vm", "exec", VM, "--", "bash", "-c", script];
        self.stand.daemon.banger(words).timeout(SCP_PATIENCE).ok();
    }

    /// Runs scp, which waits for the VM's sshd to call; from its call on, it is timed.
    fn copy(&self, words: &[&std::ffi::OsStr]) -> Duration {
        // sshd fails when the connection ends, which is how scp ends it; whether it served, scp says.
        let dial = format!(
            "until exec 3<>/dev/tcp/10.0.2.2/{}; do sleep 0.05; done 2>/dev/null; /usr/sbin/sshd -i <&3 >&3 || :",
            self.port
        );
        let wait = format!("ProxyCommand=busybox nc -l -p {}", self.port);
        std::thread::scope(|scope| {
            scope.spawn(|| self.sh(&dial));
            let options = [
                "StrictHostKeyChecking=no",
                "UserKnownHostsFile=/dev/null",
                &wait,
            ];
            let options = options.iter().flat_map(|option| ["-o", option]);
            let scp = Run::new("scp").args(["-q", "-i"]).arg(&self.key);
            let scp = scp.args(options).args(words).timeout(SCP_PATIENCE);
            timed(|| drop(scp.ok()))
        })
    }
}
