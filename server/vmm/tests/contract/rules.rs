//! The rules that every driver keeps, written once against the port.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use banger_core::guest::BoxedChannel;
use banger_core::vmm::{LaunchPlan, Machine, ProcessIdentity, Vmm, VmmError, VmmExit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longer than any boot on a busy host, even one whose KVM emulates what it should run.
pub(crate) const BOOT: Duration = Duration::from_secs(240);

/// Longer than any step of a guest that runs.
pub(crate) const STEP: Duration = Duration::from_secs(40);

/// Long enough to see that something does not happen.
pub(crate) const GLIMPSE: Duration = Duration::from_millis(300);

/// How large the drive of a plan is made, which begins as [`DRIVE_BYTES`].
pub(crate) const GROWN_BYTES: u64 = 2 * DRIVE_BYTES;

/// How large the drive of a plan is.
pub(crate) const DRIVE_BYTES: u64 = 1 << 20;

/// A driver under test with a guest that echoes, and obeys `!poweroff`, `!reset` and `!say,<word>`.
pub(crate) trait Bench: Sync {
    /// A driver as a daemon that just started has it: it knows nothing of the one before.
    fn driver(&self) -> Arc<dyn Vmm>;
    /// A new VM whose guest behaves so from its start: `echo` or `mute`. It has one drive.
    fn plan(&self, behaviour: &str) -> LaunchPlan;
    /// Lets go of everything the drivers of this bench hold, as the end of a daemon does.
    fn end_daemon(&self) -> impl Future<Output = ()>;
}

pub(crate) async fn launched(driver: &Arc<dyn Vmm>, plan: &LaunchPlan) -> Arc<dyn Machine> {
    timeout(BOOT, driver.launch(plan, &|_identity| Ok(())))
        .await
        .unwrap()
        .unwrap()
}

pub(crate) async fn opened(machine: &Arc<dyn Machine>) -> BoxedChannel {
    timeout(BOOT, machine.open_channel())
        .await
        .unwrap()
        .unwrap()
}

pub(crate) async fn echoes(channel: &mut BoxedChannel, word: &str) {
    channel.write_all(word.as_bytes()).await.unwrap();
    let mut answer = vec![0; word.len()];
    timeout(STEP, channel.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, word.as_bytes());
}

/// The guest's answer to one line.
pub(crate) async fn asked(channel: &mut BoxedChannel, question: &str) -> String {
    channel
        .write_all(format!("{question}\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        answer.push(timeout(STEP, channel.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8_lossy(&answer).trim().to_owned()
}

pub(crate) async fn ended(machine: &Arc<dyn Machine>) -> VmmExit {
    timeout(STEP, machine.wait()).await.unwrap()
}

pub(crate) async fn killed(machine: &Arc<dyn Machine>) {
    machine.kill().unwrap();
    ended(machine).await;
}

/// The identity is told before launch returns, and the channel carries bytes both ways.
pub(crate) async fn a_launched_vm_is_journalled_and_its_agent_answers(bench: &impl Bench) {
    let driver = bench.driver();
    let plan = bench.plan("echo");
    let journalled = std::sync::Mutex::new(Vec::new());
    let journal = |identity: &ProcessIdentity| {
        journalled.lock().unwrap().push(identity.clone());
        Ok(())
    };
    let machine = timeout(BOOT, driver.launch(&plan, &journal))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        journalled.lock().unwrap().as_slice(),
        [machine.identity().clone()]
    );
    let mut channel = opened(&machine).await;
    echoes(&mut channel, "hello\n").await;
    killed(&machine).await;
    let end = timeout(STEP, channel.read_u8()).await.unwrap();
    assert!(end.is_err(), "the channel ends with the VM");
}

/// Whoever asks, whenever: the end is told, and told alike.
pub(crate) async fn every_waiter_gets_the_same_answer(bench: &impl Bench) {
    let driver = bench.driver();
    let machine = launched(&driver, &bench.plan("echo")).await;
    assert!(
        timeout(GLIMPSE, machine.wait()).await.is_err(),
        "a dropped wait harms nothing"
    );
    let (first, second, ()) = tokio::join!(ended(&machine), ended(&machine), async {
        machine.kill().unwrap();
    });
    assert_eq!(first, second);
    assert_eq!(ended(&machine).await, first);
    assert!(matches!(first, VmmExit::Other { .. }), "{first:?}");
    machine.kill().unwrap();
    machine.terminate().unwrap();
    assert!(matches!(machine.open_channel().await, Err(VmmError::Gone)));
}

/// Asking the process to end is enough where nothing is in the way.
pub(crate) async fn a_terminated_vmm_ends(bench: &impl Bench) {
    let driver = bench.driver();
    let machine = launched(&driver, &bench.plan("echo")).await;
    machine.terminate().unwrap();
    assert!(matches!(ended(&machine).await, VmmExit::Other { .. }));
}

/// A power-off and a reset of the guest are told apart.
pub(crate) async fn the_guests_own_end_is_told(bench: &impl Bench) {
    for (word, exit) in [
        ("!poweroff\n", VmmExit::GuestPowerOff),
        ("!reset\n", VmmExit::GuestReset),
    ] {
        let driver = bench.driver();
        let machine = launched(&driver, &bench.plan("echo")).await;
        let mut channel = opened(&machine).await;
        channel.write_all(word.as_bytes()).await.unwrap();
        assert_eq!(ended(&machine).await, exit);
    }
}

/// What could not be recorded does not run.
pub(crate) async fn a_journal_that_fails_leaves_nothing(bench: &impl Bench) {
    let driver = bench.driver();
    let plan = bench.plan("echo");
    let result = driver
        .launch(&plan, &|_identity| Err(io::ErrorKind::StorageFull.into()))
        .await;
    assert!(
        matches!(result, Err(VmmError::Journal { .. })),
        "{:?}",
        result.err()
    );
    assert_eq!(strays(&driver, &plan).await, []);
}

/// A channel that is opened again is a new conversation, however often, and the former one ends.
pub(crate) async fn a_reopened_channel_replaces_the_one_before(bench: &impl Bench) {
    let driver = bench.driver();
    let machine = launched(&driver, &bench.plan("echo")).await;
    let mut former = opened(&machine).await;
    for round in 0..40 {
        // Something unread is left behind on some rounds.
        if round % 3 == 0 {
            former.write_all(&[b'x'; 5000]).await.unwrap();
        }
        let mut channel = opened(&machine).await;
        echoes(&mut channel, &format!("round {round}\n")).await;
        let mut rest = Vec::new();
        let _ = timeout(STEP, former.read_to_end(&mut rest))
            .await
            .expect("the former channel ends");
        former = channel;
    }
    drop(former);
    echoes(&mut opened(&machine).await, "after a hang-up\n").await;
    killed(&machine).await;
}

/// An opening that is given up at any instant does not spoil the next.
pub(crate) async fn a_dropped_opening_harms_nothing(bench: &impl Bench) {
    let driver = bench.driver();
    let machine = launched(&driver, &bench.plan("echo")).await;
    for milliseconds in [0, 1, 2, 5, 10, 50, 200] {
        let _ = timeout(Duration::from_millis(milliseconds), machine.open_channel()).await;
    }
    echoes(&mut opened(&machine).await, "still there\n").await;
    for milliseconds in [0, 1, 2, 5] {
        let _ = timeout(Duration::from_millis(milliseconds), machine.open_channel()).await;
    }
    echoes(&mut opened(&machine).await, "and again\n").await;
    killed(&machine).await;
}

/// Whoever waits for an agent that never comes learns of the VM's end.
pub(crate) async fn a_mute_guest_keeps_the_channel_closed_until_its_end(bench: &impl Bench) {
    let driver = bench.driver();
    let machine = launched(&driver, &bench.plan("mute")).await;
    assert!(timeout(GLIMPSE, machine.open_channel()).await.is_err());
    let (channel, ()) = tokio::join!(machine.open_channel(), async {
        tokio::time::sleep(GLIMPSE).await;
        machine.kill().unwrap();
    });
    assert!(matches!(channel.err(), Some(VmmError::Gone)));
}

/// A launch that is given up at any instant leaves no VMM.
pub(crate) async fn a_dropped_launch_leaves_nothing(bench: &impl Bench) {
    let driver = bench.driver();
    for milliseconds in [0, 2, 5, 10, 20, 40, 80] {
        let plan = bench.plan("echo");
        let limit = Duration::from_millis(milliseconds);
        let calls = AtomicU32::new(0);
        let journal = |_identity: &ProcessIdentity| {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        if let Ok(machine) = timeout(limit, driver.launch(&plan, &journal)).await {
            killed(&machine.unwrap()).await;
        }
        until_no_stray(&driver, &plan).await;
        assert!(calls.load(Ordering::Relaxed) <= 1);
    }
}

/// A VM outlives its daemon; the next one finds it, talks to it, and is told of its end.
pub(crate) async fn a_vm_outlives_its_daemon_and_is_adopted(bench: &impl Bench) {
    let driver = bench.driver();
    let plan = bench.plan("echo");
    let machine = launched(&driver, &plan).await;
    let identity = machine.identity().clone();
    echoes(&mut opened(&machine).await, "first daemon\n").await;
    drop((machine, driver));
    bench.end_daemon().await;

    let driver = bench.driver();
    assert_eq!(strays(&driver, &plan).await, [(plan.vm, identity.clone())]);
    let mut recycled = identity.clone();
    recycled.start_ticks += 1;
    assert!(
        driver
            .adopt(plan.vm, &plan.dir, &recycled)
            .await
            .unwrap()
            .is_none()
    );
    let machine = driver
        .adopt(plan.vm, &plan.dir, &identity)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*machine.identity(), identity);
    let mut channel = opened(&machine).await;
    echoes(&mut channel, "second daemon\n").await;
    channel.write_all(b"!poweroff\n").await.unwrap();
    assert_eq!(ended(&machine).await, VmmExit::GuestPowerOff);
    assert!(
        driver
            .adopt(plan.vm, &plan.dir, &identity)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(strays(&driver, &plan).await, []);
}

/// What the guest says on its console can be followed, and read after its end.
pub(crate) async fn the_console_is_followed_and_stays_readable(bench: &impl Bench) {
    let driver = bench.driver();
    let plan = bench.plan("echo");
    let console = driver.console(&plan.dir);
    let machine = launched(&driver, &plan).await;
    let mut channel = opened(&machine).await;
    channel
        .write_all(b"!say,marker-of-the-test\n")
        .await
        .unwrap();
    let (mut text, mut offset) = (String::new(), 0);
    while !text.contains("marker-of-the-test") {
        timeout(STEP, console.grown(offset)).await.unwrap().unwrap();
        let chunk = console.read(offset, 4096).await.unwrap();
        offset = chunk.offset + u64::try_from(chunk.data.len()).unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk.data));
    }
    killed(&machine).await;
    let again = driver.console(&plan.dir).read(0, 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&again.data).contains("marker-of-the-test"));
}

