//! The doctor: whether this host is fit to run VMs, check by check, and what to do where it is not.
//!
//! ```text
//! run ─▶ one task: plan ─▶ at most AT_ONCE checks at a time ─▶ reports as they end ─▶ summary
//!                             │ probe, within its deadline
//!                             └ bad, mendable, asked to? mend, then probe again
//! ```
//! - No check hangs the rest. Each has a deadline; one that runs into it is a problem that says so. A probe that blocks
//!   in the host's kernel keeps its thread, and one of a bounded number of slots, until the kernel lets it go.
//! - What is mended harms nothing in use: directories that are missing, rights that are too wide, modules that are not
//!   loaded, limits that are too low, and what no record owns.
//! - The driver's own checks come from the driver; nothing here knows its name.
//! - The work goes on without its caller only where it changes something.

mod cgroup;
mod check;
mod clock;
mod database;
mod guest;
mod host;
mod kvm;
mod leftovers;
mod limits;
mod memory;
mod mounts;
mod network;
mod ports;
mod socket;
mod space;
mod state;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use banger_core::chain;
use banger_core::doctor::{Diagnosis, Finding};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::Context;
use crate::error::AppError;
use crate::image::Images;
use crate::kernel::Kernels;
use crate::volume::Volumes;
use check::{Check, Mend, Probe};
pub use check::{Report, Status, Subject, Summary};
use host::{Host, MendError};

/// Checks of one request that run at the same time: most wait for nothing, and a slow one stops nobody.
const AT_ONCE: usize = 8;
/// Threads that checks of all requests may block at the same time.
const SLOTS: usize = 16;
/// How long a change to the host may take.
const MEND_LIMIT: Duration = Duration::from_secs(30);
/// Reports that wait to be read; more than there are checks, so that nobody waits for a slow reader.
const REPORTS: usize = 128;

/// The checks of this crate by subject; the driver's come first.
const TABLE: [(Subject, &[Check]); 15] = [
    (Subject::Kvm, &kvm::CHECKS),
    (Subject::Guest, &guest::CHECKS),
    (Subject::State, &state::CHECKS),
    (Subject::State, &space::CHECKS),
    (Subject::State, &database::CHECKS),
    (Subject::State, &volumes::CHECKS),
    (Subject::Limits, &limits::CHECKS),
    (Subject::Limits, &memory::CHECKS),
    (Subject::Limits, &cgroup::CHECKS),
    (Subject::Host, &clock::CHECKS),
    (Subject::Network, &network::CHECKS),
    (Subject::Network, &ports::LOCAL),
    (Subject::Api, &socket::CHECKS),
    (Subject::Api, &ports::LISTENERS),
    (Subject::Leftovers, &leftovers::CHECKS),
];

/// What to look at, and whether to mend it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoctorRequest {
    /// Mend what can be mended.
    pub fix: bool,
    /// Only these, by id; empty means all.
    pub checks: Vec<String>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A check ended.
    Check(Box<Report>),
    /// All have; the last piece.
    Done(Summary),
}

/// Looks after the host.
#[derive(Debug)]
pub struct Doctor {
    ward: Arc<Ward>,
}

/// What checks may look at and ask.
pub(crate) struct Ward {
    context: Arc<Context>,
    images: Arc<Images>,
    kernels: Arc<Kernels>,
    volumes: Volumes,
    host: Host,
    /// Held by each probe that may block, until it no longer does.
    slots: Arc<Semaphore>,
    /// Held while the host is changed: one change at a time.
    mending: Mutex<()>,
}

impl std::fmt::Debug for Ward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ward").finish_non_exhaustive()
    }
}

/// A check that is to be carried out.
struct Planned<'w> {
    position: usize,
    subject: Subject,
    what: What<'w>,
}

enum What<'w> {
    Own(&'static Check),
    Drivers(Diagnosis<'w>),
}

impl What<'_> {
    const fn id(&self) -> &'static str {
        match self {
            Self::Own(check) => check.id,
            Self::Drivers(diagnosis) => diagnosis.id,
        }
    }
}

impl Doctor {
    pub(crate) fn new(
        context: &Arc<Context>,
        images: &Arc<Images>,
        kernels: &Arc<Kernels>,
        volumes: &Volumes,
    ) -> Self {
        let ward = Ward {
            context: context.clone(),
            images: images.clone(),
            kernels: kernels.clone(),
            volumes: volumes.clone(),
            host: Host::new(std::path::Path::new("/"), &context.config),
            slots: Arc::new(Semaphore::new(SLOTS)),
            mending: Mutex::default(),
        };
        Self {
            ward: Arc::new(ward),
        }
    }

    /// Begins to look. Each check is told when it ends, then the summary.
    ///
    /// # Errors
    /// If a check is asked for that there is none of.
    pub fn run(&self, request: DoctorRequest) -> Result<ReceiverStream<Told>, AppError> {
        let known = self.ward.plan(&[]);
        for id in &request.checks {
            if !known.iter().any(|planned| planned.what.id() == id) {
                let shown: String = id.chars().take(64).collect();
                return Err(AppError::Invalid {
                    field: "checks",
                    problem: format!("has `{shown}`, and there is no such check"),
                });
            }
        }
        drop(known);
        let (tell, told) = mpsc::channel(REPORTS);
        let ward = self.ward.clone();
        let ending = ward.context.shutdown.clone();
        self.ward.context.tasks.spawn(async move {
            tokio::select! {
                // cancel-safe: what is dropped half-way is found and mended by the next request
                () = ward.look(&request, &tell) => {}
                // cancel-safe: holds no state
                () = ending.cancelled() => {}
            }
        });
        Ok(ReceiverStream::new(told))
    }
}

