//! Exports that nobody reads: so many of them, for so long, and at nobody else's expense.

use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::image_service_client::ImageServiceClient;
use banger_proto::v1::register_image_request::Message;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::access::callers::user;
use crate::rig::{PATIENCE, Rig, assert_refused, drain};

/// More than all that lies between the daemon and a caller that does not read.
const LARGE_BYTES: usize = 16 << 20;
/// Exports of one owner.
const PLACES: usize = 16;

type Unread = Streaming<v1::ExportOciLayoutResponse>;

impl Rig {
    /// Registers an image that does not become smaller.
    async fn register_large(&self) {
        let mut noise = vec![0; LARGE_BYTES];
        fastrand::Rng::with_seed(7).fill(&mut noise);
        let mut header = tar::Header::new_ustar();
        header.set_path("noise").unwrap();
        header.set_size(LARGE_BYTES as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, noise.as_slice()).unwrap();
        let archive = archive.into_inner().unwrap();
        let start = v1::RegisterImageStart {
            reference: "large:1".into(),
            ..Default::default()
        };
        let chunks = archive.chunks(1 << 19);
        let chunks = chunks.map(|chunk| Message::Chunk(chunk.to_vec().into()));
        let messages: Vec<_> = std::iter::once(Message::Start(start))
            .chain(chunks)
            .map(|message| v1::RegisterImageRequest {
                message: Some(message),
            })
            .collect();
        let mut images = self.images();
        let answers = images.register_image(futures::stream::iter(messages)).await;
        drain(answers.unwrap().into_inner()).await.unwrap();
    }

    async fn begin_export(&self) -> Result<Unread, Status> {
        begin_export(self.channel.clone()).await
    }

    /// Begins an export as soon as there is a place.
    async fn begin_export_in_time(&self) -> Unread {
        let begun = async {
            loop {
                match self.begin_export().await {
                    Ok(export) => return export,
                    Err(full) => assert_full(&full),
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, begun).await;
        in_time.expect("a place becomes free")
    }

    /// As many exports as may be, none of them read.
    async fn fill_exports(&self) -> Vec<Unread> {
        let mut unread = Vec::new();
        for _ in 0..PLACES {
            unread.push(self.begin_export().await.unwrap());
        }
        unread
    }
}

async fn begin_export(channel: Channel) -> Result<Unread, Status> {
    let request = v1::ExportOciLayoutRequest {
        image: "large:1".into(),
    };
    let answers = ImageServiceClient::new(channel)
        .export_oci_layout(request)
        .await?;
    Ok(answers.into_inner())
}

fn assert_full(status: &Status) {
    assert_refused(status, Code::ResourceExhausted, "TOO_MANY_EXPORTS", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_go_on_at_once() {
    let rig = Rig::start().await;
    rig.register_large().await;
    rig.furnish().await;
    let mut unread = rig.fill_exports().await;
    let full = rig.begin_export().await.map(drop).unwrap_err();
    assert_full(&full);
    assert!(full.message().contains("16 exports of"), "{full:?}");
    // Of a bundle and of a kernel as well.
    let bundle = v1::ExportBundleRequest {
        image: "large:1".into(),
        ..Default::default()
    };
    let full = rig.images().export_bundle(bundle).await.map(drop);
    assert_full(&full.unwrap_err());
    let kernel = v1::ExportKernelRequest { kernel: "k".into() };
    let full = rig.kernels().export_kernel(kernel).await.map(drop);
    assert_full(&full.unwrap_err());
    // Another owner has places of its own, and all of it comes.
    let other = rig.enter(user(8001, Role::User)).await;
    let others = begin_export(other.channel.clone()).await.unwrap();
    assert!(drain(others).await.unwrap().len() > 2);
    // A caller that goes makes room.
    drop(unread.pop());
    unread.push(rig.begin_export_in_time().await);
    drop(unread);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_nothing_is_given_up_and_told() {
    let rig = Rig::start_with(|config| {
        config.export_stall_timeout = "200ms".parse().unwrap();
    })
    .await;
    rig.register_large().await;
    let mut unread = rig.fill_exports().await;
    // The places become free though all callers are still there.
    let more = rig.begin_export_in_time().await;
    let first = unread.swap_remove(0);
    drop((unread, more));
    let stalled = drain(first).await.map(|all| all.len()).unwrap_err();
    assert_refused(&stalled, Code::DeadlineExceeded, "EXPORT_STALLED", None);
    rig.stopped().await;
}
