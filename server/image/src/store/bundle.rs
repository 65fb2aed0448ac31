//! Bundles into the store: from a catalog, or from a file that somebody gave. And kernels' bundles as files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_catalog::{BundleEntry, FilePart};
use banger_core::Digest;
use banger_core::image::{ImageConfig, Platform};
use banger_core::operation::{Progress, StageKey};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::bring::joined;
use super::source::RegionReader;
use super::{BuiltImage, ImageStore, Region, StoreError};
use crate::bundle::{BundleError, Expected, Unpacked, copy_ext4, unpack};
use crate::catalog::{ArtifactStream, CatalogSource};
use crate::layer::{self, ChunkReader, ChunkSender, Gathered, Now};

/// The stage in which a bundle comes, and is checked and written at the same time.
const FETCH: &str = "fetch";
/// The stage in which everything reaches the disk under its final name.
const PUBLISH: &str = "publish";

/// Where a file's bytes come from.
enum Feed {
    Artifact(ArtifactStream),
    File(Option<RegionReader>),
}

impl Feed {
    /// Of a file of this host.
    fn open(path: &Path) -> Result<(Self, u64), StoreError> {
        let file = File::open(path).map_err(StoreError::source(path))?;
        let length = file.metadata().map_err(StoreError::source(path))?.len();
        let region = Region::new(std::sync::Arc::new(file), 0, length);
        Ok((Self::File(Some(region.reader())), length))
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Artifact(stream) => Ok(stream.next_chunk().await?),
            Self::File(reader) => {
                let mut own = reader.take().ok_or(StoreError::Aborted)?;
                let (own, piece) = joined(tokio::task::spawn_blocking(move || {
                    let piece = own.next_piece();
                    (own, piece)
                }))
                .await?;
                *reader = Some(own);
                piece.map_err(|source| StoreError::Io {
                    step: "read",
                    path: "the uploaded file".into(),
                    source,
                })
            }
        }
    }
}

impl ImageStore {
    /// Pulls the image that a catalog's index names, unless it is in the store already. Stages: `fetch`, `publish`.
    ///
    /// Pulls of one bundle at the same time share the work, as those of [`ImageStore::pull`] do.
    ///
    /// # Errors
    /// What [`StoreError`] says; nothing is kept of a failed pull.
    pub async fn pull_bundle(
        &self,
        source: &CatalogSource,
        entry: &BundleEntry,
        deadline: Duration,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let cancel = cancel.child_token();
        let (store, source, entry) = (self.clone(), source.clone(), entry.clone());
        let digest = entry.digest;
        let work = |board: std::sync::Arc<super::flight::Board>, cancel: CancellationToken| async move {
            if let Ok(image) = store.load(digest) {
                return Ok(image);
            }
            let stream = source.artifact(&entry.file);
            let size = entry.file.size_bytes;
            let expected = Expected {
                platform: entry.platform.clone(),
                entry: Some(entry),
            };
            let read = move |chunks, tmp: PathBuf, cancel: &CancellationToken| {
                unpack(chunks, &expected, &tmp, cancel)
            };
            let mut feed = Feed::Artifact(stream);
            let unpacked = store.take(&mut feed, size, read, &*board, &cancel).await?;
            store.publish_bundle(unpacked, &*board).await
        };
        let flights = &self.inner.flights;
        let mut flight =
            std::pin::pin!(flights.join(digest, &self.inner.tracker, progress, &cancel, work));
        // cancel-safe: `flight` is only borrowed
        tokio::select! {
            result = &mut flight => return result,
            () = tokio::time::sleep(deadline) => {}
        }
        cancel.cancel();
        // It may have come in the last moment.
        flight.await.map_err(|_| StoreError::Deadline { deadline })
    }

    /// Makes an image of a bundle's file.
    pub(super) async fn register_bundle(
        &self,
        path: &Path,
        platform: Platform,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let (mut feed, size) = Feed::open(path)?;
        let expected = Expected {
            entry: None,
            platform,
        };
        let read = move |chunks, tmp: PathBuf, cancel: &CancellationToken| {
            unpack(chunks, &expected, &tmp, cancel)
        };
        let unpacked = self.take(&mut feed, size, read, progress, cancel).await?;
        let built = self.publish_bundle(unpacked, progress).await?;
        self.sync_image(built.digest).await?;
        Ok(built)
    }

    /// Makes an image of a bare file system.
    pub(super) async fn register_ext4(
        &self,
        path: &Path,
        config: ImageConfig,
        platform: Platform,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let (mut feed, size) = Feed::open(path)?;
        let read = move |chunks, tmp: PathBuf, cancel: &CancellationToken| {
            copy_ext4(chunks, size, (config, platform), &tmp, cancel)
        };
        let unpacked = self.take(&mut feed, size, read, progress, cancel).await?;
        let built = self.publish_bundle(unpacked, progress).await?;
        self.sync_image(built.digest).await?;
        Ok(built)
    }

