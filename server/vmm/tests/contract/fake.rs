//! The fake against the contract, so that tests on top of it test against what real drivers do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use banger_core::VmId;
use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, NetworkPlan, Vmm, VmmError, VmmExit};
use banger_vmm::fake::{Agent, FakeGuest, FakeHost, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::rules::{Bench, GLIMPSE, ended, killed, launched, opened, suite};

struct Fake(FakeHost);

fn fake(_rule: &str) -> Option<Fake> {
    Some(Fake(FakeHost::new(echo())))
}

/// Does what the real guest of these tests does.
fn echo() -> Agent {
    Arc::new(|mut guest: FakeGuest| {
        Box::pin(async move {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = guest.stream.read(&mut chunk).await {
                match String::from_utf8_lossy(&chunk[..count]).trim_end() {
                    "!poweroff" => guest.power_off(),
                    "!reset" => guest.reset(),
                    words => match words.strip_prefix("!say,") {
                        Some(word) => guest.say(word.as_bytes()),
                        None => guest.stream.write_all(&chunk[..count]).await.unwrap(),
                    },
                }
            }
        })
    })
}

impl Bench for Fake {
    fn driver(&self) -> Arc<dyn Vmm> {
        Arc::new(self.0.driver())
    }

    fn plan(&self, behaviour: &str) -> LaunchPlan {
        self.0.set_faults(Faults {
            never_answers: behaviour == "mute",
            ..Faults::default()
        });
        let vm = VmId::new();
        LaunchPlan {
            vm,
            dir: PathBuf::from("/nonexistent/vms").join(vm.to_string()),
            kernel: "/nonexistent/vmlinux".into(),
            initramfs: "/nonexistent/initramfs".into(),
            kernel_args: Vec::new(),
            vcpu_count: 1,
            memory_mib: 256,
            drives: vec![Drive {
                path: "/nonexistent/disk".into(),
                access: DriveAccess::ReadWrite,
                serial: "data".into(),
            }],
            network: NetworkPlan::None,
            limits: None,
        }
    }

    async fn end_daemon(&self) {}
}

suite!(fake);

#[tokio::test]
async fn each_rung_of_a_stop_can_be_made_to_fail() {
    let fake = fake("").unwrap();
    let driver = fake.driver();
    let machine = launched(&driver, &fake.plan("echo")).await;
    let stubborn = Faults {
        ignores_power_button: true,
        ignores_terminate: true,
        ignores_kill: true,
        ..Faults::default()
    };
    fake.0.set_faults(stubborn);
    machine.power_button().await.unwrap();
    machine.terminate().unwrap();
    machine.kill().unwrap();
    assert!(timeout(GLIMPSE, machine.wait()).await.is_err());
    // A signal that nothing withstands comes as soon as it can.
    fake.0.set_faults(Faults::default());
    assert!(matches!(ended(&machine).await, VmmExit::Other { .. }));
}

#[tokio::test]
async fn launches_can_be_made_to_fail_and_vms_to_die() {
    let fake = fake("").unwrap();
    let driver = fake.driver();
    let plan = fake.plan("echo");
    fake.0.set_faults(Faults {
        launch_fails: true,
        ..Faults::default()
    });
    let result = driver.launch(&plan, &|_identity| Ok(())).await;
    assert!(matches!(result.err(), Some(VmmError::EndedEarly { .. })));
    fake.0.set_faults(Faults {
        dies_after: Some(Duration::from_millis(20)),
        ..Faults::default()
    });
    let machine = launched(&driver, &plan).await;
    assert_eq!(fake.0.living(), [plan.vm]);
    ended(&machine).await;
    assert!(fake.0.living().is_empty());
    let machine = launched(&driver, &fake.plan("echo")).await;
    fake.0.crash(fake.0.living()[0]);
    ended(&machine).await;
    assert_eq!(fake.0.launches(), 2);
}

#[tokio::test]
async fn an_agent_knows_its_vm() {
    let host = FakeHost::new(Arc::new(|mut guest: FakeGuest| {
        Box::pin(async move {
            assert_eq!(guest.vm(), guest.plan().vm);
            guest
                .stream
                .write_all(guest.vm().to_string().as_bytes())
                .await
                .unwrap();
        })
    }));
    let fake = Fake(host);
    let driver = fake.driver();
    let plan = fake.plan("echo");
    let machine = launched(&driver, &plan).await;
    let mut text = String::new();
    opened(&machine)
        .await
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, plan.vm.to_string());
    killed(&machine).await;
}
