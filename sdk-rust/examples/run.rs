//! Makes a VM, runs a command in it, prints what it says, and throws the VM away.
//!
//! ```text
//! cargo run -p banger-sdk --example run -- debian:bookworm uname -a
//! ```
//! The daemon is the one that `BANGER_HOST` names, or this machine's. Ends with the command's exit code.

use std::io::Write;
use std::process::ExitCode;

use banger_sdk::types::exit::How;
use banger_sdk::{Client, Command, Event, Host, Result, chain, types};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(image) = arguments.next() else {
        eprintln!("usage: run IMAGE [COMMAND…]");
        return ExitCode::from(125);
    };
    match run(&image, arguments.collect()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            if let Some(remedy) = error.remedy() {
                eprintln!("remedy: {remedy}");
            }
            ExitCode::from(125)
        }
    }
}

async fn run(image: &str, command: Vec<String>) -> Result<u8> {
    let client = Client::connect(Host::from_env()?).await?;
    let vm = client
        .vms()
        .create(image)
        .ephemeral()
        .pull_if_missing()
        .progress(|operation| {
            let running = operation
                .stages
                .iter()
                .rfind(|stage| stage.end_time.is_none());
            if let Some(stage) = running {
                eprintln!("… {} {}", stage.name, stage.item);
            }
        })
        .await?;
    let result = exec(&client, &vm, Command::new(command)).await;
    client.vms().delete(&vm.id).await?;
    result
}

/// Runs `command` in `vm`, copies its output, and returns its exit code; 128 and the number for a signal.
async fn exec(client: &Client, vm: &types::Vm, command: Command) -> Result<u8> {
    let mut process = client.sessions().exec(&vm.id, command).await?;
    while let Some(event) = process.next().await? {
        match event {
            Event::Output(output) if output.stream() == types::Stream::Stderr => {
                let _ = std::io::stderr().write_all(&output.data);
            }
            Event::Output(output) => {
                let _ = std::io::stdout().write_all(&output.data);
            }
            Event::Gap(gap) => eprintln!("({} bytes of output were lost)", gap.lost_bytes),
            Event::Screen(_) => {}
            Event::Exited(exit) => {
                let code = match exit.how {
                    Some(How::Code(code)) => code,
                    Some(How::Signal(signal)) => 128 + signal,
                    _ => 125,
                };
                return Ok(u8::try_from(code).unwrap_or(125));
            }
        }
    }
    Ok(125)
}
