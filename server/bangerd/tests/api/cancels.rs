//! A campaign: work on images and kernels is given up at random instants, by a cancel, by a caller who hangs up, or by
//! both. After each: the work has ended, as cancelled or well, nothing is left under a temporary name, no disk is there
//! that no image has, every blob is what its name says, and the same work then makes the same as undisturbed.
//!
//! The seed is printed; `BANGER_SEED` repeats a run as far as time allows, `BANGER_CANCELS` makes it longer or shorter.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use banger_catalog::Digest;
use banger_proto::v1;
use tokio::sync::oneshot;
use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::builds::{dockerfile, files_below};
use crate::catalogs::{Shelf, pulled};
use crate::registry::Registry;
use crate::rig::{PATIENCE, Rig, kernel_messages, vmlinux};
use crate::seed::{seed, setting};
use crate::stop::until;

/// Cancels of one run.
const CANCELS: u64 = 40;
/// Something is given up at most this much later than it took when nothing disturbed it.
const LATE: f64 = 1.1;
/// What a file of an image holds.
const NOISE_BYTES: usize = 1 << 20;
/// The kernel that VMs get, and the image that builds begin with.
const OWN_KERNEL: &str = "own";
const BASE: &str = "base:1";

/// What is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Pull,
    PullBundle,
    PullKernel,
    Import,
    ImportKernel,
    Build,
}

const WORKS: [Work; 6] = [
    Work::Pull,
    Work::PullBundle,
    Work::PullKernel,
    Work::Import,
    Work::ImportKernel,
    Work::Build,
];

/// How it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The caller stays, and is told.
    Cancel,
    /// What has been accepted goes on.
    HangUp,
    HangUpAndCancel,
}

const WAYS: [Way; 4] = [Way::Cancel, Way::Cancel, Way::HangUp, Way::HangUpAndCancel];

/// What a work makes when nothing disturbs it.
struct Usual {
    time: Duration,
    content: Option<Digest>,
}

struct Stand {
    rig: Rig,
    registry: Registry,
    rootfs: Vec<u8>,
    /// A kernel takes a while.
    kernel: Vec<u8>,
    _shelf: Shelf,
}

impl Stand {
    async fn start() -> Self {
        let kernel = [vmlinux(), noise(3)].concat();
        let shelf = {
            let rig = Rig::start().await;
            import(&rig, "k", &kernel, None).await.unwrap();
            register(&rig, "web:1", &layer(4), None).await.unwrap();
            let shelf = Shelf::of(&rig).await;
            rig.stopped().await;
            shelf
        };
        let registry = Registry::serve().await;
        registry.push("1", ("a", "b"), &[layer(0), layer(1), layer(2)]);
        let rig = Rig::start().await;
        import(&rig, OWN_KERNEL, &vmlinux(), None).await.unwrap();
        rig.add_catalog(&shelf).await.unwrap();
        Self {
            rig,
            registry,
            rootfs: layer(5),
            kernel,
            _shelf: shelf,
        }
    }

    /// What a work makes: an image's reference, or a kernel's name.
    fn made(&self, work: Work) -> String {
        match work {
            Work::Pull => self.registry.reference("1"),
            Work::PullBundle => "web:1".into(),
            Work::PullKernel => "pulled".into(),
            Work::Import => "imported:1".into(),
            Work::ImportKernel => "imported".into(),
            Work::Build => "built:1".into(),
        }
    }

    /// Does a work, and tells its operation.
    async fn run(&self, work: Work, begun: oneshot::Sender<String>) -> Result<(), Status> {
        let (rig, made) = (&self.rig, self.made(work));
        match work {
            Work::Pull | Work::PullBundle => {
                let answers = rig.images().pull_image(pulled(&made)).await;
                follow(answers, of_pull, Some(begun)).await
            }
            Work::PullKernel => {
                let request = v1::PullKernelRequest {
                    kernel: "acme/k".into(),
                    name: made,
                    replace: true,
                    ..Default::default()
                };
                let answers = rig.kernels().pull_kernel(request).await;
                follow(answers, of_kernel_pull, Some(begun)).await
            }
            Work::Import => register(rig, &made, &self.rootfs, Some(begun)).await,
            Work::ImportKernel => import(rig, &made, &self.kernel, Some(begun)).await,
            Work::Build => {
                let text = format!("FROM {BASE}\nRUN [\"echo\", \"x\"]\nRUN [\"echo\", \"y\"]\n");
                let start = v1::BuildImageStart {
                    no_cache: true,
                    ..dockerfile(&text)
                };
                let answers = rig.begin_build(start, &[0; 1024]).await;
                follow(answers.map(Response::new), of_build, Some(begun)).await
            }
        }
    }

