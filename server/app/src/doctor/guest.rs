//! What guests boot from: the default kernel, the agent, the images.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use banger_core::doctor::Finding;
use banger_core::kernel::{FeatureState, Kernel};
use banger_core::{Digest, chain};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};

use super::Ward;
use super::check::Check;

/// A kernel's whole content is read.
const KERNEL_LIMIT: Duration = Duration::from_secs(30);
/// How long the agent has to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// How much of a file is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// The most names in one text.
const NAMES_MAX: usize = 5;

/// The offsets and values of an ELF header (elf(5)) that tell a program for this architecture.
mod elf {
    pub(super) const HEADER_BYTES: usize = 64;
    pub(super) const MAGIC: [u8; 5] = *b"\x7fELF\x02";
    pub(super) const MACHINE_AT: usize = 18;
    pub(super) const X86_64: u16 = 62;
    pub(super) const SEGMENTS_AT: usize = 32;
    pub(super) const SEGMENT_BYTES_AT: usize = 54;
    pub(super) const SEGMENT_COUNT_AT: usize = 56;
    /// The kind of the segment that names a loader.
    pub(super) const PT_INTERP: u32 = 3;
}

pub(super) const CHECKS: [Check; 4] = [
    Check::daemon(
        "DEFAULT_KERNEL",
        "There is a default kernel, and it is whole",
        default_kernel,
    )
    .within(KERNEL_LIMIT),
    Check::daemon(
        "AGENT_PRESENT",
        "The guest agent is there and static",
        agent_present,
    ),
    Check::daemon(
        "AGENT_VERSION",
        "The guest agent is of the daemon's version",
        agent_version,
    ),
    Check::daemon(
        "IMAGES_PRESENT",
        "There is an image, and every image has its base disk",
        images,
    ),
];

fn default_kernel(ward: &Ward) -> BoxFuture<'_, Finding> {
    async move {
        let kernel = match ward.kernels.default().await {
            Ok(Some(kernel)) => kernel,
            Ok(None) => {
                return Finding::problem(
                    "there is none",
                    "A VM starts only if it or its image names a kernel.",
                )
                .remedy("Get one of the distribution, of a catalog, or build a small one.")
                .command(
                    "banger kernel import --debian-package linux-image-cloud-amd64 --default",
                );
            }
            Err(error) => return Finding::problem("the records cannot be read", chain(&error)),
        };
        let vmlinux = ward.kernels.vmlinux(&kernel);
        let judged = ward
            .on_thread(move |_| judge_kernel(&kernel, &vmlinux))
            .await;
        judged
            .unwrap_or_else(|| Finding::problem("the check itself broke", "See the daemon's log."))
    }
    .boxed()
}

fn judge_kernel(kernel: &Kernel, vmlinux: &Path) -> Finding {
    let damaged = |found: String, cause: String| {
        Finding::problem(found, cause)
            .remedy("Import it again, in place of the one that is there.")
            .command(format!(
                "banger kernel import FILE --name {} --replace",
                kernel.name
            ))
    };
    match digest_of(vmlinux) {
        Err(error) => {
            return damaged(
                format!("`{}` has a record and no file", kernel.name),
                format!("{}: {error}", vmlinux.display()),
            );
        }
        Ok(digest) if digest != kernel.digest => {
            return damaged(
                format!("`{}` is not what was imported", kernel.name),
                format!(
                    "The content of {} has changed on the disk.",
                    vmlinux.display()
                ),
            );
        }
        Ok(_) => {}
    }
    let missing: Vec<&str> = kernel
        .inspection
        .features
        .iter()
        .filter(|feature| feature.required && feature.state == FeatureState::Missing)
        .map(|feature| feature.name.as_str())
        .collect();
    if missing.is_empty() {
        return Finding::ok(format!("`{}` {}", kernel.name, kernel.release).trim_end());
    }
    Finding::problem(
        format!("`{}` lacks {}", kernel.name, missing.join(", ")),
        "Guests do not work without.",
    )
    .remedy("Look at what it has, and use another.")
    .command(format!("banger kernel inspect {}", kernel.name))
}

fn digest_of(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Digest::from_sha256(sum.finalize().into())),
            length => sum.update(&piece[..length]),
        }
    }
}

fn agent_present(ward: &Ward) -> BoxFuture<'_, Finding> {
    let agent = ward.context.config.agent.clone();
    async move {
        let judged = ward.on_thread(move |_| judge_agent(&agent)).await;
        judged
            .unwrap_or_else(|| Finding::problem("the check itself broke", "See the daemon's log."))
    }
    .boxed()
}

