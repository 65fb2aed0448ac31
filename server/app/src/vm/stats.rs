//! How much VMs use: what the host measures, and beside it what the guest says.
//!
//! Neither waits for the other, and each has its limit: a VMM or an agent that does not answer costs its own
//! half. Looking does not count as using a VM.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_core::guest::GuestError;
use banger_core::stats::GuestStats;
use banger_core::vm::{Phase, Vm};
use banger_core::vmm::{Machine, ProcessIdentity, VmmMetrics};
use banger_core::{Failure, Timestamp, VmId, chain};
use futures::stream::{self, BoxStream, StreamExt as _};

use super::{VmView, Vms};
use crate::Context;
use crate::error::AppError;
use crate::look;

/// How long a VMM may take to tell of its drives.
const HOST_WITHIN: Duration = Duration::from_secs(2);
/// Over which a single measurement measures what changes.
const SAMPLES_APART: Duration = Duration::from_millis(250);
/// VMs that are measured at once: each costs a few reads of `/proc` and a message to its guest.
const MEASURED_AT_ONCE: usize = 16;

/// How much a VM uses.
#[derive(Debug, Clone)]
pub struct VmStats {
    /// The VM, as it was.
    pub vm: Arc<Vm>,
    /// When it was measured.
    pub time: Timestamp,
    /// What its VMM uses; absent where it has none.
    pub host: Option<HostStats>,
    /// What the guest says.
    pub guest: Option<GuestStats>,
    /// Why a guest that runs says nothing.
    pub guest_error: Option<Box<Failure>>,
    /// What the writable disk takes on the host; absent where that could not be looked at.
    pub disk_allocated_bytes: Option<u64>,
    /// Why it could not.
    pub disk_error: Option<Box<Failure>>,
}

/// What a VMM uses.
#[derive(Debug, Clone, PartialEq)]
pub struct HostStats {
    /// Since it began.
    pub total: VmmMetrics,
    /// Over the time since the measurement before; absent where there is none.
    pub rates: Option<Rates>,
}

/// What a VMM used over a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of one processor.
    pub cpu_percent: f64,
    /// By all drives; absent where it is not known.
    pub drives: Option<DriveRates>,
}

/// What went through drives over a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriveRates {
    /// Read by the guest.
    pub read_bytes_per_second: f64,
    /// Written by the guest.
    pub written_bytes_per_second: f64,
}

/// What a VMM had used at a moment.
#[derive(Debug, Clone)]
struct Sample {
    process: ProcessIdentity,
    at: Instant,
    metrics: VmmMetrics,
}

impl Vms {
    /// How much a VM uses, by id or name.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn stats(&self, named: &str) -> Result<VmStats, AppError> {
        let view = self.watch(named)?.borrow().clone();
        let before = match &view.machine {
            Some(machine) => sample(&**machine).await,
            None => None,
        };
        let (context, apart) = (&self.context, before.is_some());
        let second = async {
            if apart {
                tokio::time::sleep(SAMPLES_APART).await;
            }
            host(&view, before.as_ref()).await.0
        };
        let (host, guest, disk) =
            tokio::join!(second, guest(context, &view), allocated(context, &view));
        Ok(stats(view, host, guest, disk))
    }

    /// A meter of one VM, by id or name, or of all.
    ///
    /// # Errors
    /// If the VM does not exist.
    pub fn meter(self: &Arc<Self>, named: Option<&str>) -> Result<Meter, AppError> {
        let of = match named {
            Some(named) => Some(self.get(named)?.id),
            None => None,
        };
        Ok(Meter {
            vms: self.clone(),
            of,
            before: HashMap::new(),
        })
    }
}

/// Measures VMs again and again, and what changed between.
#[derive(Debug)]
pub struct Meter {
    vms: Arc<Vms>,
    of: Option<VmId>,
    before: HashMap<VmId, Sample>,
}

impl Meter {
    /// Begins a measurement. Absent where the VM that it is of is gone.
    #[must_use]
    pub fn round(&mut self) -> Option<Round> {
        let views = match self.of {
            Some(id) => {
                let view = self.vms.watch(&id.to_string()).ok()?;
                vec![view.borrow().clone()]
            }
            None => self.vms.views(),
        };
        let (context, mut before) = (self.vms.context.clone(), std::mem::take(&mut self.before));
        let measured = stream::iter(views).map(move |view| {
            let (context, before) = (context.clone(), before.remove(&view.vm.id));
            async move {
                let (host, guest, disk) = tokio::join!(
                    host(&view, before.as_ref()),
                    guest(&context, &view),
                    allocated(&context, &view)
                );
                (stats(view, host.0, guest, disk), host.1)
            }
        });
        Some(Round(measured.buffer_unordered(MEASURED_AT_ONCE).boxed()))
    }

    /// The next VM of a round; absent at its end.
    pub async fn next(&mut self, round: &mut Round) -> Option<VmStats> {
        let (stats, sample) = round.0.next().await?;
        if let Some(sample) = sample {
            self.before.insert(stats.vm.id, sample);
        }
        Some(stats)
    }
}

/// A measurement under way.
pub struct Round(BoxStream<'static, (VmStats, Option<Sample>)>);

impl std::fmt::Debug for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Round").finish_non_exhaustive()
    }
}