    /// Fetches a file of a catalog whole, verified, into a file that goes when it is dropped. Stage: `stage`.
    ///
    /// # Errors
    /// What [`StoreError`] says; nothing is kept then.
    pub async fn fetch_file(
        &self,
        source: &CatalogSource,
        file: &FilePart,
        stage: &StageKey,
        deadline: Duration,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<TempPath, StoreError> {
        let fetching = self.fetch_whole(source, file, stage, progress, cancel);
        let fetched = tokio::time::timeout(deadline, fetching).await;
        fetched.unwrap_or(Err(StoreError::Deadline { deadline }))
    }

    async fn fetch_whole(
        &self,
        source: &CatalogSource,
        file: &FilePart,
        stage: &StageKey,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<TempPath, StoreError> {
        progress.start(stage, Some(file.size_bytes));
        let failed = || BundleError::store("keep a file of the catalog");
        let kept = tempfile::NamedTempFile::with_prefix_in("artifact-", self.inner.layout.tmp())
            .map_err(failed())?;
        let (kept, path) = kept.into_parts();
        let mut kept = tokio::fs::File::from_std(kept);
        let mut stream = source.artifact(file);
        let mut hasher = Sha256::new();
        loop {
            // cancel-safe: a cancelled stream is given up
            let chunk = tokio::select! {
                biased; // giving up before more waiting
                () = cancel.cancelled() => return Err(StoreError::Cancelled),
                chunk = stream.next_chunk() => chunk?,
            };
            let Some(chunk) = chunk else { break };
            hasher.update(&chunk);
            kept.write_all(&chunk).await.map_err(failed())?;
            progress.advance(stage, chunk.len() as u64);
        }
        kept.flush().await.map_err(failed())?;
        let actual = Digest::from_sha256(hasher.finalize().into());
        if actual != file.digest {
            let expected = file.digest;
            return Err(BundleError::FileDigest { expected, actual }.into());
        }
        progress.finish(stage);
        Ok(path)
    }

    /// Passes a file's bytes to `read`, which checks and writes them in a thread meanwhile.
    async fn take(
        &self,
        feed: &mut Feed,
        size_bytes: u64,
        read: impl FnOnce(ChunkReader, PathBuf, &CancellationToken) -> Result<Unpacked, BundleError>
        + Send
        + 'static,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Unpacked, StoreError> {
        let _place = self.reading_place(cancel).await?;
        let key = StageKey::new(FETCH);
        progress.start(&key, Some(size_bytes));
        let tmp = self.inner.layout.tmp().to_owned();
        let (sender, chunks) = layer::channel();
        // Ends the reading too when this is dropped.
        let given_up = cancel.child_token();
        let giving_up = given_up.clone().drop_guard();
        let reading = self
            .inner
            .tracker
            .spawn_blocking(move || read(chunks, tmp, &given_up));
        let fed = pass(feed, sender, &key, progress, cancel).await;
        if fed.is_err() {
            // What does not come needs no memory.
            drop(giving_up);
        }
        // Waited for whatever happened, so that nothing of it is left.
        let unpacked = joined(reading).await;
        // What did not come explains what could not be read.
        fed?;
        let unpacked = match unpacked? {
            Err(BundleError::GivenUp) => return Err(StoreError::Cancelled),
            unpacked => unpacked?,
        };
        progress.finish(&key);
        Ok(unpacked)
    }

    /// Gives everything its final name, the disk last.
    async fn publish_bundle(
        &self,
        unpacked: Unpacked,
        progress: &dyn Progress,
    ) -> Result<BuiltImage, StoreError> {
        let key = StageKey::new(PUBLISH);
        progress.start(&key, None);
        let store = self.clone();
        let image = joined(self.inner.tracker.spawn_blocking(move || {
            let (layout, digest) = (&store.inner.layout, unpacked.digest());
            let path = layout.rootfs(digest);
            // Both wait for the disk.
            let (kept, expected) = std::thread::scope(|scope| {
                let keeping = scope.spawn(|| layout.keep_blob(digest, &unpacked.manifest_bytes));
                let expected = store.expect(path.clone());
                (keeping.join(), expected)
            });
            kept.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let named = expected?.name(unpacked.disk);
            named.map_err(StoreError::io("write", &path))?;
            store.describe_bundle(digest, unpacked.manifest)
        }))
        .await??;
        self.sync_soon();
        progress.finish(&key);
        Ok(image)
    }
}

/// Passes all chunks on, until there are no more or nobody wants more.
async fn pass(
    feed: &mut Feed,
    sender: ChunkSender,
    key: &StageKey,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<(), StoreError> {
    let mut gathered = Gathered::default();
    loop {
        let step = async {
            let Some(chunk) = feed.next_chunk().await? else {
                let _ = sender.send(gathered.take()).await;
                return Ok::<_, StoreError>(false);
            };
            progress.advance(key, chunk.len() as u64);
            // A reader that is gone has refused: it says why.
            match gathered.add(chunk, Now::Wait) {
                Some(piece) => Ok(sender.send(piece).await.is_ok()),
                None => Ok(true),
            }
        };
        // cancel-safe: a chunk may be lost, but then all is given up
        let more = tokio::select! {
            biased; // giving up before more waiting
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            more = step => more?,
        };
        if !more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use banger_core::operation::NoProgress;

    use super::*;
    use crate::limits::READING_JOBS_MAX;
    use crate::unzstd::Windows;
    use crate::{RegisterOptions, RegisterSource};

    /// The most places that are free when a stage begins.
    struct Free<'a>(&'a ImageStore, AtomicUsize);

    impl Progress for Free<'_> {
        fn start(&self, _: &StageKey, _: Option<u64>) {
            let free = self.0.inner.reading_jobs.available_permits();
            self.1.fetch_max(free, Ordering::SeqCst);
        }

        fn advance(&self, _: &StageKey, _: u64) {}
        fn finish(&self, _: &StageKey) {}
    }

    #[tokio::test]
    async fn whoever_reads_an_archive_has_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "neither").unwrap();
        let config = Box::default();
        let sources = [
            RegisterSource::RootfsTar {
                path: path.clone(),
                config,
            },
            RegisterSource::Ext4 {
                path,
                config: Box::default(),
            },
        ];
        for source in sources {
            let free = Free(&store, AtomicUsize::new(0));
            let (options, cancel) = (RegisterOptions::default(), CancellationToken::new());
            let registered = store.register(source, &options, &free, &cancel).await;
            registered.unwrap_err();
            assert_eq!(free.1.into_inner(), READING_JOBS_MAX - 1);
        }
        assert_eq!(
            store.inner.reading_jobs.available_permits(),
            READING_JOBS_MAX
        );
    }

