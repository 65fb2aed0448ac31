//! A guest that has frozen: known within the longest silence, unless it is held.
use std::sync::Arc;
use std::time::Duration;

use crate::support::{PATIENCE, agent, shell};
use banger_core::guest::{Guest, GuestConnector, GuestError};
use banger_core::session::{AttachOptions, SessionEvent};
use banger_core::tree::DiskWrites;
use banger_core::vmm::Accelerator;
use banger_core::{SessionId, VmId};
use banger_guest::{Connector, Deadlines};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Less than what any call has that is not told the silence.
const SOON: Duration = Duration::from_secs(30);

/// An agent that can be frozen: nothing of what it says comes any more, and it hears nothing.
struct Freezer {
    guest: Arc<dyn Guest>,
    is_frozen: watch::Sender<bool>,
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_frozen: watch::Receiver<bool>,
) -> Option<()> {
    let mut piece = vec![0; 1 << 16];
    loop {
        let length = from
            .read(&mut piece)
            .await
            .ok()
            .filter(|&length| length > 0)?;
        is_frozen.wait_for(|frozen| !frozen).await.ok()?;
        to.write_all(&piece[..length]).await.ok()?;
    }
}

async fn freezer(silence: Duration) -> Freezer {
    let agent = agent(None);
    // In memory, so that time that stands still waits for what is on its way.
    let (ours, near) = duplex(1 << 16);
    let (far, theirs) = duplex(1 << 16);
    let is_frozen = watch::Sender::new(false);
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    let serving = Arc::clone(&agent);
    agent
        .tasks
        .spawn(async move { banger_agent::serve::serve(&serving, theirs).await });
    agent
        .tasks
        .spawn(copy(near_read, far_write, is_frozen.subscribe()));
    agent
        .tasks
        .spawn(copy(far_read, near_write, is_frozen.subscribe()));
    let deadlines = Deadlines {
        silence,
        silence_translated: PATIENCE * 10,
        ..Deadlines::default()
    };
    let connector = Connector::new(deadlines);
    let connected = connector.connect(VmId::new(), Box::new(ours), Accelerator::Kvm);
    Freezer {
        guest: connected.await.unwrap().0,
        is_frozen,
    }
}

/// Longer than any wait on a guest.
const LONG_HOLD: Duration = Duration::from_secs(2 * 3600);

async fn started(guest: &Arc<dyn Guest>) -> SessionId {
    let id = SessionId::new();
    guest.start_session(id, &shell("sleep 600")).await.unwrap();
    id
}

fn is_silent<T: std::fmt::Debug>(result: &Result<T, GuestError>, silence: Duration) -> bool {
    matches!(result, Err(GuestError::Deadline { limit, .. }) if *limit == silence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_waiters_of_a_frozen_guest_are_told_that_it_is_silent() {
    const SILENCE: Duration = Duration::from_secs(3);
    let rig = freezer(SILENCE).await;
    let id = started(&rig.guest).await;
    let log = rig.guest.read_log(id, AttachOptions::default(), true);
    let mut log = log.await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert!(matches!(first, SessionEvent::Attached(_)));
    rig.is_frozen.send_replace(true);
    let (event, waited) = timeout(SOON, async {
        tokio::join!(log.next(), rig.guest.wait_session(id))
    })
    .await
    .unwrap();
    let event = event.unwrap();
    assert!(is_silent(&event, SILENCE), "{event:?}");
    assert!(is_silent(&waited, SILENCE), "{waited:?}");
    assert!(log.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_held_is_not_dead_and_one_that_does_not_go_on_is() {
    const SILENCE: Duration = Duration::from_millis(300);
    let rig = freezer(SILENCE).await;
    rig.guest.set_held(true);
    let id = started(&rig.guest).await;
    let log = rig.guest.read_log(id, AttachOptions::default(), true);
    let mut log = log.await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert!(matches!(first, SessionEvent::Attached(_)));
    rig.is_frozen.send_replace(true);
    // Ten times the silence: neither the reader nor the waiter gives the guest up.
    let both = async { tokio::join!(log.next(), rig.guest.wait_session(id)) };
    assert!(timeout(SILENCE * 10, both).await.is_err());
    rig.is_frozen.send_replace(false);
    let beat = timeout(PATIENCE, log.next()).await.unwrap();
    assert_eq!(beat, Some(Ok(SessionEvent::Heartbeat)));
    rig.is_frozen.send_replace(true);
    rig.guest.set_held(false);
    let event = timeout(SOON, async {
        loop {
            match log.next().await.unwrap() {
                Ok(SessionEvent::Heartbeat) => sleep(Duration::ZERO).await,
                other => break other,
            }
        }
    });
    let event = event.await.unwrap();
    assert!(is_silent(&event, SILENCE), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_held_for_hours_goes_on_with_whoever_is_attached() {
    let rig = freezer(PATIENCE).await;
    let id = started(&rig.guest).await;
    let log = rig.guest.read_log(id, AttachOptions::default(), true);
    let mut log = log.await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert!(matches!(first, SessionEvent::Attached(_)));
    rig.guest.set_held(true);
    rig.is_frozen.send_replace(true);
    sleep(LONG_HOLD).await;
    rig.is_frozen.send_replace(false);
    rig.guest.set_held(false);
    assert_eq!(log.next().await, Some(Ok(SessionEvent::Heartbeat)));
    rig.guest.delete_session(id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_hold_comes_into_is_answered_after_it() {
    let rig = freezer(PATIENCE).await;
    let id = started(&rig.guest).await;
    rig.is_frozen.send_replace(true);
    rig.guest.set_held(true);
    let goes_on = async {
        sleep(LONG_HOLD).await;
        rig.is_frozen.send_replace(false);
        rig.guest.set_held(false);
    };
    let (found, ()) = tokio::join!(rig.guest.get_session(id), goes_on);
    assert_eq!(found.unwrap().id, id);
    rig.guest.delete_session(id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_call_is_not_waited_for_when_the_guest_is_dead() {
    let rig = freezer(PATIENCE).await;
    let limit = Deadlines::default().flush;
    rig.is_frozen.send_replace(true);
    let told = rig.guest.set_disk_writes(DiskWrites::Hold).await;
    assert!(
        matches!(told, Err(GuestError::Deadline { limit: told, .. }) if told < limit),
        "{told:?}"
    );
}
