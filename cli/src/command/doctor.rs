//! `banger doctor`: whether the host is fit to run VMs, with the daemon or without.

mod reach;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use banger_sdk::{Client, ClientOptions, DoctorEvent};
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::args::Format;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::view::doctor::{Check, Diagnosis, Paper, Status};

/// Something is wrong.
const EXIT_PROBLEM: u8 = 1;
/// How often the sign of life on a terminal is drawn.
const TICK: Duration = Duration::from_millis(120);

/// Look whether this host is fit to run VMs, and mend what can be mended
#[derive(Debug, Args)]
#[command(after_help = "\
Each check tells its id, what was found, why that is bad, and what to do. Without a daemon the
first check says why there is none. docs/doctor.md lists all checks.

With --fix, what can be mended without harm is mended, and what was changed is told: directories
that are missing, rights that are too wide, kernel modules, limits, and what nothing owns any more.

Exit codes:
  0    nothing is wrong; there may be warnings
  1    there are problems; with --strict, or warnings
  125  the host could not be looked at

Examples:
  banger doctor
  banger doctor --fix
  banger doctor KVM_DEVICE KVM_BOOTS_GUEST
  banger doctor --strict --json")]
pub(crate) struct Doctor {
    /// Only these checks, by id
    #[arg(value_name = "CHECK")]
    checks: Vec<String>,
    /// Mend what can be mended
    #[arg(long)]
    fix: bool,
    /// Let warnings count as problems in the exit code
    #[arg(long)]
    strict: bool,
    /// Print JSON: the same as --output json
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let json = self.json || context.format == Format::Json;
        match self.look(context, json).await {
            Err(failure) if json && !matches!(failure, Failure::BrokenPipe) => {
                // Where errors cannot be told there is the exit code.
                let _ = writeln!(std::io::stderr(), "{}", failure.json());
                Ok(failure.exit_code())
            }
            result => result,
        }
    }

    async fn look(&self, context: &Context, json: bool) -> Result<u8, Failure> {
        let diagnosis = self.diagnosis(context, json).await?;
        if context.quiet {
            output::lines(diagnosis.bad().map(|check| check.id().to_owned()))?;
        } else if json {
            output::json(&diagnosis)?;
        } else {
            output::lines(diagnosis.lines(&Paper::of_stdout()))?;
        }
        Ok(self.exit_code(&diagnosis))
    }

    fn exit_code(&self, diagnosis: &Diagnosis) -> u8 {
        let is_wrong = |check: &Check| match check.status() {
            Status::Problem => true,
            Status::Warning => self.strict,
            Status::Ok | Status::Skipped | Status::Fixed => false,
        };
        if diagnosis.bad().any(is_wrong) {
            EXIT_PROBLEM
        } else {
            0
        }
    }

    async fn diagnosis(&self, context: &Context, json: bool) -> Result<Diagnosis, Failure> {
        let host = context.host()?;
        // A connection that breaks is something to tell, not to wait for.
        let options = ClientOptions::default().reconnect_window(Duration::ZERO);
        let client = Client::connect_with(host.clone(), options).await;
        let (client, daemon) = reach::look(&host, client).await;
        let mut diagnosis = Diagnosis::default();
        let is_asked = self.checks.is_empty() || self.checks.iter().any(|id| id == reach::ID);
        if is_asked || daemon.status().is_bad() {
            diagnosis.add(daemon);
        }
        let others = self.checks.iter().filter(|id| *id != reach::ID);
        let others: Vec<&String> = others.collect();
        if let Some(client) = client.filter(|_| self.checks.is_empty() || !others.is_empty()) {
            let alive = sign_of_life(context.quiet || json);
            self.ask(&client, &others, &mut diagnosis, &alive).await?;
            alive.finish_and_clear();
        }
        diagnosis.end();
        Ok(diagnosis)
    }

    async fn ask(
        &self,
        client: &Client,
        checks: &[&String],
        diagnosis: &mut Diagnosis,
        alive: &ProgressBar,
    ) -> Result<(), Failure> {
        let mut doctor = client.doctor().checks(checks.iter().copied());
        if self.fix {
            doctor = doctor.fix();
        }
        let mut events = doctor.stream();
        while let Some(event) = events.next().await {
            match event {
                Ok(DoctorEvent::Check(check)) => diagnosis.add(Check::from(*check)),
                Ok(DoctorEvent::Summary(_)) => {}
                Err(error) if reach::is_lost(&error) => {
                    diagnosis.add(reach::lost(client.host(), &error));
                }
                Err(error) => return Err(error.into()),
            }
            alive.set_message(format!("{} checks ended", diagnosis.len()));
        }
        Ok(())
    }
}

/// What shows on a terminal that something goes on.
fn sign_of_life(is_silent: bool) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if is_silent || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    } else {
        bar.enable_steady_tick(TICK);
    }
    bar
}