    /// What a file is.
    type Kind = fn(PathBuf) -> RegisterSource;

    /// What demands a window of `2^log` bytes.
    fn compressed(content: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A tar of an image's layout, whose one layer demands a window of `2^log` bytes.
    fn layout(log: u32) -> Vec<u8> {
        let plain = vec![0; 1024];
        let layer = compressed(&plain, log);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(&plain)
        );
        let described = |kind: &str, bytes: &[u8]| {
            let (digest, size) = (Digest::of(bytes), bytes.len());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#
            )
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            described("config.v1+json", config.as_bytes()),
            described("layer.v1.tar+zstd", &layer)
        );
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            described("manifest.v1+json", manifest.as_bytes())
        );
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in [
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice(),
            ),
            ("index.json".to_owned(), index.as_bytes()),
            (blob(manifest.as_bytes()), manifest.as_bytes()),
            (blob(config.as_bytes()), config.as_bytes()),
            (blob(&layer), &layer),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_demands_much_memory_waits_and_what_demands_little_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let windows = Windows::of_process();
        let path = dir.path().join("file");
        let options = RegisterOptions {
            platform: "linux/amd64".parse().unwrap(),
        };
        let register = async |bytes: Vec<u8>, is: Kind, cancel| {
            std::fs::write(&path, bytes).unwrap();
            let registered = store.register(is(path.clone()), &options, &NoProgress, &cancel);
            registered.await
        };
        let rootfs = |path| RegisterSource::RootfsTar {
            path,
            config: Box::default(),
        };
        let is_layout = |path| RegisterSource::OciLayout { path, image: None };
        let bundle = |path| RegisterSource::Bundle { path };
        let all = windows.take_all();
        let kinds: [(Vec<u8>, Kind); 3] = [
            (compressed(&[0; 1024], 26), rootfs),
            (layout(26), is_layout),
            (compressed(&[0; 1024], 27), bundle),
        ];
        for (bytes, is) in kinds {
            let cancel = CancellationToken::new();
            let give_up = async {
                while windows.waiting() == 0 {
                    tokio::task::yield_now().await;
                }
                cancel.cancel();
            };
            let (given_up, ()) = tokio::join!(register(bytes, is, cancel.clone()), give_up);
            let error = given_up.unwrap_err();
            assert!(matches!(error, StoreError::Cancelled), "{error:?}");
        }
        let common = register(layout(23), is_layout, CancellationToken::new());
        common.await.unwrap();
        drop(all);
        let large = register(layout(26), is_layout, CancellationToken::new());
        large.await.unwrap();
    }
}