/// Its vCPUs are held, and nothing of what it is sent meanwhile is lost.
pub(crate) async fn a_paused_vm_stands_still_and_goes_on(bench: &impl Bench) {
    let driver = bench.driver();
    let machine = launched(&driver, &bench.plan("echo")).await;
    let mut channel = opened(&machine).await;
    machine.resume().await.unwrap();
    for _twice in 0..2 {
        machine.pause().await.unwrap();
        machine.pause().await.unwrap();
        channel.write_all(b"held\n").await.unwrap();
        assert!(
            timeout(GLIMPSE, channel.read_u8()).await.is_err(),
            "a guest that is held says nothing"
        );
        machine.resume().await.unwrap();
        let mut answer = [0; 5];
        timeout(STEP, channel.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"held\n");
    }
    machine.pause().await.unwrap();
    killed(&machine).await;
    assert!(machine.pause().await.is_err());
    assert!(machine.resume().await.is_err());
}

/// What a VMM and its drives used is told, and a drive grows under a guest that runs.
pub(crate) async fn a_vmm_tells_what_it_uses_and_grows_a_drive(bench: &impl Bench) {
    let driver = bench.driver();
    let plan = bench.plan("echo");
    let machine = launched(&driver, &plan).await;
    echoes(&mut opened(&machine).await, "busy\n").await;
    let used = machine.metrics().await.unwrap();
    assert!(used.rss_bytes > 0 && used.thread_count > 0, "{used:?}");
    let serials: Vec<_> = used.drives.iter().map(|drive| &drive.serial).collect();
    assert_eq!(serials, [&plan.drives[0].serial]);
    if let Ok(file) = std::fs::File::options()
        .write(true)
        .open(&plan.drives[0].path)
    {
        file.set_len(GROWN_BYTES).unwrap();
    }
    let drive = &plan.drives[0].serial;
    machine.grow_drive(drive, GROWN_BYTES).await.unwrap();
    let refused = machine.grow_drive("none", GROWN_BYTES).await;
    assert!(
        matches!(refused, Err(VmmError::Refused { .. })),
        "{refused:?}"
    );
    killed(&machine).await;
    assert!(machine.metrics().await.is_err());
}