    /// The same where nothing disturbs it.
    async fn whole(&self, work: Work, told: &str) {
        if work == Work::Build {
            register(&self.rig, BASE, &[0; 1024], None).await.unwrap();
        }
        let done = self.run(work, oneshot::channel().0).await;
        done.unwrap_or_else(|error| panic!("{told}: then {error:?}"));
    }

    async fn usual(&self, work: Work) -> Usual {
        self.clear().await;
        let begin = Instant::now();
        self.whole(work, "undisturbed").await;
        Usual {
            time: begin.elapsed(),
            content: self.content(work).await,
        }
    }

    /// The digest of the base disk or kernel that a work has made; a build's has the time in it.
    async fn content(&self, work: Work) -> Option<Digest> {
        let state = self.rig.dir.path().join("state");
        let made = self.made(work);
        let path = match work {
            Work::Build => return None,
            Work::Pull | Work::PullBundle | Work::Import => {
                let images = self.images().await;
                let is_made = |image: &&v1::Image| {
                    let mut names = image.references.iter();
                    names.any(|name| name.ends_with(&made))
                };
                let image = images.iter().find(is_made).expect("it is there");
                state.join(disk_of(image))
            }
            Work::PullKernel | Work::ImportKernel => {
                let request = v1::GetKernelRequest { kernel: made };
                let found = self.rig.kernels().get_kernel(request).await.unwrap();
                let id = found.into_inner().kernel.unwrap().id;
                state.join("kernels").join(id).join("vmlinux")
            }
        };
        Some(Digest::of(&std::fs::read(path).unwrap()))
    }

    /// Begins a work and gives it up after `delay`. Whether it was cut off.
    async fn give_up(&self, work: Work, way: Way, delay: Duration, told: &str) -> bool {
        if work == Work::Build {
            register(&self.rig, BASE, &[0; 1024], None).await.unwrap();
        }
        let known = self.operations().await;
        let known: HashSet<String> = known.into_iter().map(|operation| operation.id).collect();
        let (begun, operation) = oneshot::channel();
        if way == Way::Cancel {
            let cancel = async {
                tokio::time::sleep(delay).await;
                // One that was refused has none.
                if let Ok(operation) = operation.await {
                    self.cancel(operation, told).await;
                    // The end is told when all of it is gone.
                    assert_eq!(self.temporary(), Vec::<PathBuf>::new(), "{told}");
                }
            };
            let (done, ()) = tokio::join!(self.run(work, begun), cancel);
            if let Err(error) = done {
                let details = error.get_error_details();
                let reason = details.error_info().map(|info| info.reason.clone());
                assert_eq!(error.code(), Code::Cancelled, "{told}: {error:?}");
                assert_eq!(reason.as_deref(), Some("OPERATION_CANCELLED"), "{told}");
            }
        } else {
            // Dropped when its time is over.
            let _ = tokio::time::timeout(delay, self.run(work, begun)).await;
        }
        if way == Way::HangUpAndCancel {
            for operation in self.running().await {
                self.cancel(operation.id, told).await;
            }
        }
        until("all of it has ended", async || {
            self.running().await.is_empty()
        })
        .await;
        let mut ended = self.operations().await;
        // The VMs of a build are given up by it.
        let is_own = |operation: &v1::Operation| {
            operation.kind() != v1::operation::Kind::CreateVm && !known.contains(&operation.id)
        };
        ended.retain(is_own);
        let failed: Vec<_> = ended
            .iter()
            .filter_map(|operation| operation.error.as_ref())
            .collect();
        for error in &failed {
            assert_eq!(error.code, Code::Cancelled as i32, "{told}: {error:?}");
            assert!(way != Way::HangUp, "{told}: nobody has cancelled it");
        }
        // What hung up in its upload has no operation.
        ended.is_empty() || !failed.is_empty()
    }

