//! `banger vm exec` and `banger vm shell`: a command in a VM that stays.

use clap::Args;
use clap_complete::ArgValueCandidates;

use crate::bridge::{Bridge, Ended};
use crate::command::process::{ProcessOptions, Stdio, StdioOptions, exit_code};
use crate::complete;
use crate::context::Context;
use crate::failure::{Failure, signal_code};
use crate::interrupt::Interrupts;
use crate::terminal;

/// Starts bash where there is one, else sh, as a login shell.
const LOGIN_SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l";

/// Run a command in a running VM
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is the command's own; see `banger run --help` for it and for Ctrl-C. The command is killed \
when banger ends; to leave it running, use `banger session start`.

Examples:
  banger vm exec web -- ls -l /
  echo hello | banger vm exec web -- wc -c
  banger vm exec -t web -- top")]
pub(crate) struct Exec {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    #[command(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    stdio: StdioOptions,
    /// The command; without it the image's own
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        exec(
            context,
            self.vm,
            &self.process,
            self.stdio.decide(),
            self.command,
        )
        .await
    }
}

/// Open a shell in a running VM
#[derive(Debug, Args)]
#[command(after_help = "\
The shell is bash where the image has it, else sh. It ends when banger does; for one that stays, use \
`banger session start -t VM -- bash` and `banger session attach`.

Examples:
  banger vm shell web
  banger vm shell -u postgres -w /tmp web")]
pub(crate) struct Shell {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    #[command(flatten)]
    process: ProcessOptions,
}

impl Shell {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let stdio = Stdio {
            terminal: terminal::is_interactive(),
            stdin: true,
        };
        let command = ["/bin/sh", "-c", LOGIN_SHELL].map(str::to_owned).to_vec();
        exec(context, self.vm, &self.process, stdio, command).await
    }
}

async fn exec(
    context: &Context,
    vm: String,
    options: &ProcessOptions,
    stdio: Stdio,
    command: Vec<String>,
) -> Result<u8, Failure> {
    let mut signals = Interrupts::new()?;
    let client = context.client().await?;
    let command = options.command(command, stdio);
    let sessions = client.sessions();
    let mut process = tokio::select! {
        process = sessions.exec(vm, command) => process?,
        signal = signals.end() => return Ok(signal_code(signal)),
    };
    let bridge = Bridge {
        terminal: stdio.terminal,
        stdin: stdio.stdin,
        detach: None,
        read_only: false,
    };
    let ended = bridge.run(&mut process, &mut signals).await;
    if process.reconnects() > 0 && !matches!(ended, Ok(Ended::Exited(_))) {
        // After a broken connection we are merely attached: leaving no longer ends the process.
        client.sessions().delete(process.id()).await?;
    }
    match ended? {
        Ended::Exited(exit) => exit_code(&exit),
        Ended::Signalled(signal) => Ok(signal_code(signal)),
        Ended::Detached => Ok(0),
    }
}
