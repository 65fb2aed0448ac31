//! Stopping as data: a ladder of rungs, each with its deadline. The outcome says which rung worked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_core::guest::{Guest, GuestError};
use banger_core::vm::{KeptLogs, StopOutcome};
use banger_core::vmm::{Machine, StopRung};
use tokio_util::sync::CancellationToken;

use super::link::Link;
use crate::config::AppConfig;
use crate::error::AppError;
use crate::session::kept::Keeping;

/// How the agent is reached anew.
type Again = Box<dyn Fn() -> Link + Send + Sync>;

/// A machine to be stopped.
pub(crate) struct Ladder {
    machine: Arc<dyn Machine>,
    /// Its agent, where there is a link to it.
    guest: Option<Arc<dyn Guest>>,
    /// Where there is none, or it breaks: the link may be there again before the agent's rung is over.
    again: Option<Again>,
    rungs: Vec<(StopRung, Duration)>,
    /// The vCPUs are held, and are let go first: a guest that stands still cannot power off.
    held_for: Option<Duration>,
    /// What is to be copied out of the guest before it is asked to power off.
    keeping: Option<Keeping>,
    /// How long an init of the image's own has for powering off, before the agent does it.
    init_patience: Duration,
}

impl Ladder {
    /// The way that loses nothing first, then ever harder ones.
    pub(super) fn gentle(config: &AppConfig, machine: Arc<dyn Machine>) -> Self {
        let rungs = vec![
            (StopRung::Agent, config.stop_agent_timeout),
            (StopRung::PowerButton, config.stop_power_button_timeout),
            (StopRung::Terminate, config.stop_terminate_timeout),
            (StopRung::Kill, config.stop_kill_timeout),
        ];
        Self {
            rungs,
            ..Self::hard(config, machine)
        }
    }

    /// Of a guest whose agent is asked.
    pub(super) fn asking(
        mut self,
        guest: Option<Arc<dyn Guest>>,
        again: impl Fn() -> Link + Send + Sync + 'static,
    ) -> Self {
        self.guest = guest;
        self.again = Some(Box::new(again));
        self
    }

    /// Of a guest whose logs are kept: as many as can be copied in their own time, before the first rung.
    pub(super) fn keeping(mut self, keeping: Option<Keeping>) -> Self {
        self.keeping = keeping;
        self
    }

    /// Of a machine whose vCPUs are held, or may be.
    pub(super) fn held(mut self, is_held: bool, limit: Duration) -> Self {
        self.held_for = is_held.then_some(limit);
        self
    }

    /// Of a guest in which the image's own init is process 1: it is asked first, and is given this long, which the
    /// agent's rung outlasts.
    pub(super) fn with_init(mut self, patience: Duration) -> Self {
        self.init_patience = patience;
        for (rung, deadline) in &mut self.rungs {
            if *rung == StopRung::Agent {
                *deadline += patience;
            }
        }
        self
    }

    /// At once.
    pub(super) fn hard(config: &AppConfig, machine: Arc<dyn Machine>) -> Self {
        Self {
            machine,
            guest: None,
            again: None,
            rungs: vec![(StopRung::Kill, config.stop_kill_timeout)],
            held_for: None,
            keeping: None,
            init_patience: Duration::ZERO,
        }
    }