fn judge_agent(agent: &Path) -> Finding {
    let wrong = |found: String, cause: &str| {
        Finding::problem(found, cause).remedy(
            "Put banger-agent beside bangerd, as the package and `make build` do, or name it in the configuration \
             (agent = \"/path/to/it\").",
        )
    };
    let header = match read_elf(agent) {
        Ok(header) => header,
        Err(error) => {
            return wrong(
                format!("{} cannot be read: {error}", agent.display()),
                "No VM can be started without the agent.",
            );
        }
    };
    match header {
        Elf::Static => Finding::ok(agent.display().to_string()),
        Elf::Dynamic => wrong(
            format!("{} needs a loader", agent.display()),
            "A guest has no libraries when the agent starts, so it must be linked statically.",
        ),
        Elf::Other => wrong(
            format!("{} is no program for x86-64", agent.display()),
            "A guest's kernel cannot start it.",
        ),
    }
}

/// What a file is to a kernel that should run it.
#[derive(Debug, PartialEq, Eq)]
enum Elf {
    Static,
    Dynamic,
    Other,
}

fn read_elf(path: &Path) -> std::io::Result<Elf> {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path)?;
    let mut header = [0; elf::HEADER_BYTES];
    if file.read_exact_at(&mut header, 0).is_err() {
        return Ok(Elf::Other);
    }
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if !header.starts_with(&elf::MAGIC) || short(elf::MACHINE_AT) != elf::X86_64 {
        return Ok(Elf::Other);
    }
    let mut start = [0; 8];
    start.copy_from_slice(&header[elf::SEGMENTS_AT..elf::SEGMENTS_AT + 8]);
    let start = u64::from_le_bytes(start);
    let size = u64::from(short(elf::SEGMENT_BYTES_AT));
    for index in 0..u64::from(short(elf::SEGMENT_COUNT_AT)) {
        let mut kind = [0; 4];
        let at = start.saturating_add(index * size);
        if file.read_exact_at(&mut kind, at).is_err() {
            return Ok(Elf::Other);
        }
        if u32::from_le_bytes(kind) == elf::PT_INTERP {
            return Ok(Elf::Dynamic);
        }
    }
    Ok(Elf::Static)
}

fn agent_version(ward: &Ward) -> BoxFuture<'_, Finding> {
    let agent = ward.context.config.agent.clone();
    async move {
        if !agent.is_file() {
            return Finding::skipped("the agent is not there");
        }
        judge_version(version_of(&agent).await, env!("CARGO_PKG_VERSION"))
    }
    .boxed()
}

/// What `agent --version` says: `banger-agent 0.1.0`.
async fn version_of(agent: &PathBuf) -> Result<String, String> {
    let output = tokio::process::Command::new(agent)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_LIMIT, output).await;
    let output = output
        .map_err(|_| format!("it did not tell within {VERSION_LIMIT:?}"))?
        .map_err(|error| format!("it cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(1);
    let version = version.filter(|_| output.status.success());
    version
        .map(|word| word.chars().take(32).collect())
        .ok_or_else(|| format!("asked for it, it ended with {}", output.status))
}

fn judge_version(told: Result<String, String>, own: &str) -> Finding {
    let remedy = "Install bangerd and banger-agent of the same release. VMs that run keep the agent they booted with.";
    match told {
        Ok(version) if version == own => Finding::ok(version),
        Ok(version) => Finding::warning(
            format!("the agent is {version}, the daemon {own}"),
            "Both speak to each other, and what only one of them can do does not work.",
        )
        .remedy(remedy),
        Err(why) => Finding::warning("the agent's version is not known", why).remedy(remedy),
    }
}

fn images(ward: &Ward) -> BoxFuture<'_, Finding> {
    async move {
        let images = match ward.context.store.all_images().await {
            Ok(images) => images,
            Err(error) => return Finding::problem("the records cannot be read", chain(&error)),
        };
        let disks: Vec<(String, PathBuf)> = images
            .iter()
            .map(|image| {
                let name = image.references.first().cloned();
                (
                    name.unwrap_or_else(|| image.id.to_string()),
                    ward.images.rootfs(image),
                )
            })
            .collect();
        let judged = ward.on_thread(move |_| judge_images(&disks)).await;
        judged
            .unwrap_or_else(|| Finding::problem("the check itself broke", "See the daemon's log."))
    }
    .boxed()
}

