use banger_core::Timestamp;
use banger_core::operation::OperationKind;
use futures::FutureExt as _;

use super::*;

fn running() -> Operation {
    Operation {
        owner: banger_core::Owner::daemon(),
        id: OperationId::new(),
        kind: OperationKind::PullImage,
        target: String::new(),
        state: OperationState::Running,
        stages: Vec::new(),
        create_time: Timestamp::UNIX_EPOCH,
        end_time: None,
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_heartbeats() {
    let mut stream = served(
        stream::pending::<Result<&str, Status>>(),
        CancellationToken::new(),
        || "beat",
    );
    let begin = Instant::now();
    assert_eq!(stream.next().await.unwrap().unwrap(), "beat");
    assert_eq!(stream.next().await.unwrap().unwrap(), "beat");
    assert_eq!(begin.elapsed(), 2 * HEARTBEAT);
}

#[tokio::test]
async fn a_stream_that_is_never_silent_ends_with_the_daemon() {
    let end = CancellationToken::new();
    let mut stream = served(stream::repeat_with(|| Ok("item")), end.clone(), || "beat");
    assert_eq!(stream.next().await.unwrap().unwrap(), "item");
    end.cancel();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::Unavailable, "the daemon is stopping")
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn changes_are_merged_to_ten_in_a_second() {
    let (sender, receiver) = watch::channel(Arc::new(running()));
    let mut changes = std::pin::pin!(changes(receiver));
    let begin = Instant::now();
    assert!(changes.next().await.unwrap().is_ok());
    for _ in 0..5 {
        sender.send_modify(|operation| Arc::make_mut(operation).target.push('x'));
    }
    assert_eq!(changes.next().await.unwrap().unwrap().target, "xxxxx");
    assert_eq!(begin.elapsed(), MERGED_OVER);
    assert!(changes.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_at_once_and_is_the_last() {
    let (sender, receiver) = watch::channel(Arc::new(running()));
    let mut changes = std::pin::pin!(changes(receiver));
    let begin = Instant::now();
    assert!(changes.next().await.unwrap().is_ok());
    sender.send_modify(|operation| Arc::make_mut(operation).state = OperationState::Succeeded);
    assert!(changes.next().await.unwrap().unwrap().state.is_final());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(changes.next().await.is_none());
}

#[tokio::test]
async fn an_operation_that_went_with_the_daemon_is_an_error() {
    let (sender, receiver) = watch::channel(Arc::new(running()));
    drop(sender);
    let mut changes = std::pin::pin!(changes(receiver));
    assert!(changes.next().await.unwrap().is_ok());
    assert_eq!(
        changes.next().await.unwrap().unwrap_err().code(),
        tonic::Code::Unavailable
    );
    assert!(changes.next().await.is_none());
}
