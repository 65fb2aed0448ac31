//! `bangerd`: reads its configuration, takes its state directory, serves, and leaves VMs running.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use banger_core::chain;
use banger_guest::Connector;
use banger_vmm::{AutoDriver, FirecrackerDriver, QemuDriver};
use bangerd::args::Args;
use bangerd::config::{Config, ConfigError};
use bangerd::listen::Outside;
use bangerd::listen::activation::Sockets;
use bangerd::listen::tls::Tls;
use bangerd::shutdown::Signals;
use bangerd::{daemon, logging, memory};
use clap::Parser as _;
use tokio_util::sync::CancellationToken;

/// The exit code of a wrong configuration (sysexits.h: EX_USAGE).
const EXIT_USAGE: u8 = 64;
/// After the end, how long work that cannot be interrupted (a file being written) may hold the process.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    memory::give_back();
    // Before any thread: it changes the environment.
    let sockets = Sockets::take();
    let args = Args::parse();
    let config = match args.load_config() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if args.check_config {
        if config.tcp.has_tls()
            && let Err(error) = Tls::load(&config.tcp)
        {
            eprintln!("bangerd: {}", chain(&error));
            return ExitCode::from(EXIT_USAGE);
        }
        println!("the configuration is right");
        return ExitCode::SUCCESS;
    }
    logging::init(config.log_format, config.log_targets().unwrap_or_default());
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => return failed("could not start", &error),
    };
    let outside = Outside {
        sockets,
        reread: Some(args.reread()),
        ..Outside::default()
    };
    run(config, outside)
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("bangerd: {}", chain(error));
    ExitCode::from(EXIT_USAGE)
}

fn run(config: Config, outside: Outside) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("bangerd")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed("could not start the runtime", &error),
    };
    let code = runtime.block_on(serve(config, outside));
    runtime.shutdown_timeout(LEAVE_WITHIN);
    code
}

async fn serve(config: Config, outside: Outside) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed("could not take signals", &error),
    };
    let stop = CancellationToken::new();
    let driver = Arc::new(AutoDriver::new(
        config.driver,
        QemuDriver::new(config.qemu()),
        FirecrackerDriver::new(config.firecracker()),
    ));
    let connector = Arc::new(Connector::new(config.deadlines()));
    let ended = tokio::select! {
        // cancel-safe: dropped only when ending at once is what is asked for
        ended = daemon::run_with(config, driver, connector, outside, stop.clone()) => ended,
        () = signals.ask_then_insist(&stop) => return ExitCode::FAILURE,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("bangerd ended", &error),
    }
}

/// Both to the log and, for whoever started it by hand, to the eye.
fn failed(what: &str, error: &dyn std::error::Error) -> ExitCode {
    tracing::error!("{what}: {}", chain(error));
    ExitCode::FAILURE
}
