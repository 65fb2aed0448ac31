//! Uploads that stall, take too long, are too large or too many, or would take the last of the disk.

use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::image_service_client::ImageServiceClient;
use banger_proto::v1::register_image_request::Message;
use bangerd::config::Config;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::access::callers::user;
use crate::rig::{PATIENCE, Rig, assert_refused, kernel_messages};

/// A caller that sends what it is told to.
struct Sender(mpsc::Sender<v1::RegisterImageRequest>);

impl Sender {
    async fn chunk(&self, bytes: Vec<u8>) -> bool {
        self.send(Message::Chunk(bytes.into())).await
    }

    async fn send(&self, message: Message) -> bool {
        let message = Some(message);
        let sent = self.0.send(v1::RegisterImageRequest { message }).await;
        sent.is_ok()
    }
}

impl Rig {
    async fn with_uploads(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(change).await
    }

    /// Begins to register an image.
    async fn upload(&self) -> (Sender, tokio::task::JoinHandle<Status>) {
        let (sender, messages) = mpsc::channel(4);
        let sender = Sender(sender);
        let start = v1::RegisterImageStart {
            reference: "uploaded:1".into(),
            ..Default::default()
        };
        sender.send(Message::Start(start)).await;
        let mut images = self.images();
        let call = async move {
            let answer = images.register_image(ReceiverStream::new(messages)).await;
            answer.map(drop).unwrap_err()
        };
        let call = tokio_util::task::TaskTracker::new().spawn(call);
        (sender, call)
    }

    /// The uploads whose files are there.
    fn uploads(&self) -> usize {
        let tmp = self.dir.path().join("state/tmp");
        let entries = std::fs::read_dir(tmp).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("upload-"))
            .count()
    }

    async fn until_uploads(&self, count: usize) {
        let reached = async {
            while self.uploads() != count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        assert!(in_time.is_ok(), "{} uploads", self.uploads());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_sends_nothing_more_is_given_up() {
    let rig = Rig::with_uploads(|config| {
        config.upload_stall_timeout = "500ms".parse().unwrap();
    })
    .await;
    let (sender, call) = rig.upload().await;
    // On a busy host the daemon may have given up before this.
    let _ = sender.chunk(vec![7; 1000]).await;
    let refused = call.await.unwrap();
    assert_refused(&refused, Code::DeadlineExceeded, "UPLOAD_STALLED", None);
    assert_eq!(rig.uploads(), 0);
    // Of a kernel as well, and of a context.
    let (kernel, messages) = mpsc::channel(8);
    for message in kernel_messages("k", &[7; 1000]) {
        kernel.send(message).await.unwrap();
    }
    let call = rig
        .kernels()
        .import_kernel(ReceiverStream::new(messages))
        .await;
    let refused = call.map(drop).unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "UPLOAD_STALLED", None);
    let (context, messages) = mpsc::channel(8);
    let recipe = v1::DockerfileRecipe {
        text: "FROM scratch\n".into(),
        ..Default::default()
    };
    let start = v1::BuildImageStart {
        reference: "built:1".into(),
        recipe: Some(v1::build_image_start::Recipe::Dockerfile(recipe)),
        ..Default::default()
    };
    let message = Some(v1::build_image_request::Message::Start(start));
    context
        .send(v1::BuildImageRequest { message })
        .await
        .unwrap();
    let call = rig
        .images()
        .build_image(ReceiverStream::new(messages))
        .await;
    let refused = call.map(drop).unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "UPLOAD_STALLED", None);
    assert_eq!(rig.uploads(), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_never_ends_is_given_up() {
    let rig = Rig::with_uploads(|config| {
        config.upload_timeout = "1s".parse().unwrap();
    })
    .await;
    let (sender, call) = rig.upload().await;
    while sender.chunk(vec![7; 100]).await {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let refused = call.await.unwrap();
    assert_refused(&refused, Code::DeadlineExceeded, "UPLOAD_TOO_SLOW", None);
    assert_eq!(rig.uploads(), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_as_soon_as_it_is() {
    let rig = Rig::with_uploads(|config| config.upload_max_mib = 1).await;
    let (sender, call) = rig.upload().await;
    while sender.chunk(vec![7; 256 << 10]).await {}
    let refused = call.await.unwrap();
    let field = Some("chunk");
    assert_refused(&refused, Code::InvalidArgument, "UPLOAD_TOO_LARGE", field);
    assert!(refused.message().contains("1048576 bytes"), "{refused:?}");
    assert_eq!(rig.uploads(), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_space_that_is_kept_free_is_not_filled_by_uploads() {
    // More than any disk has.
    let rig = Rig::with_uploads(|config| config.disk_reserve_mib = 1 << 40).await;
    let (_sender, call) = rig.upload().await;
    let refused = call.await.unwrap();
    assert_refused(&refused, Code::ResourceExhausted, "HOST_EXHAUSTED", None);
    let kernel = futures::stream::iter(kernel_messages("k", &[7; 1000]));
    let refused = rig.kernels().import_kernel(kernel).await.map(drop);
    assert_refused(
        &refused.unwrap_err(),
        Code::ResourceExhausted,
        "HOST_EXHAUSTED",
        None,
    );
    assert_eq!(rig.uploads(), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_come_at_once() {
    let rig = Rig::start().await;
    let mut coming = Vec::new();
    for _ in 0..32 {
        coming.push(rig.upload().await);
    }
    rig.until_uploads(32).await;
    let (_sender, call) = rig.upload().await;
    let refused = call.await.unwrap();
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_UPLOADS", None);
    assert!(refused.message().contains("32 uploads"), "{refused:?}");
    // Another owner has places of its own.
    let other = rig.enter(user(8001, Role::Admin)).await;
    let (sender, messages) = mpsc::channel(4);
    let start = v1::RegisterImageStart {
        reference: "another:1".into(),
        ..Default::default()
    };
    Sender(sender.clone()).send(Message::Start(start)).await;
    let mut images = ImageServiceClient::new(other.channel.clone());
    let others = tokio_util::task::TaskTracker::new().spawn(async move {
        let answer = images.register_image(ReceiverStream::new(messages)).await;
        answer.map(drop)
    });
    rig.until_uploads(33).await;
    drop(sender);
    let _ = others.await;
    rig.until_uploads(32).await;
    // A caller that goes makes room.
    let (_, gone) = coming.pop().unwrap();
    gone.abort();
    rig.until_uploads(31).await;
    coming.push(rig.upload().await);
    rig.until_uploads(32).await;
    for (_, call) in coming {
        call.abort();
    }
    rig.stopped().await;
}
