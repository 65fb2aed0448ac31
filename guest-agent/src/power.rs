//! Powers the machine off: processes first asked, then killed, disks flushed, then the power. An init of the image's
//! own is asked before all that, and most likely does it all.

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::mount::{MountFlags, mount_remount};
use rustix::system::{RebootCommand, reboot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::agent::Agent;
use crate::boot::mounted;
use crate::vmm::{PowerOff, Wishes};
use crate::{sys, vsock};

/// How long the answer to the request may take onto the channel, before it would be lost.
const ANSWER_WITHIN: Duration = Duration::from_millis(30);
/// How long processes have between being asked to end and being killed.
const ASKED_FOR: Duration = Duration::from_secs(2);
/// How long killed processes may take to go.
const KILLED_FOR: Duration = Duration::from_secs(2);
/// Every process but ourselves, as kill(2) says it.
const EVERYBODY: i32 = -1;

/// Powers off as soon as somebody asks, on the channel or by one of the signals that `poweroff` and its
/// like send to process 1, or the kernel on Ctrl+Alt+Del; beside an init those are that one's to hear. Returns only
/// if the kernel refuses.
pub async fn run(agent: &Agent) {
    // Ctrl+Alt+Del is a power button: from now on the kernel tells us instead of resetting at once.
    let _ = reboot(RebootCommand::CadOff);
    tokio::select! {
        // cancel-safe: both only wait
        () = agent.power_off.cancelled() => {}
        () = signalled(agent) => {}
    }
    tokio::time::sleep(ANSWER_WITHIN).await;
    agent.sessions.close_spills();
    if let Some(init) = &agent.init {
        init.power_off(&agent.reaper).await;
    }
    end_processes(agent).await;
    flush(agent);
    let command = match Wishes::read().power_off {
        PowerOff::Kernel => RebootCommand::PowerOff,
        PowerOff::Reset => {
            vsock::say_farewell();
            RebootCommand::Restart
        }
    };
    if let Err(error) = reboot(command) {
        eprintln!("banger-agent: the kernel does not power off: {error}");
    }
}

async fn signalled(agent: &Agent) {
    if agent.init.is_some() {
        return deaf().await;
    }
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    let signals = kinds.map(signal);
    let [
        Ok(mut interrupt),
        Ok(mut terminate),
        Ok(mut one),
        Ok(mut two),
    ] = signals
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        // cancel-safe: `recv` loses nothing that matters
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = one.recv() => {}
        _ = two.recv() => {}
    }
}

/// Hears what an init sends to everybody at its end, and goes on: it is for the init to power off.
async fn deaf() {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    // A handler that was set stays, whether or not anybody listens.
    let _handlers = kinds.map(signal);
    std::future::pending::<()>().await;
}

async fn end_processes(agent: &Agent) {
    for (signal, limit) in [(libc::SIGTERM, ASKED_FOR), (libc::SIGKILL, KILLED_FOR)] {
        // Stopped ones could not hear it.
        let sent = sys::kill(EVERYBODY, signal);
        let _ = sys::kill(EVERYBODY, libc::SIGCONT);
        if sent.is_err() {
            return; // Nobody is left.
        }
        agent.reaper.reap();
        if timeout(limit, agent.reaper.wait_childless()).await.is_ok() {
            return;
        }
    }
}

/// Writes everything to the disks and marks the writable ones as clean.
fn flush(agent: &Agent) {
    rustix::fs::sync();
    agent.volumes.settle();
    let read_only = |path: &str| {
        if let Err(error) = mount_remount(path, MountFlags::RDONLY, "") {
            eprintln!("banger-agent: {path} stays writable: {error}");
        }
    };
    if let Some(mounted) = mounted() {
        read_only("/");
        read_only(&format!("/proc/self/fd/{}", mounted.upper.as_raw_fd()));
    }
}
