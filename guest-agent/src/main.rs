//! The agent's binary: process 1 of a guest, or, for tests, an ordinary process that serves sessions on
//! a unix socket: `banger-agent --listen-unix PATH`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::process::ExitCode;
use std::sync::Arc;

use banger_agent::agent::{Agent, Boot, Machine, Options};
use banger_agent::boot::{self, Kernel, console};
use banger_agent::reap::Reaping;
use banger_agent::serve::serve;
use banger_agent::{port, power, sys};
use rustix::process::{Resource, Rlimit, getpid, setrlimit};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Open files: ours, three for each session; and what processes start with.
const FILES: Rlimit = Rlimit {
    current: Some(65_536),
    maximum: Some(1_048_576),
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.get(1).map(String::as_str) {
        _ if getpid().is_init() => guest(),
        Some("--listen-unix") if arguments.len() == 3 => foreign(&arguments[2]),
        _ => {
            eprintln!("usage: banger-agent --listen-unix PATH");
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
    sys::keep_large_buffers();
    // A guest without the limit works all the same.
    let _ = setrlimit(Resource::Nofile, FILES);
    let agent = Agent::booting(&Options {
        root: "/".into(),
        cgroups: Some("/sys/fs/cgroup".into()),
        reaping: Reaping::All,
        machine: Machine::Owned,
    });
    let (found, kernel) = oneshot::channel();
    let booting = Arc::clone(&agent);
    let boot = std::thread::Builder::new().name("boot".into());
    boot.spawn(move || booting.booted(boot_in_thread(found)))?;
    runtime()?.block_on(run(&agent, kernel));
    Ok(())
}

/// A boot that panics is one that failed.
fn boot_in_thread(found: oneshot::Sender<Arc<Kernel>>) -> Boot {
    let ready = |kernel: Arc<Kernel>| {
        // The runtime waits for it for ever.
        let _ = found.send(kernel);
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| boot::run(ready))).unwrap_or_else(
        |_| Boot {
            failure: Some("the agent's boot panicked".into()),
            ..Boot::default()
        },
    )
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
        () = serve_port(agent, kernel) => {}
        result = agent.reap() => eprintln!("banger-agent: cannot reap: {result:?}"),
        () = power::run(agent) => {}
        () = rescue => {}
    }
}

async fn serve_port(agent: &Arc<Agent>, kernel: oneshot::Receiver<Arc<Kernel>>) {
    let Ok(kernel) = kernel.await else {
        return std::future::pending().await; // Nothing is mounted: the boot has told why.
    };
    let found = tokio::task::spawn_blocking(move || boot::find_port(&kernel)).await;
    match found.map_err(io::Error::other).flatten() {
        Ok(port) => port::run(agent, port).await,
        Err(error) => {
            eprintln!("banger-agent: no channel to the host: {error}");
            std::future::pending::<()>().await;
        }
    }
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