pub(crate) async fn strays(
    driver: &Arc<dyn Vmm>,
    plan: &LaunchPlan,
) -> Vec<(banger_core::VmId, ProcessIdentity)> {
    driver
        .find_strays(plan.dir.parent().unwrap())
        .await
        .unwrap()
}

async fn until_no_stray(driver: &Arc<dyn Vmm>, plan: &LaunchPlan) {
    let gone = async {
        while !strays(driver, plan).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(STEP, gone).await.expect("no VMM is left");
}

/// Makes a test of each rule for one kind of bench; `$bench` is an expression that gives an `Option` of one.
macro_rules! suite {
    ($bench:expr; $($rule:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            if let Some(bench) = $bench(stringify!($rule)) {
                crate::rules::$rule(&bench).await;
            }
        }
    )+};
    ($bench:expr) => {
        suite!($bench;
            a_launched_vm_is_journalled_and_its_agent_answers,
            every_waiter_gets_the_same_answer,
            a_terminated_vmm_ends,
            the_guests_own_end_is_told,
            a_journal_that_fails_leaves_nothing,
            a_reopened_channel_replaces_the_one_before,
            a_dropped_opening_harms_nothing,
            a_mute_guest_keeps_the_channel_closed_until_its_end,
            a_dropped_launch_leaves_nothing,
            a_vm_outlives_its_daemon_and_is_adopted,
            the_console_is_followed_and_stays_readable,
            a_paused_vm_stands_still_and_goes_on,
            a_vmm_tells_what_it_uses_and_grows_a_drive,
        );
    };
}
pub(crate) use suite;
