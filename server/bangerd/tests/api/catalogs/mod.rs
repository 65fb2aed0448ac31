//! Catalogs: what every test of them needs, a catalog in a directory and the calls.

mod believed;
mod entries;
mod lost;
mod pulls;
mod tls;

use std::path::{Path, PathBuf};

use banger_catalog::{
    BundleEntry, Digest, FilePart, ImageManifest, Index, KernelEntry, KernelManifest, SecretKey,
};
use banger_proto::v1;
use banger_proto::v1::catalog_service_client::CatalogServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::rig::{Rig, assert_refused, drain};

impl Rig {
    fn catalogs(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn add_catalog(&self, shelf: &Shelf) -> Result<v1::Catalog, Status> {
        self.add_as("", &shelf.url(), &shelf.key.public().to_string())
            .await
    }

    pub(crate) async fn add_as(
        &self,
        name: &str,
        url: &str,
        key: &str,
    ) -> Result<v1::Catalog, Status> {
        let request = v1::AddCatalogRequest {
            name: name.into(),
            url: url.into(),
            public_key: key.into(),
            ..Default::default()
        };
        let answer = self.catalogs().add_catalog(request).await?.into_inner();
        Ok(answer.catalog.unwrap())
    }

    async fn refresh(&self) -> Result<v1::Catalog, Status> {
        let request = v1::RefreshCatalogRequest {
            catalog: "acme".into(),
        };
        let answer = self.catalogs().refresh_catalog(request).await?.into_inner();
        Ok(answer.catalog.unwrap())
    }

    async fn refresh_refused(&self, reason: &str) {
        let refused = self.refresh().await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, reason, None);
    }

    async fn pull(&self, request: v1::PullImageRequest) -> Result<v1::Image, Status> {
        let answers = self.images().pull_image(request).await?.into_inner();
        let last = drain(answers).await?.pop().unwrap().message.unwrap();
        let v1::pull_image_response::Message::Image(image) = last else {
            panic!("no image: {last:?}");
        };
        Ok(image)
    }

    async fn pull_kernel(&self, kernel: &str) -> Result<v1::Kernel, Status> {
        let request = v1::PullKernelRequest {
            kernel: kernel.into(),
            ..Default::default()
        };
        let answers = self.kernels().pull_kernel(request).await?.into_inner();
        let last = drain(answers).await?.pop().unwrap().message.unwrap();
        let v1::pull_kernel_response::Message::Kernel(kernel) = last else {
            panic!("no kernel: {last:?}");
        };
        Ok(kernel)
    }

    pub(crate) async fn kernel_names(&self) -> Vec<String> {
        let request = v1::ListKernelsRequest::default();
        let answer = self.kernels().list_kernels(request).await.unwrap();
        answer
            .into_inner()
            .kernels
            .into_iter()
            .map(|kernel| kernel.name)
            .collect()
    }

    async fn export(&self, request: v1::ExportBundleRequest) -> Result<(Vec<u8>, Vec<u8>), Status> {
        use v1::export_bundle_response::Message;
        let answers = self.images().export_bundle(request).await?.into_inner();
        let (mut manifest, mut bytes) = (Vec::new(), Vec::new());
        for answer in drain(answers).await? {
            match answer.message.unwrap() {
                Message::Start(start) => manifest = start.manifest.to_vec(),
                Message::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                Message::End(end) => assert_eq!(end.sha256, Digest::of(&bytes).hex()),
                Message::Heartbeat(_) => {}
            }
        }
        Ok((manifest, bytes))
    }

    async fn export_kernel(&self) -> (Vec<u8>, Vec<u8>) {
        use v1::export_kernel_response::Message;
        let request = v1::ExportKernelRequest { kernel: "k".into() };
        let answers = self
            .kernels()
            .export_kernel(request)
            .await
            .unwrap()
            .into_inner();
        let (mut manifest, mut bytes) = (Vec::new(), Vec::new());
        for answer in drain(answers).await.unwrap() {
            match answer.message.unwrap() {
                Message::Start(start) => manifest = start.manifest.to_vec(),
                Message::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                Message::End(_) | Message::Heartbeat(_) => {}
            }
        }
        (manifest, bytes)
    }
}

pub(crate) fn pulled(reference: &str) -> v1::PullImageRequest {
    v1::PullImageRequest {
        reference: reference.into(),
        ..Default::default()
    }
}

/// A catalog in a directory.
pub(crate) struct Shelf {
    dir: TempDir,
    key: SecretKey,
    index: Index,
}

impl Shelf {
    /// With the image `web` in versions 1 and 2 and the kernel `k`, made by a daemon that has them.
    pub(crate) async fn furnished() -> Self {
        let rig = Rig::start().await;
        rig.furnish().await;
        let shelf = Self::of(&rig).await;
        rig.stopped().await;
        shelf
    }

    /// The same of what is the image `web:1` and the kernel `k` of a daemon.
    pub(crate) async fn of(rig: &Rig) -> Self {
        let now = banger_core::Timestamp::now();
        let later = now + banger_core::SignedDuration::from_hours(1);
        let mut shelf = Self {
            dir: tempfile::tempdir().unwrap(),
            key: SecretKey::from_random(&[7; 32]),
            index: Index::new("acme".parse().unwrap(), 1, now, later),
        };
        for version in ["1", "2"] {
            let request = v1::ExportBundleRequest {
                image: "web:1".into(),
                version: version.into(),
                kernel: "k".into(),
                ..Default::default()
            };
            let (manifest, bytes) = rig.export(request).await.unwrap();
            let file = shelf.put(&format!("web-{version}.tar.zst"), &bytes);
            shelf.add_bundle(&manifest, file);
        }
        let (manifest, bytes) = rig.export_kernel().await;
        let file = shelf.put("k.tar.zst", &bytes);
        let parsed = KernelManifest::parse(&manifest).unwrap();
        shelf.index.kernels.push(KernelEntry {
            name: parsed.name,
            release: parsed.release,
            platform: parsed.platform,
            digest: Digest::of(&manifest),
            file,
            description: String::new(),
        });
        shelf.publish();
        shelf
    }

    fn add_bundle(&mut self, manifest: &[u8], file: FilePart) {
        let parsed = ImageManifest::parse(manifest).unwrap();
        self.index.bundles.push(BundleEntry {
            name: parsed.name,
            version: parsed.version,
            platform: parsed.platform,
            digest: Digest::of(manifest),
            kernel: parsed.kernel,
            rootfs_size_bytes: parsed.rootfs.size_bytes,
            file,
            description: "A web server".into(),
        });
    }

    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn public_key(&self) -> String {
        self.key.public().to_string()
    }

    fn url(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> FilePart {
        std::fs::write(self.path(name), bytes).unwrap();
        FilePart {
            path: name.parse().unwrap(),
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }

    fn publish(&self) {
        self.publish_with(&self.key);
    }

    fn publish_with(&self, key: &SecretKey) {
        let key = key.to_file().parse().unwrap();
        let bytes = banger_catalog::seal(&self.index, &[key]).unwrap();
        std::fs::write(self.path("catalog.json"), bytes).unwrap();
    }

    fn break_file(&self, name: &str) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(self.path(name), bytes).unwrap();
    }
}

fn files(rig: &Rig, directory: &str) -> usize {
    let path: &Path = rig.dir.path();
    std::fs::read_dir(path.join("state").join(directory))
        .unwrap()
        .count()
}

/// What an error says to do.
fn remedy(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    let details = status.get_error_details();
    details.error_info().unwrap().metadata["remedy"].clone()
}
