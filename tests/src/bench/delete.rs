//! How long DeleteVm and KillVm take: of VMs that run, whose VMM is stopped, whose agent is dead.

use std::time::{Duration, Instant};

use banger_sdk::{Client, Command};
use rustix::process::{Pid, Signal, kill_process};

use crate::bare;
use crate::fleet;
use crate::stand::{Stand, block};
use crate::table::{Figures, Table};

const ROUNDS: usize = 4;
/// For a frozen agent to show that it does not answer.
const SILENCE: Duration = Duration::from_secs(2);
/// Freezes process 1 from within.
const FREEZE: &str = "mkdir -p /sys/fs/cgroup/frozen && echo 1 > /sys/fs/cgroup/frozen/cgroup.procs && echo 1 > /sys/fs/cgroup/frozen/cgroup.freeze";

/// What is done to a VM before it is measured.
type Prepare = fn(&Stand, &Client, &str);

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let cases: [(&str, Prepare, Call); 5] = [
        ("DeleteVm of a VM that runs", |_, _, _| {}, Call::Delete),
        (
            "DeleteVm, its VMM stopped by SIGSTOP",
            stop_vmm,
            Call::Delete,
        ),
        ("DeleteVm, its agent frozen", freeze_agent, Call::Delete),
        ("KillVm of a VM that runs", |_, _, _| {}, Call::Kill),
        ("KillVm, its VMM stopped by SIGSTOP", stop_vmm, Call::Kill),
    ];
    for (what, disturb, call) in cases {
        let mut figures = Figures::default();
        for _ in 0..ROUNDS {
            round(stand, disturb, call, &mut figures);
        }
        let p99 = format!("p99 {:.1} ms", figures.at(0.99));
        table.line(what, figures.text("ms"), p99, String::new());
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Call {
    Delete,
    Kill,
}

fn round(stand: &Stand, disturb: fn(&Stand, &Client, &str), call: Call, figures: &mut Figures) {
    let client = block(async { stand.daemon.client().await });
    block(async { fleet::create(stand, &stand.daemon.client().await).await });
    drop(client);
    for name in fleet::names() {
        block(async {
            let client = stand.daemon.client().await;
            // The connection is made.
            client.host_info().await.unwrap();
            disturb(stand, &client, &name);
            let begin = Instant::now();
            match call {
                Call::Delete => client.vms().delete(&name).await.unwrap(),
                Call::Kill => drop(client.vms().kill(&name).await.unwrap()),
            }
            figures.add_ms(begin.elapsed());
            if matches!(call, Call::Kill) {
                client.vms().delete(&name).await.unwrap();
            }
        });
    }
}

fn stop_vmm(stand: &Stand, _: &Client, name: &str) {
    let pid = bare::pid(&stand.daemon, name).parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
}

fn freeze_agent(stand: &Stand, _: &Client, name: &str) {
    let frozen = std::thread::scope(|scope| {
        let freeze = || {
            block(async {
                let client = stand.daemon.client().await;
                let command = Command::new(["/bin/sh", "-c", FREEZE]);
                // It is not answered: the agent is frozen before it can.
                let exec = async { client.sessions().exec(name, command).await?.wait().await };
                tokio::time::timeout(SILENCE, exec).await
            })
        };
        scope.spawn(freeze).join().unwrap()
    });
    assert!(
        frozen.is_err(),
        "the agent of {name} is not frozen: {frozen:?}"
    );
}
