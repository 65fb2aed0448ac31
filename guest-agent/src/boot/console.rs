//! `banger.console_exec=` on the kernel command line: runs one program with the console as its terminal
//! and powers off. A tool for rescue, and for measuring a bare VMM.
//!
//! Words are separated by commas and percent-encoded: `banger.console_exec=/bin/sh,-c,echo%20hello`.

use std::fs::File;
use std::os::fd::AsFd;

use super::cmdline;
use crate::agent::{Agent, kernel_text};
use crate::reap::Ending;
use crate::session::plan::{Defaults, Plan};
use crate::session::users::Users;
use crate::sys::{Launch, launch};

const KEY: &str = "banger.console_exec=";

/// The command on the kernel command line, if there is one.
#[must_use]
pub fn command() -> Option<Vec<String>> {
    parse(&kernel_text("/proc/cmdline"))
}

fn parse(line: &str) -> Option<Vec<String>> {
    let value = cmdline::value(line, KEY)?;
    Some(value.split(',').map(cmdline::decode).collect())
}

/// Runs `command` on the console, tells how it ended, and has the machine powered off.
pub async fn run(agent: &Agent, command: Vec<String>) {
    let boot = agent.boot().await;
    if boot.failure.is_none() {
        match start(agent, command) {
            Ok(ending) => match ending.await {
                Ok(Ending::Code(code)) => eprintln!("banger-agent: exit code {code}"),
                Ok(Ending::Signal(signal)) => eprintln!("banger-agent: ended by signal {signal}"),
                Err(_) => {} // The reaper outlives us.
            },
            Err(error) => eprintln!("banger-agent: {error}"),
        }
    }
    agent.power_off.cancel();
}

fn start(
    agent: &Agent,
    command: Vec<String>,
) -> Result<tokio::sync::oneshot::Receiver<Ending>, Box<dyn std::error::Error>> {
    let spec = banger_proto::guest::v1::SessionSpec {
        command,
        ..Default::default()
    };
    let plan = Plan::new(spec, &Defaults::default(), &Users::read("/".as_ref()))?;
    let console = File::options()
        .read(true)
        .write(true)
        .open("/dev/console")?;
    let (_, ending) = agent.reaper.start(|| {
        launch(&Launch {
            candidates: &plan.candidates,
            arguments: &plan.arguments,
            environment: &plan.environment,
            working_dir: &plan.working_dir,
            identity: None,
            stdio: [console.as_fd(); 3],
            controls_terminal: false,
            cgroup: None,
            umask: 0o022,
            limits: &[],
        })
    })?;
    Ok(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_and_decoded() {
        let line = "quiet banger.console_exec=/bin/sh,-c,echo%20a%2cb panic=-1";
        assert_eq!(parse(line).unwrap(), ["/bin/sh", "-c", "echo a,b"]);
        assert_eq!(parse("quiet"), None);
    }
}
