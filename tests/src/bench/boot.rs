//! From the start of `banger run` to the first byte of the command's output, beside a bare QEMU that boots the same
//! kernel, initramfs and disks to the same output.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger_e2e::scratch::MARK;

use crate::bare::{Bare, Change, copy_sparse};
use crate::stand::Stand;
use crate::table::{Figures, Table};

const ROUNDS: usize = 11;
/// What the command prints.
const MARKER: &str = "first-output";

/// A command line to boot without banger, and the disk of a VM that has not run yet.
pub(crate) struct Model {
    bare: Bare,
    template: PathBuf,
}

impl Model {
    /// Of a VM of the small image, which is made for it.
    pub(crate) fn make(stand: &Stand) -> Self {
        let options = ["--memory", "512M", "--network", "none"];
        let words = ["vm", "create", &stand.reference, "--name", "model"]
            .into_iter()
            .chain(options);
        stand.daemon.banger(words).ok();
        let bare = Bare::of(&stand.daemon, "model");
        stand.daemon.banger(["vm", "stop", "model"]).ok();
        let template = stand.scratch.path().join("template.ext4");
        // A disk as a new VM has it: the agent makes the directories that it needs.
        let fresh = stand
            .daemon
            .banger(["vm", "inspect", "model", "--output", "json"])
            .ok()
            .json();
        let size = fresh["disk_mib"].as_u64().unwrap();
        std::fs::File::create(&template)
            .unwrap()
            .set_len(size << 20)
            .unwrap();
        let features = [
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            "^resize_inode",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
        ];
        banger_e2e::Run::new("/usr/sbin/mkfs.ext4")
            .args(features)
            .arg(&template)
            .ok();
        Self { bare, template }
    }

    /// Boots it with a disk of its own, to the first output of a command; the time from its start.
    pub(crate) fn boot(&self, stand: &Stand, number: usize) -> Duration {
        let path = |end: &str| stand.scratch.path().join(format!("bare-{number}.{end}"));
        copy_sparse(&self.template, &path("ext4"));
        let change = Change {
            socket: path("sock"),
            upper: path("ext4"),
            initramfs: None,
        };
        let begin = Instant::now();
        let words = format!("banger.console_exec=/bin/echo,{MARKER}");
        let mut child = self.bare.start(&stand.scratch, &words, &change);
        let took = first_output(&mut child, begin);
        child.wait().unwrap();
        took
    }

    pub(crate) fn remove(self, stand: &Stand) {
        stand.daemon.banger(["vm", "remove", "model"]).ok();
    }
}

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let model = Model::make(stand);
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for round in 0..=ROUNDS {
        let (run, boot) = (run(stand), model.boot(stand, 0));
        if round > 0 {
            ours.add_ms(run);
            theirs.add_ms(boot);
        }
    }
    model.remove(stand);
    let ratio = format!("{:.2} ×", ours.median() / theirs.median());
    table.line(
        "create to first output, image cached",
        ours.text("ms"),
        format!("bare QEMU {}", theirs.text("ms")),
        ratio,
    );
}

fn run(stand: &Stand) -> Duration {
    let mut command = Command::new(&stand.binaries.banger);
    command.args([
        "run",
        "--network",
        "none",
        &stand.reference,
        "--",
        "/bin/echo",
        MARKER,
    ]);
    command
        .env("BANGER_HOST", stand.daemon.host())
        .env(MARK, stand.scratch.mark());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let took = first_output(&mut child, begin);
    assert!(child.wait().unwrap().success());
    took
}

/// When the marker came; the process is then left to end by itself.
fn first_output(child: &mut Child, begin: Instant) -> Duration {
    let mut output = child.stdout.take().unwrap();
    let (mut seen, mut chunk, mut took) = (Vec::new(), [0; 4096], None);
    while let Ok(count @ 1..) = output.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..count]);
        if took.is_none() && String::from_utf8_lossy(&seen).contains(MARKER) {
            took = Some(begin.elapsed());
        }
    }
    took.unwrap_or_else(|| {
        panic!(
            "the marker did not come: {}",
            String::from_utf8_lossy(&seen)
        )
    })
}