    /// Climbs until the machine has ended. `hurry` skips to the last rung.
    pub(crate) async fn climb(
        mut self,
        hurry: &CancellationToken,
    ) -> Result<StopOutcome, AppError> {
        let begin = Instant::now();
        let mut kept_logs = None;
        let ended = |rung, kept_logs: &mut Option<KeptLogs>| StopOutcome {
            rung,
            took: begin.elapsed(),
            restart_time: None,
            kept_logs: kept_logs.take(),
        };
        if self.has_ended().await {
            return Ok(ended(StopRung::AlreadyGone, &mut kept_logs));
        }
        if let Some(limit) = self.held_for {
            // One that cannot be let go is stopped by a harder rung.
            let let_go = tokio::time::timeout(limit, self.machine.resume());
            let _ = hurry.run_until_cancelled(let_go).await;
            if let Some(guest) = &self.guest {
                guest.set_held(false);
            }
        }
        if self.guest.is_none() {
            self.guest = self.linked(hurry).await;
        }
        if let Some((keeping, guest)) = self.keeping.as_ref().zip(self.guest.as_ref()) {
            tokio::select! {
                biased; // a machine that has ended has nothing to give
                // cancel-safe: `wait` loses nothing when dropped
                _ = self.machine.wait() => {}
                // has a deadline of its own; what is given up half-way is not kept
                kept = keeping.run(guest, hurry) => kept_logs = Some(kept),
            }
        }
        if self.has_ended().await {
            return Ok(ended(StopRung::AlreadyGone, &mut kept_logs));
        }
        for (rung, deadline) in &self.rungs {
            if hurry.is_cancelled() && *rung != StopRung::Kill {
                continue;
            }
            let applied = async {
                match self.apply(*rung).await {
                    true => Some(self.machine.wait().await),
                    false => None,
                }
            };
            let skipped = async {
                match rung {
                    StopRung::Kill => std::future::pending().await,
                    _ => hurry.cancelled().await,
                }
            };
            tokio::select! {
                biased; // an exit must win: it is what we are here for
                // cancel-safe: `wait` loses nothing when dropped
                _ = self.machine.wait() => return Ok(ended(*rung, &mut kept_logs)),
                // a rung that is given up half-way is followed by a harder one
                applied = applied => match applied {
                    Some(_) => return Ok(ended(*rung, &mut kept_logs)),
                    None => continue,
                },
                // cancel-safe: `cancelled` holds no state
                () = skipped => {}
                () = tokio::time::sleep(*deadline) => {
                    tracing::warn!(rung = rung.as_str(), ?deadline, "a rung of the stop ladder did not end the VM");
                }
            }
        }
        Err(AppError::Unkillable {
            limit: self
                .rungs
                .last()
                .map_or(Duration::ZERO, |(_, limit)| *limit),
        })
    }

    async fn has_ended(&self) -> bool {
        let waited = tokio::time::timeout(Duration::ZERO, self.machine.wait());
        waited.await.is_ok()
    }

    /// The agent that there is no link to yet, if it answers within the time of its rung.
    async fn linked(&self, hurry: &CancellationToken) -> Option<Arc<dyn Guest>> {
        let link = self.again.as_ref()?();
        let (_, limit) = self
            .rungs
            .iter()
            .find(|(rung, _)| *rung == StopRung::Agent)?;
        tokio::select! {
            biased; // who is gone, or in a hurry, needs no agent
            // cancel-safe: `wait` loses nothing when dropped
            _ = self.machine.wait() => None,
            // cancel-safe: `cancelled` holds no state
            () = hurry.cancelled() => None,
            // cancel-safe: reaching for an agent holds nothing
            guest = link => Some(guest),
            () = tokio::time::sleep(*limit) => {
                tracing::warn!(?limit, "no link to the agent of a VM that is stopped: it is not asked");
                None
            }
        }
    }

    /// Asks the agent to power off; once more over a new link, where the one that was there turns out to be broken.
    async fn ask(&self, guest: &dyn Guest) -> Result<(), AppError> {
        let asked = guest.power_off(self.init_patience).await;
        if let (Err(GuestError::Lost { .. }), Some(again)) = (&asked, &self.again) {
            let guest = again().await;
            return Ok(guest.power_off(self.init_patience).await?);
        }
        Ok(asked?)
    }

    /// Whether the rung could be applied; one that could not is left at once.
    async fn apply(&self, rung: StopRung) -> bool {
        let result = match (rung, &self.guest) {
            (StopRung::Agent, Some(guest)) => self.ask(&**guest).await,
            (StopRung::AlreadyGone, _) | (StopRung::Agent, None) => return false,
            (StopRung::PowerButton, _) => self.machine.power_button().await.map_err(AppError::from),
            (StopRung::Terminate, _) => self.machine.terminate().map_err(AppError::from),
            (StopRung::Kill, _) => self.machine.kill().map_err(AppError::from),
        };
        if let Err(error) = &result {
            tracing::debug!(
                rung = rung.as_str(),
                error = banger_core::chain(error),
                "a rung of the stop ladder could not be applied"
            );
        }
        result.is_ok()
    }
}