    async fn cancel(&self, operation: String, told: &str) {
        let request = v1::CancelOperationRequest { operation };
        let mut operations = self.rig.operations();
        let cancelled = operations.cancel_operation(request);
        let cancelled = tokio::time::timeout(PATIENCE, cancelled).await;
        let ended = cancelled.expect(told).expect(told).into_inner();
        let state = ended.operation.unwrap().state();
        assert_ne!(state, v1::operation::State::Running, "{told}");
    }

    async fn operations(&self) -> Vec<v1::Operation> {
        let request = v1::ListOperationsRequest {
            page_size: 20,
            ..Default::default()
        };
        let listed = self.rig.operations().list_operations(request).await;
        listed.unwrap().into_inner().operations
    }

    async fn running(&self) -> Vec<v1::Operation> {
        let mut operations = self.operations().await;
        operations.retain(|operation| operation.state() == v1::operation::State::Running);
        operations
    }

    async fn images(&self) -> Vec<v1::Image> {
        let request = v1::ListImagesRequest::default();
        let listed = self.rig.images().list_images(request).await;
        listed.unwrap().into_inner().images
    }

    fn temporary(&self) -> Vec<PathBuf> {
        files_below(&self.rig.dir.path().join("state/tmp"))
    }

    fn names(&self, directory: &str) -> HashSet<String> {
        let path = self.rig.dir.path().join("state").join(directory);
        let entries = std::fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// Every image and kernel is whole, and nothing is there that is neither.
    async fn assert_whole(&self, told: &str) {
        until("no temporary file is left", async || {
            self.temporary().is_empty()
        })
        .await;
        until("no VM is left", async || self.rig.vm_count().await == 0).await;
        assert!(self.names("vms").is_empty(), "{told}");
        let disks: HashSet<String> = self.images().await.iter().map(disk_of).collect();
        // What a build made that nobody wants is swept.
        until(&format!("{told}: all base disks are images'"), async || {
            let kept = self.names("rootfs").into_iter();
            let kept = kept.filter(|name| name.ends_with(".ext4"));
            kept.map(|name| format!("rootfs/{name}"))
                .collect::<HashSet<_>>()
                == disks
        })
        .await;
        let request = v1::ListKernelsRequest::default();
        let kernels = self.rig.kernels().list_kernels(request).await.unwrap();
        let kernels = kernels.into_inner().kernels.into_iter();
        let ids: HashSet<String> = kernels.map(|kernel| kernel.id).collect();
        assert_eq!(self.names("kernels"), ids, "{told}: kernels");
        // What came whole is kept for the next try.
        for name in self.names("blobs/sha256") {
            let path = self.rig.dir.path().join("state/blobs/sha256").join(&name);
            let content = std::fs::read(path).unwrap();
            assert_eq!(Digest::of(&content).hex(), name, "{told}: a blob");
        }
    }

    /// Removes every image and every kernel that a work has made.
    async fn clear(&self) {
        let all = v1::PruneImagesRequest {
            all: true,
            build_cache: true,
            ..Default::default()
        };
        assert!(!self.rig.prune(all).await.deferred);
        for directory in ["rootfs", "blobs/sha256"] {
            assert_eq!(self.names(directory), HashSet::new(), "{directory}");
        }
        for kernel in self.rig.kernel_names().await {
            if kernel != OWN_KERNEL {
                let request = v1::DeleteKernelRequest {
                    kernel,
                    ..Default::default()
                };
                self.rig.kernels().delete_kernel(request).await.unwrap();
            }
        }
    }
}

/// Where an image's base disk is.
fn disk_of(image: &v1::Image) -> String {
    let hex = image.digest.strip_prefix("sha256:").unwrap();
    format!("rootfs/{hex}-v3.ext4")
}

/// What no compression makes small.
fn noise(seed: u64) -> Vec<u8> {
    let mut noise = vec![0; NOISE_BYTES];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}

/// A layer of it and some small files.
fn layer(seed: u64) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    };
    append(&format!("noise-{seed}"), &noise(seed));
    for number in 0..50 {
        append(&format!("files/{number}"), number.to_string().as_bytes());
    }
    tar.into_inner().unwrap()
}

