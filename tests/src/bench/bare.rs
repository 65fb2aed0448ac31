//! QEMU without banger: the very command line that the driver gave it, less what only the driver can use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use banger_e2e::Daemon;
use banger_e2e::scratch::{MARK, Scratch};

/// A command line, taken from a VM that runs.
pub(crate) struct Bare {
    words: Vec<String>,
    /// The VM's directory, in which its upper disk is.
    pub(crate) directory: PathBuf,
}

impl Bare {
    /// The command line of this VM's VMM.
    pub(crate) fn of(daemon: &Daemon, vm: &str) -> Self {
        let id = id(daemon, vm);
        let words = words(&pid(daemon, vm));
        Self {
            words,
            directory: daemon.state.join("vms").join(id),
        }
    }

    /// The value of an option.
    pub(crate) fn value(&self, option: &str) -> &str {
        let at = self.words.iter().position(|word| word == option).unwrap();
        &self.words[at + 1]
    }

    /// Starts it with words added to the kernel's, another upper disk, and the console on its standard output.
    pub(crate) fn start(&self, scratch: &Scratch, kernel_words: &str, change: &Change) -> Child {
        let mut arguments = Vec::new();
        let mut words = self.words[1..].iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-S" => {}
                "-name" | "-mon" | "-initrd" | "-append" => {
                    let value = words.next().unwrap();
                    match word.as_str() {
                        "-initrd" => arguments.extend([
                            word.clone(),
                            change.initramfs.clone().unwrap_or_else(|| value.clone()),
                        ]),
                        "-append" => {
                            arguments.extend([word.clone(), format!("{value} {kernel_words}")]);
                        }
                        _ => {}
                    }
                }
                "-chardev" => {
                    let value = words.next().unwrap();
                    if value.contains("id=console") {
                        arguments.extend([word.clone(), "stdio,id=console,signal=off".into()]);
                    } else if value.contains("id=agent") {
                        let socket = format!(
                            "socket,id=agent,path={},server=on,wait=off",
                            change.socket.display()
                        );
                        arguments.extend([word.clone(), socket]);
                    }
                }
                _ => arguments.push(word.replace(self.upper(), &change.upper.to_string_lossy())),
            }
        }
        let mut command = Command::new(&self.words[0]);
        command
            .args(arguments)
            .env(MARK, scratch.mark())
            .current_dir(scratch.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command.spawn().unwrap()
    }

    /// The path of the upper disk as the command line has it.
    fn upper(&self) -> &str {
        let word = self
            .words
            .iter()
            .find(|word| word.contains("upper.ext4"))
            .unwrap();
        word.split('"')
            .find(|part| part.ends_with("upper.ext4"))
            .unwrap()
    }
}

/// What is other than in the VM.
pub(crate) struct Change {
    /// The agent channel's socket.
    pub(crate) socket: PathBuf,
    /// The upper disk.
    pub(crate) upper: PathBuf,
    /// Another initramfs.
    pub(crate) initramfs: Option<String>,
}

/// A copy that is as sparse as its source.
pub(crate) fn copy_sparse(from: &Path, to: &Path) {
    banger_e2e::Run::new("cp")
        .arg("--sparse=always")
        .arg(from)
        .arg(to)
        .ok();
}

fn id(daemon: &Daemon, vm: &str) -> String {
    daemon
        .banger(["vm", "inspect", vm, "--output", "json"])
        .ok()
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn words(pid: &str) -> Vec<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).into_owned();
    words
        .split('\0')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The process number of a VM's VMM.
pub(crate) fn pid(daemon: &Daemon, vm: &str) -> String {
    let id = id(daemon, vm);
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut pids = pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    let is_vmm = |pid: &String| {
        let words = words(pid);
        words
            .first()
            .is_some_and(|program| program.contains("qemu"))
            && words.iter().any(|word| word.contains(&id))
    };
    pids.find(is_vmm)
        .unwrap_or_else(|| panic!("the VM {vm} has no VMM"))
}
