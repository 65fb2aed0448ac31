//! The agent's binary: process 1 of a guest, or beside it, or, for tests, an ordinary process that serves sessions on
//! a unix socket: `banger-agent --listen-unix PATH`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::process::ExitCode;
use std::sync::Arc;

use banger_agent::agent::{Agent, Boot, Machine, Options, kernel_text};
use banger_agent::boot::{self, Begun, Kernel, console};
use banger_agent::init::{Init, Wanted, guard, starter};
use banger_agent::reap::Reaping;
use banger_agent::serve::serve;
use banger_agent::vmm::{Transport, Wishes};
use banger_agent::{port, power, sys, vsock};
use rustix::process::{Resource, Rlimit, getpid, setrlimit};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Open files: ours, three for each session; and what processes start with.
const FILES: Rlimit = Rlimit {
    current: Some(65_536),
    maximum: Some(1_048_576),
};

/// What the kernel's want of memory is to leave alive, as it does process 1 by itself.
const NEVER_OF_MEMORY: &str = "-1000";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.get(1).map(String::as_str) {
        _ if getpid().is_init() => guest(),
        Some(starter::ARGUMENT) if arguments.len() == 2 => beside_init(),
        Some(guard::ARGUMENT) if arguments.len() == 2 => guard::run(),
        Some("--listen-unix") if arguments.len() == 3 => foreign(&arguments[2]),
        Some("--version") => {
            println!("banger-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => {
            eprintln!("usage: banger-agent --version | --listen-unix PATH");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("banger-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Process 1. Returns only when nothing works at all, whereupon the kernel panics, with our last words on
/// the console.
fn guest() -> io::Result<()> {
    // A guest without the limit works all the same.
    let _ = setrlimit(Resource::Nofile, FILES);
    let begun = boot::begin();
    match Wanted::on(&kernel_text("/proc/cmdline")) {
        None => agent(begun, None),
        Some(_) => starter::run(begun.kernel()?),
    }
}

/// The agent beside an image's init, started by process 1.
fn beside_init() -> io::Result<()> {
    let socket = starter::socket()?;
    let begun = boot::begin();
    // A guest without it works until it is short of memory.
    let _ = std::fs::write("/proc/self/oom_score_adj", NEVER_OF_MEMORY);
    let wanted = Wanted::on(&kernel_text("/proc/cmdline")).unwrap_or(Wanted::Any);
    agent(begun, Some(Arc::new(Init::new(wanted, socket))))
}

/// The agent of a guest, until the end.
fn agent(begun: Begun, init: Option<Arc<Init>>) -> io::Result<()> {
    sys::keep_large_buffers();
    let cgroups = match init {
        None => "/sys/fs/cgroup",
        Some(_) => banger_agent::init::CGROUPS,
    };
    let agent = Agent::booting(&Options {
        root: "/".into(),
        cgroups: Some(cgroups.into()),
        reaping: Reaping::All,
        machine: Machine::Owned,
        init,
    });
    let (found, kernel) = oneshot::channel();
    let booting = Arc::clone(&agent);
    let boot = std::thread::Builder::new().name("boot".into());
    boot.spawn(move || {
        let boot = boot_in_thread(begun, booting.init.as_deref(), found);
        if let Some(mounted) = boot::mounted() {
            booting.sessions.spill_to(mounted.upper);
        }
        booting.booted(boot);
    })?;
    runtime()?.block_on(run(&agent, kernel));
    Ok(())
}

/// A boot that panics is one that failed.
fn boot_in_thread(begun: Begun, init: Option<&Init>, found: oneshot::Sender<Arc<Kernel>>) -> Boot {
    let ready = |kernel: Arc<Kernel>| {
        // The runtime waits for it for ever.
        let _ = found.send(kernel);
    };
    let work = std::panic::AssertUnwindSafe(|| begun.run(init, ready));
    std::panic::catch_unwind(work).unwrap_or_else(|_| Boot {
        failure: Some("the agent's boot panicked".into()),
        ..Boot::default()
    })
}

async fn run(agent: &Arc<Agent>, kernel: oneshot::Receiver<Arc<Kernel>>) {
    let rescue = async {
        // The command line is read from /proc, which the boot mounts.
        agent.boot().await;
        if let Some(command) = console::command() {
            console::run(agent, command).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // None ends but the power-off, and that only if the kernel refuses it.
        () = serve_host(agent, kernel) => {}
        result = agent.reap() => eprintln!("banger-agent: cannot reap: {result:?}"),
        () = power::run(agent) => {}
        () = rescue => {}
    }
}

async fn serve_host(agent: &Arc<Agent>, kernel: oneshot::Receiver<Arc<Kernel>>) {
    let Ok(kernel) = kernel.await else {
        return std::future::pending().await; // Nothing is mounted: the boot has told why.
    };
    let served = match Wishes::read().transport {
        Transport::Port => serve_port(agent, kernel).await,
        Transport::Vsock => serve_vsock(agent, kernel).await,
    };
    if let Err(error) = served {
        eprintln!("banger-agent: no channel to the host: {error}");
    }
    std::future::pending::<()>().await;
}

async fn serve_port(agent: &Arc<Agent>, kernel: Arc<Kernel>) -> io::Result<()> {
    let port = tokio::task::spawn_blocking(move || boot::find_port(&kernel)).await??;
    port::run(agent, port).await;
    Ok(())
}

async fn serve_vsock(agent: &Arc<Agent>, kernel: Arc<Kernel>) -> io::Result<()> {
    tokio::task::spawn_blocking(move || boot::wait_for_vsock(&kernel)).await??;
    vsock::run(agent).await;
    Ok(())
}

/// An ordinary process, for tests.
fn foreign(path: &str) -> io::Result<()> {
    let listener = StdListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let agent_options = Options {
        root: "/".into(),
        cgroups: None,
        reaping: Reaping::Own,
        machine: Machine::Foreign,
        init: None,
    };
    runtime()?.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        let agent = Agent::new(&agent_options);
        let reaping = Arc::clone(&agent);
        agent.tasks.spawn(async move { reaping.reap().await });
        loop {
            let (stream, _) = listener.accept().await?;
            let serving = Arc::clone(&agent);
            agent.tasks.spawn(async move {
                if let Err(error) = serve(&serving, stream).await {
                    eprintln!("banger-agent: a connection failed: {error}");
                }
            });
        }
    })
}