async fn register(
    rig: &Rig,
    reference: &str,
    rootfs: &[u8],
    begun: Option<oneshot::Sender<String>>,
) -> Result<(), Status> {
    use v1::register_image_request::Message;
    let start = v1::RegisterImageStart {
        reference: reference.into(),
        format: v1::register_image_start::Format::RootfsTar.into(),
        ..Default::default()
    };
    let chunks = rootfs.chunks(64 << 10);
    let chunks = chunks.map(|chunk| Message::Chunk(chunk.to_vec().into()));
    let messages = [Message::Start(start)].into_iter().chain(chunks);
    let messages = messages.map(|message| v1::RegisterImageRequest {
        message: Some(message),
    });
    let stream = futures::stream::iter(messages.collect::<Vec<_>>());
    let answers = rig.images().register_image(stream).await;
    follow(answers, of_import, begun).await
}

async fn import(
    rig: &Rig,
    name: &str,
    kernel: &[u8],
    begun: Option<oneshot::Sender<String>>,
) -> Result<(), Status> {
    use v1::import_kernel_request::Message;
    let mut messages = kernel_messages(name, &[]);
    if let Some(Message::Start(start)) = &mut messages[0].message {
        start.replace = true;
    }
    messages.truncate(1);
    let chunks = kernel
        .chunks(64 << 10)
        .map(|chunk| v1::ImportKernelRequest {
            message: Some(Message::KernelChunk(chunk.to_vec().into())),
        });
    messages.extend(chunks);
    let mut kernels = rig.kernels();
    let answers = kernels.import_kernel(futures::stream::iter(messages)).await;
    follow(answers, of_kernel_import, begun).await
}

/// Reads the answers to the end, and tells the operation with which they begin.
async fn follow<T>(
    answers: Result<Response<Streaming<T>>, Status>,
    operation: fn(&T) -> Option<&v1::Operation>,
    mut begun: Option<oneshot::Sender<String>>,
) -> Result<(), Status> {
    let mut answers = answers?.into_inner();
    while let Some(answer) = tokio::time::timeout(PATIENCE, answers.message())
        .await
        .expect("in time")?
    {
        if let Some(operation) = operation(&answer)
            && let Some(begun) = begun.take()
        {
            // Nobody waits for it who hangs up.
            let _ = begun.send(operation.id.clone());
        }
    }
    Ok(())
}

/// The operation in an answer.
macro_rules! operation_of {
    ($name:ident, $answer:ident, $module:ident) => {
        fn $name(answer: &v1::$answer) -> Option<&v1::Operation> {
            match &answer.message {
                Some(v1::$module::Message::Operation(operation)) => Some(operation),
                _ => None,
            }
        }
    };
}

operation_of!(of_pull, PullImageResponse, pull_image_response);
operation_of!(of_kernel_pull, PullKernelResponse, pull_kernel_response);
operation_of!(of_import, RegisterImageResponse, register_image_response);
operation_of!(
    of_kernel_import,
    ImportKernelResponse,
    import_kernel_response
);
operation_of!(of_build, BuildImageResponse, build_image_response);

#[tokio::test(flavor = "multi_thread")]
async fn image_work_given_up_at_any_instant_leaves_nothing_half() {
    let mut random = fastrand::Rng::with_seed(seed("cancels"));
    let cancels = setting("BANGER_CANCELS", CANCELS);
    let stand = Stand::start().await;
    // The first also makes what later ones find.
    stand.usual(Work::Build).await;
    let mut usual = Vec::new();
    for work in WORKS {
        usual.push(stand.usual(work).await);
    }
    stand.clear().await;
    let mut cut_off = 0;
    for cancel in 0..cancels {
        let at = random.usize(..WORKS.len());
        let (work, usual) = (WORKS[at], &usual[at]);
        let way = random.choice(WAYS).unwrap();
        let delay = usual.time.mul_f64(random.f64() * LATE);
        let told = format!("cancel {cancel}: {way:?} {delay:?} into {work:?}");
        cut_off += u64::from(stand.give_up(work, way, delay, &told).await);
        stand.assert_whole(&told).await;
        if random.bool() {
            stand.clear().await;
        }
        stand.whole(work, &told).await;
        assert_eq!(stand.content(work).await, usual.content, "{told}");
        if random.bool() {
            stand.clear().await;
        }
    }
    println!("cancels: {cut_off} of {cancels} came before the work had ended");
    assert!(cancels < CANCELS || cut_off > 0, "none came in time");
    stand.rig.stopped().await;
}
