//! Powering off by way of the image's init, so that its services end in their order.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;

use super::Init;
use crate::reap::Reaper;
use crate::sys::{self, Launch, launch};
use crate::vmm::{PowerOff, Wishes};
use crate::vsock;

/// systemd(1): signals from the C library's SIGRTMIN on start targets, of which these are two.
const SYSTEMD_POWEROFF: i32 = 34 + 4;
const SYSTEMD_REBOOT: i32 = 34 + 5;
/// busybox's init: powers off, and resets.
const BUSYBOX_POWEROFF: i32 = libc::SIGUSR2;
const BUSYBOX_REBOOT: i32 = libc::SIGTERM;
/// Process 1.
const PROCESS_ONE: i32 = 1;
/// Where an image's own programs are.
const DIRECTORIES: [&str; 4] = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"];

/// How an init is asked.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Signal(i32),
    Program(&'static [&'static str]),
}

/// By the name of its program. A machine that ends by a reset is reset by its init too.
fn way(program: &str, end: PowerOff) -> Way {
    match (program, end) {
        ("systemd", PowerOff::Kernel) => Way::Signal(SYSTEMD_POWEROFF),
        ("systemd", PowerOff::Reset) => Way::Signal(SYSTEMD_REBOOT),
        ("busybox", PowerOff::Kernel) => Way::Signal(BUSYBOX_POWEROFF),
        ("busybox", PowerOff::Reset) => Way::Signal(BUSYBOX_REBOOT),
        ("openrc-init", PowerOff::Kernel) => {
            Way::Program(&["openrc-shutdown", "--poweroff", "now"])
        }
        ("openrc-init", PowerOff::Reset) => Way::Program(&["openrc-shutdown", "--reboot", "now"]),
        (_, PowerOff::Kernel) => Way::Program(&["poweroff"]),
        (_, PowerOff::Reset) => Way::Program(&["reboot"]),
    }
}

impl Init {
    /// Asks the init to power off, and gives it its time. Returns only if it did not, or could not be asked.
    pub(crate) async fn power_off(&self, reaper: &Reaper) {
        let patience = self.patience();
        if !self.is_started() || patience.is_zero() {
            return;
        }
        match ask(reaper) {
            Ok(()) => {
                tokio::time::sleep(patience).await;
                eprintln!("banger-agent: the image's init did not power off within {patience:?}");
            }
            Err(error) => {
                eprintln!("banger-agent: the image's init cannot be asked to power off: {error}");
            }
        }
    }
}

fn ask(reaper: &Reaper) -> io::Result<()> {
    let program = fs::read_link("/proc/1/exe")?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let end = Wishes::read().power_off;
    if end == PowerOff::Reset {
        vsock::say_farewell();
    }
    match way(&name, end) {
        Way::Signal(signal) => sys::kill(PROCESS_ONE, signal),
        Way::Program(words) => run(reaper, words),
    }
}

/// Starts one of the image's programs. How it ends says nothing: the init powers off, or does not.
fn run(reaper: &Reaper, words: &[&str]) -> io::Result<()> {
    let word = |text: String| CString::new(text).map_err(io::Error::from);
    let paths = DIRECTORIES.map(|directory| word(format!("{directory}/{}", words[0])));
    let candidates = paths.into_iter().collect::<io::Result<Vec<_>>>()?;
    let arguments = words.iter().map(|text| word((*text).to_owned()));
    let arguments = arguments.collect::<io::Result<Vec<_>>>()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let started = reaper.start(|| {
        launch(&Launch {
            candidates: &candidates,
            arguments: &arguments,
            environment: &[],
            working_dir: c"/",
            identity: None,
            stdio: [null.as_fd(); 3],
            controls_terminal: false,
            cgroup: None,
            umask: 0o022,
            limits: &[],
        })
    });
    started.map(drop).map_err(|error| error.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_init_is_asked_in_its_own_way() {
        let off = |program| way(program, PowerOff::Kernel);
        assert_eq!(off("systemd"), Way::Signal(38));
        assert_eq!(off("busybox"), Way::Signal(libc::SIGUSR2));
        assert_eq!(off("openrc-init").program(), Some("openrc-shutdown"));
        assert_eq!(off("s6-svscan").program(), Some("poweroff"));
        let reset = |program| way(program, PowerOff::Reset);
        assert_eq!(reset("systemd"), Way::Signal(39));
        assert_eq!(reset("busybox"), Way::Signal(libc::SIGTERM));
        assert_eq!(reset("s6-svscan").program(), Some("reboot"));
    }

    impl Way {
        fn program(&self) -> Option<&'static str> {
            match self {
                Self::Signal(_) => None,
                Self::Program(words) => Some(words[0]),
            }
        }
    }
}