impl Ward {
    fn plan(&self, wanted: &[String]) -> Vec<Planned<'_>> {
        let drivers = self.context.vmm.diagnose().into_iter();
        let drivers = drivers.map(|diagnosis| (Subject::Vmm, What::Drivers(diagnosis)));
        let own = TABLE.into_iter().flat_map(|(subject, checks)| {
            checks.iter().map(move |check| (subject, What::Own(check)))
        });
        let all = drivers.chain(own).enumerate();
        all.map(|(position, (subject, what))| Planned {
            position,
            subject,
            what,
        })
        .filter(|planned| wanted.is_empty() || wanted.iter().any(|id| id == planned.what.id()))
        .collect()
    }

    async fn look(&self, request: &DoctorRequest, tell: &mpsc::Sender<Told>) {
        let begin = Instant::now();
        let mut summary = Summary::default();
        let plan = self.plan(&request.checks).into_iter();
        let courses: Vec<BoxFuture<'_, Report>> = plan
            .map(|planned| self.examine(planned, request.fix).boxed())
            .collect();
        let mut reports = stream::iter(courses).buffer_unordered(AT_ONCE);
        while let Some(report) = reports.next().await {
            summary.count(report.status);
            let heard = tell.send(Told::Check(Box::new(report))).await;
            if heard.is_err() && !request.fix {
                return;
            }
        }
        summary.took = begin.elapsed();
        // Whoever hung up needs no summary.
        let _ = tell.send(Told::Done(summary)).await;
    }

    async fn examine(&self, planned: Planned<'_>, fix: bool) -> Report {
        let begin = Instant::now();
        let (id, title, finding, fixable, status, changed) = match planned.what {
            What::Drivers(diagnosis) => {
                let finding = limited(diagnosis.deadline, diagnosis.finding).await;
                let status = finding.verdict.into();
                (
                    diagnosis.id,
                    diagnosis.title,
                    finding,
                    false,
                    status,
                    String::new(),
                )
            }
            What::Own(check) => {
                let mut course = Course::of(self.probe(check).await);
                let fixable = course.finding.verdict.is_bad() && check.is_mendable(&self.host);
                if fix && fixable {
                    self.mend(check, &mut course).await;
                }
                let fixable = fixable && course.finding.verdict.is_bad();
                (
                    check.id,
                    check.title,
                    course.finding,
                    fixable,
                    course.status,
                    course.changed,
                )
            }
        };
        Report {
            position: planned.position,
            id,
            subject: planned.subject,
            title,
            status,
            finding,
            fixable,
            changed,
            took: begin.elapsed(),
        }
    }

    async fn probe(&self, check: &Check) -> Finding {
        match check.probe {
            Probe::Files(probe) => limited(check.deadline, self.blocking(probe)).await,
            Probe::Daemon(probe) => limited(check.deadline, probe(self)).await,
        }
    }

    /// Runs what may block on a thread of its own, which keeps its slot for as long as it is blocked.
    async fn blocking(&self, probe: fn(&Host) -> Finding) -> Finding {
        let looked = self.on_thread(probe).await;
        looked.unwrap_or_else(|| {
            Finding::problem(
                "the check itself broke",
                "It is a defect of the daemon; see its log.",
            )
        })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host) -> T + Send + 'static,
    ) -> Option<T> {
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let host = self.host.clone();
        let work = move || {
            let _slot = slot;
            work(&host)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    async fn mend(&self, check: &Check, course: &mut Course) {
        let _alone = self.mending.lock().await;
        let mending = async {
            match check.mend {
                Mend::Files(_, mend) => {
                    self.on_thread(mend)
                        .await
                        .unwrap_or(Err(MendError::Hopeless {
                            why: "the change broke off; see the daemon's log",
                        }))
                }
                Mend::Daemon(mend) => mend(self).await,
                Mend::Never => Err(MendError::Hopeless {
                    why: "nothing here mends it",
                }),
            }
        };
        let mended = tokio::time::timeout(MEND_LIMIT, mending).await;
        match mended {
            Ok(Ok(changed)) => {
                tracing::info!(check = check.id, changed, "the doctor changed something");
                course.mended(changed, self.probe(check).await);
            }
            Ok(Err(error)) => course.not_mended(&chain(&error)),
            Err(_) => course.not_mended(&format!("it did not end within {MEND_LIMIT:?}")),
        }
    }
}

/// A check on its way from what was found to what is left of it.
struct Course {
    finding: Finding,
    status: Status,
    changed: String,
}

impl Course {
    fn of(finding: Finding) -> Self {
        Self {
            status: finding.verdict.into(),
            finding,
            changed: String::new(),
        }
    }

    fn mended(&mut self, changed: String, now: Finding) {
        self.status = if now.verdict.is_bad() {
            now.verdict.into()
        } else {
            Status::Fixed
        };
        self.finding = now;
        self.changed = changed;
    }

    fn not_mended(&mut self, why: &str) {
        self.finding.cause = format!("{} It could not be mended: {why}.", self.finding.cause)
            .trim_start()
            .to_owned();
    }
}

/// What `finding` resolves to, or that it did not.
async fn limited(limit: Duration, finding: impl Future<Output = Finding>) -> Finding {
    tokio::time::timeout(limit, finding).await.unwrap_or_else(|_| {
        Finding::problem(
            format!("the check did not end within its {limit:?}"),
            "What it looks at does not answer: a disk, a mount or a program hangs, or the host is overloaded.",
        )
        .remedy("Look for processes in state D (ps -eo pid,stat,wchan,args) and at the kernel's log, then try again.")
        .command("journalctl -k -e")
    })
}

#[cfg(test)]
mod tests;
