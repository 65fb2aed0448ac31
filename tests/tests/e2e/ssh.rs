//! ssh, scp and sftp into real VMs whose image has no sshd, by the configuration that `banger ssh-config` prints: what
//! docs/ssh.md shows.

use std::path::{Path, PathBuf};

use banger_e2e::{Case, Lane, Run, Verdict, image};

use crate::suite::Suite;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "ssh_and_its_copies_reach_a_vm_by_the_printed_configuration",
            lane: Lane::Shared,
            test: clients,
        },
        Case {
            name: "ssh_knows_a_vm_that_was_made_again_and_says_why_one_is_off",
            lane: Lane::Shared,
            test: lives,
        },
    ]
}

/// The clients and what they are told.
struct Ssh<'a> {
    suite: &'a Suite,
    vm: &'static str,
    config: PathBuf,
}

/// A VM that has a key, and the clients for it; none without OpenSSH.
fn begin<'a>(suite: &'a Suite, vm: &'static str) -> Option<Ssh<'a>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path);
    if !places.any(|place| place.join("ssh").exists()) {
        return None;
    }
    let ssh = Ssh {
        suite,
        vm,
        config: suite.scratch.path().join(format!("ssh-{vm}")),
    };
    let key = ssh.config.with_extension("key");
    Run::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .ok();
    ssh.create();
    let printed = suite
        .banger(["ssh-config", "--identity"])
        .arg(&key)
        .ok()
        .out();
    std::fs::write(&ssh.config, printed).unwrap();
    Some(ssh)
}

impl Ssh<'_> {
    fn create(&self) {
        self.suite
            .banger(["vm", "create", &self.suite.reference(), "--name", self.vm])
            .args(["--memory", "256M", "--ssh-key"])
            .arg(self.config.with_extension("key.pub"))
            .ok();
    }

    /// One of the clients, which asks nobody anything.
    fn client(&self, program: &str) -> Run {
        Run::new(program)
            .arg("-F")
            .arg(&self.config)
            .args(["-o", "BatchMode=yes"])
    }

    fn ssh(&self, words: &[&str]) -> Run {
        let host = format!("{}.vm", self.vm);
        self.client("ssh").arg(host).args(words)
    }
}

fn clients(suite: &Suite) -> Verdict {
    let Some(ssh) = begin(suite, "keyed") else {
        return Verdict::Skipped("openssh-client is not installed".into());
    };
    assert_eq!(
        ssh.ssh(&["hostname; id -un; pwd"]).ok().out(),
        "keyed\nroot\n/root"
    );
    assert_eq!(ssh.ssh(&["exit 42"]).done().code(), 42);
    let sent = vec![b'x'; 3 << 20];
    assert_eq!(
        ssh.ssh(&["wc -c"]).stdin(sent.clone()).ok().out(),
        "3145728"
    );
    let tree = suite.scratch.path().join("ssh-tree");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    std::fs::write(tree.join("deep/file"), &sent).unwrap();
    ssh.client("scp")
        .args(["-q", "-r"])
        .arg(&tree)
        .arg("keyed.vm:work")
        .ok();
    let back = tree.join("back");
    let batch = format!(
        "cd work/deep\nls -l\nget file {}\nrename file moved\n",
        back.display()
    );
    let said = ssh
        .client("sftp")
        .args(["-q", "-b", "-", "app@keyed.vm"])
        .stdin("pwd\n")
        .ok()
        .out();
    assert!(said.contains("Remote working directory: /"), "{said}");
    let listed = ssh
        .client("sftp")
        .args(["-q", "-b", "-", "keyed.vm"])
        .stdin(batch)
        .ok()
        .out();
    assert!(listed.contains("3145728"), "{listed}");
    assert_eq!(std::fs::read(back).unwrap(), sent);
    assert_eq!(ssh.ssh(&["ls", "work/deep"]).ok().out(), "moved");
    copiers(&ssh, &tree);
    suite.banger(["vm", "remove", "keyed"]).ok();
    Verdict::Passed
}

/// Those that need a program of their own in the guest: rsync, and scp as it was before it spoke sftp.
fn copiers(ssh: &Ssh<'_>, tree: &Path) {
    let programs = image::host_programs(
        &ssh.suite.scratch.path().join("ssh-programs"),
        &["/usr/bin/rsync", "/usr/bin/scp"],
    );
    ssh.suite
        .banger(["cp", "-r"])
        .arg(format!("{}/.", programs.display()))
        .arg("keyed:/")
        .ok();
    let sent = std::fs::read(tree.join("deep/file")).unwrap();
    let shell = format!("ssh -F {} -o BatchMode=yes", ssh.config.display());
    let rsync = || Run::new("rsync").args(["-a", "-e", &shell]);
    let tree = format!("{}/", tree.display());
    rsync().args([&tree, "keyed.vm:synced/"]).ok();
    ssh.ssh(&["printf y >> synced/deep/file"]).ok();
    let back = ssh.suite.scratch.path().join("ssh-back");
    let told = rsync()
        .args(["--stats", "keyed.vm:synced/"])
        .arg(&back)
        .ok();
    assert!(told.out().contains("Number of files"), "{}", told.out());
    let changed = [&sent[..], b"y"].concat();
    assert_eq!(std::fs::read(back.join("deep/file")).unwrap(), changed);
    let again = rsync()
        .args(["--stats", "--checksum", "keyed.vm:synced/"])
        .arg(&back)
        .ok()
        .out();
    assert!(
        again.contains("Number of regular files transferred: 0"),
        "{again}"
    );
    let old = back.join("old");
    ssh.client("scp")
        .args(["-O", "-q", "keyed.vm:synced/deep/file"])
        .arg(&old)
        .ok();
    assert_eq!(std::fs::read(old).unwrap(), changed);
}

fn lives(suite: &Suite) -> Verdict {
    let Some(ssh) = begin(suite, "again") else {
        return Verdict::Skipped("openssh-client is not installed".into());
    };
    let key = || suite.banger(["ssh-host-key", "again.vm"]).ok().out();
    let first = key();
    assert!(first.starts_with("again.vm ssh-ed25519 "), "{first}");
    suite.banger(["vm", "stop", "again"]).ok();
    let off = ssh.ssh(&["true"]).done();
    assert_eq!(off.code(), 255);
    assert!(off.err().contains("VM `again` is stopped"), "{}", off.err());
    assert_eq!(key(), first);
    suite.banger(["vm", "remove", "again"]).ok();
    ssh.create();
    assert_ne!(key(), first);
    assert_eq!(ssh.ssh(&["echo", "hi"]).ok().out(), "hi");
    suite.banger(["vm", "remove", "again"]).ok();
    Verdict::Passed
}