fn stats(
    view: VmView,
    host: Option<HostStats>,
    guest: Result<Option<GuestStats>, AppError>,
    disk: Result<u64, AppError>,
) -> VmStats {
    let (disk_allocated_bytes, disk_error) = match disk {
        Ok(bytes) => (Some(bytes), None),
        Err(error) => (None, Some(Box::new(error.to_failure()))),
    };
    let (guest, guest_error) = match guest {
        Ok(guest) => (guest, None),
        Err(error) => (None, Some(Box::new(error.to_failure()))),
    };
    VmStats {
        vm: view.vm,
        time: Timestamp::now(),
        host,
        guest,
        guest_error,
        disk_allocated_bytes,
        disk_error,
    }
}

async fn sample(machine: &dyn Machine) -> Option<Sample> {
    let at = Instant::now();
    match tokio::time::timeout(HOST_WITHIN, machine.metrics()).await {
        Ok(Ok(metrics)) => Some(Sample {
            process: machine.identity().clone(),
            at,
            metrics,
        }),
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "a VMM cannot be measured");
            None
        }
        Err(_) => {
            tracing::debug!(limit = ?HOST_WITHIN, "a VMM does not tell what it uses");
            None
        }
    }
}

async fn host(view: &VmView, before: Option<&Sample>) -> (Option<HostStats>, Option<Sample>) {
    let Some(machine) = &view.machine else {
        return (None, None);
    };
    let Some(now) = sample(&**machine).await else {
        return (None, None);
    };
    let stats = HostStats {
        total: now.metrics.clone(),
        rates: before.and_then(|before| rates(before, &now)),
    };
    (Some(stats), Some(now))
}

/// Only of one and the same process: another begins anew.
fn rates(before: &Sample, now: &Sample) -> Option<Rates> {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    if before.process != now.process || seconds <= 0.0 {
        return None;
    }
    let cpu = now.metrics.cpu_time.saturating_sub(before.metrics.cpu_time);
    let drives = (!now.metrics.drives.is_empty() && !before.metrics.drives.is_empty()).then(|| {
        let per_second = |bytes: fn(&banger_core::vmm::DriveMetrics) -> u64| {
            let sum = |sample: &Sample| {
                let drives = sample.metrics.drives.iter();
                drives.map(bytes).fold(0_u64, u64::saturating_add)
            };
            quotient(sum(now).saturating_sub(sum(before)), seconds)
        };
        DriveRates {
            read_bytes_per_second: per_second(|drive| drive.read_bytes),
            written_bytes_per_second: per_second(|drive| drive.written_bytes),
        }
    });
    Some(Rates {
        cpu_percent: cpu.as_secs_f64() / seconds * 100.0,
        drives,
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is for looking at, and 53 bits of it are enough"
)]
fn quotient(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds
}

/// What a running guest says, within the limit; nothing of one that does not run.
async fn guest(context: &Context, view: &VmView) -> Result<Option<GuestStats>, AppError> {
    if view.phase() != Phase::Running {
        return Ok(None);
    }
    let Some(guest) = &view.guest else {
        return Err(view.agent_away());
    };
    let limit = context.config.stats_timeout;
    let during = "stats";
    match tokio::time::timeout(limit, guest.stats()).await {
        Ok(stats) => Ok(Some(stats?)),
        Err(_) => Err(GuestError::Deadline { during, limit }.into()),
    }
}

/// What the writable disk takes; 0 where it is not made yet.
async fn allocated(context: &Context, view: &VmView) -> Result<u64, AppError> {
    let path = context.paths.upper_disk(view.vm.id);
    let turn = view.disk_look.clone();
    let looked = context
        .looks
        .allocated(path.clone(), turn, look::deadline());
    looked
        .await
        .map_err(|source| AppError::LookAtDisk { path, source })
}

#[cfg(test)]
mod tests {
    use banger_core::vmm::DriveMetrics;

    use super::*;

    fn sample(start_ticks: u64, at: Instant, cpu_ms: u64, read: u64, written: u64) -> Sample {
        Sample {
            process: ProcessIdentity {
                pid: 7,
                start_ticks,
                executable: "/q".into(),
                host_boot_id: "b".into(),
            },
            at,
            metrics: VmmMetrics {
                cpu_time: Duration::from_millis(cpu_ms),
                drives: vec![DriveMetrics {
                    read_bytes: read,
                    written_bytes: written,
                    ..DriveMetrics::default()
                }],
                ..VmmMetrics::default()
            },
        }
    }

    #[test]
    fn rates_are_what_changed_over_the_time_between() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(2);
        let before = sample(1, begin, 1000, 100, 0);
        let now = sample(1, end, 4000, 300, 2 << 20);
        let found = rates(&before, &now).unwrap();
        assert_eq!(
            found,
            Rates {
                cpu_percent: 150.0,
                drives: Some(DriveRates {
                    read_bytes_per_second: 100.0,
                    written_bytes_per_second: 1_048_576.0
                })
            }
        );
    }

    #[test]
    fn what_goes_backwards_is_no_rate_below_nothing() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(1);
        let found = rates(&sample(1, begin, 500, 9, 9), &sample(1, end, 100, 0, 0)).unwrap();
        assert_eq!(found.cpu_percent, 0.0);
        assert_eq!(found.drives.unwrap().read_bytes_per_second, 0.0);
    }

    #[test]
    fn another_process_with_the_same_pid_has_no_rate_yet() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(1);
        let (before, now) = (sample(1, begin, 0, 0, 0), sample(2, end, 100, 0, 0));
        assert_eq!(rates(&before, &now), None);
        assert_eq!(
            rates(&now, &now),
            None,
            "no time has passed between a sample and itself"
        );
        let mut silent = sample(1, end, 100, 0, 0);
        silent.metrics.drives.clear();
        assert_eq!(rates(&before, &silent).unwrap().drives, None);
    }
}
