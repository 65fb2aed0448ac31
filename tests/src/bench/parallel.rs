//! Eight VMs created at once, beside eight bare QEMUs that are started at once and boot the same to the same output;
//! and what each VM then takes of the daemon's memory.

use std::time::{Duration, Instant};

use crate::boot::Model;
use crate::fleet;
use crate::stand::{Stand, block};
use crate::table::{Figures, Table};

const ROUNDS: usize = 5;
/// For the daemon to come to rest.
const REST: Duration = Duration::from_secs(5);

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let model = Model::make(stand);
    let (mut ready, mut ours, mut theirs) = <(Figures, Figures, Figures)>::default();
    for round in 0..=ROUNDS {
        let times = create(stand);
        let bare = boot(stand, &model);
        // The first warms what is read from disk.
        if round > 0 {
            add_last(&mut ready, times.iter().map(|(ready, _)| *ready));
            add_last(&mut ours, times.iter().map(|(_, output)| *output));
            theirs.add_ms(bare);
        }
    }
    model.remove(stand);
    let bare = || format!("8 bare QEMUs {}", theirs.text("ms"));
    let ratio = |ours: &Figures| format!("{:.2} ×", ours.median() / theirs.median());
    table.line(
        "8 VMs created at once, to the last one's first output",
        ours.text("ms"),
        bare(),
        ratio(&ours),
    );
    table.line(
        "the same, until all are ready",
        ready.text("ms"),
        bare(),
        ratio(&ready),
    );
    memory(stand, table);
}

fn add_last(figures: &mut Figures, times: impl Iterator<Item = Duration>) {
    figures.add_ms(times.max().unwrap());
}

fn create(stand: &Stand) -> Vec<(Duration, Duration)> {
    block(async {
        let client = stand.daemon.client().await;
        let times = fleet::create(stand, &client).await;
        fleet::delete(&client).await;
        times
    })
}

/// Until the last of them has written.
fn boot(stand: &Stand, model: &Model) -> Duration {
    std::thread::scope(|scope| {
        let begin = Instant::now();
        let boots: Vec<_> = (0..fleet::SIZE)
            .map(|number| scope.spawn(move || model.boot(stand, number)))
            .collect();
        let last = boots.into_iter().map(|boot| boot.join().unwrap()).max();
        // Copying the disks is ours to do, not QEMU's: the longest boot counts.
        last.unwrap().min(begin.elapsed())
    })
}

/// What the daemon takes more with a fleet than without, after the fleets above have made it as large as it gets.
fn memory(stand: &Stand, table: &mut Table) {
    std::thread::sleep(REST);
    let before = fleet::resident_kib(&stand.daemon);
    let client = block(async {
        let client = stand.daemon.client().await;
        fleet::create(stand, &client).await;
        client
    });
    std::thread::sleep(REST);
    let grown = fleet::resident_kib(&stand.daemon) - before;
    drop(client);
    block(async { fleet::delete(&stand.daemon.client().await).await });
    let words = format!("{:.0} KiB RSS", grown / fleet::SIZE as f64);
    table.line(
        "bangerd, for each VM that runs",
        words,
        String::new(),
        String::new(),
    );
}