fn judge_images(disks: &[(String, PathBuf)]) -> Finding {
    if disks.is_empty() {
        return Finding::warning(
            "there is none",
            "The first VM waits until its image is pulled.",
        )
        .remedy("Pull one beforehand.")
        .command("banger image pull debian:bookworm");
    }
    let lost: Vec<&str> = disks
        .iter()
        .filter(|(_, disk)| !disk.is_file())
        .map(|(name, _)| name.as_str())
        .collect();
    let Some(first) = lost.first() else {
        return Finding::ok(format!("{} here", disks.len()));
    };
    let shown = lost[..lost.len().min(NAMES_MAX)].join(", ");
    Finding::problem(
        format!(
            "{} of {} have no base disk: {shown}",
            lost.len(),
            disks.len()
        ),
        "Their files were removed behind the daemon's back.",
    )
    .remedy("Remove each and pull it again.")
    .command(format!(
        "banger image remove {first} && banger image pull {first}"
    ))
}

#[cfg(test)]
mod tests {

    use banger_core::doctor::Verdict;
    use banger_core::kernel::{KernelFeature, KernelInspection};
    use banger_core::{KernelId, Timestamp};

    use super::*;

    fn kernel(content: &[u8]) -> Kernel {
        Kernel {
            id: KernelId::new(),
            name: "k".parse().unwrap(),
            release: "6.1".into(),
            digest: Digest::of(content),
            size_bytes: content.len() as u64,
            modules: Vec::new(),
            origin: String::new(),
            is_default: true,
            inspection: KernelInspection::default(),
            create_time: Timestamp::now(),
        }
    }

    #[test]
    fn a_kernel_is_whole_or_what_is_wrong_with_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        let mut wanted = kernel(b"kernel");
        assert!(
            judge_kernel(&wanted, &path)
                .found
                .ends_with("a record and no file")
        );
        std::fs::write(&path, b"kernel").unwrap();
        assert_eq!(judge_kernel(&wanted, &path), Finding::ok("`k` 6.1"));
        wanted.inspection.features.push(KernelFeature {
            name: "virtio-blk".into(),
            options: Vec::new(),
            state: FeatureState::Missing,
            required: true,
            purpose: String::new(),
        });
        assert_eq!(judge_kernel(&wanted, &path).found, "`k` lacks virtio-blk");
        std::fs::write(&path, b"kernfl").unwrap();
        let changed = judge_kernel(&wanted, &path);
        assert_eq!(changed.verdict, Verdict::Problem);
        assert!(changed.command.contains("--replace"));
    }

    /// The least that is a program, with one segment of this kind.
    fn program(segment: u8) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf.extend([segment, 0, 0, 0]);
        elf
    }

    #[test]
    fn an_agent_must_be_a_static_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("banger-agent");
        assert_eq!(judge_agent(&path).verdict, Verdict::Problem);
        for (content, verdict) in [
            (program(1), Verdict::Ok),
            (program(3), Verdict::Problem),
            (b"#!/bin/sh".to_vec(), Verdict::Problem),
            (program(1)[..64].to_vec(), Verdict::Problem),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(judge_agent(&path).verdict, verdict);
        }
    }

    #[tokio::test]
    async fn the_agents_version_is_asked_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("banger-agent");
        let told = async |script: &str| {
            // By another process: one that this one held open for writing while another test started a
            // program could not be run.
            let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
            let mut shell = std::process::Command::new("/bin/sh");
            shell.args(["-c", write, "sh", script]).arg(&path);
            assert!(shell.status().unwrap().success());
            version_of(&path).await
        };
        let same = told("echo banger-agent 0.1.0").await;
        assert_eq!(judge_version(same, "0.1.0"), Finding::ok("0.1.0"));
        let other = judge_version(told("echo banger-agent 0.0.9").await, "0.1.0");
        assert_eq!(other.found, "the agent is 0.0.9, the daemon 0.1.0");
        let silent = judge_version(told("exit 64").await, "0.1.0");
        assert_eq!(silent.verdict, Verdict::Warning);
        assert!(silent.cause.contains("64"));
    }

    #[test]
    fn images_without_their_disks_are_named() {
        assert_eq!(judge_images(&[]).verdict, Verdict::Warning);
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::write(&disk, "").unwrap();
        let here = ("here:1".to_owned(), disk);
        assert_eq!(
            judge_images(std::slice::from_ref(&here)),
            Finding::ok("1 here")
        );
        let gone = ("gone:1".to_owned(), dir.path().join("none"));
        let found = judge_images(&[here, gone]);
        assert_eq!(found.found, "1 of 2 have no base disk: gone:1");
        assert!(found.command.contains("image remove gone:1"));
    }
}
