//! Images: pull, register, get, list, delete.

use std::future::IntoFuture;
use std::time::Duration;

use banger_proto::v1;
use banger_registry_auth::{AuthFiles, Login, registry_and_repository};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;
use v1::image_service_client::ImageServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::export::{Export, ExportMessage, ExportPart};
use crate::operation::{IntoStep, Progress, Step, follow, follow_once};
use crate::request::Request;
use crate::stream::{Pages, pages};
use crate::upload::{Source, send};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

pub use v1::register_image_start::Format as ArchiveFormat;

/// Images.
#[derive(Debug, Clone)]
pub struct Images {
    client: Client,
}

impl Images {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) fn rpc(&self) -> ImageServiceClient<tonic::transport::Channel> {
        ImageServiceClient::new(self.client.channel())
    }

    /// Watches the answer to a call that is made once.
    pub(crate) fn watched<T>(
        &self,
        answer: std::result::Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>,
        during: &'static str,
    ) -> Result<crate::stream::Watched<T>> {
        self.client.watched(answer, during)
    }

    /// Pulls `reference` from its registry. The pull goes on in the daemon if this is dropped.
    pub fn pull(&self, reference: impl Into<String>) -> PullImage {
        let request = v1::PullImageRequest {
            reference: reference.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::PullImageRequest::default()
        };
        PullImage {
            images: self.clone(),
            request,
            auth_files: None,
            progress: Progress::none(),
        }
    }

    /// Writes an image as a bundle: what catalogs offer and [`Self::register`] takes. What is empty of the bundle's
    /// names is made of the image's reference.
    ///
    /// # Errors
    /// When there is no such image, or the daemon cannot be asked.
    pub async fn export_bundle(
        &self,
        image: impl Into<String>,
        names: BundleNames,
    ) -> Result<Export> {
        const CALL: &str = "ExportBundle";
        let request = v1::ExportBundleRequest {
            image: image.into(),
            name: names.name,
            version: names.version,
            kernel: names.kernel,
        };
        let answer = self.rpc().export_bundle(request).await;
        Export::begin(self.client.watched(answer, CALL)?, CALL).await
    }

    /// Makes an image called `reference` of an archive, or of a directory with an OCI layout or a root
    /// filesystem.
    pub fn register(
        &self,
        reference: impl Into<String>,
        source: impl Into<Source>,
    ) -> RegisterImage {
        let start = v1::RegisterImageStart {
            reference: reference.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::RegisterImageStart::default()
        };
        let source = source.into();
        RegisterImage {
            images: self.clone(),
            start,
            source,
            progress: Progress::none(),
        }
    }

    /// The image with this id, reference or digest.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, image: impl Into<String>) -> Result<v1::Image> {
        const CALL: &str = "GetImage";
        let request = v1::GetImageRequest {
            image: image.into(),
        };
        let call = || async { self.rpc().get_image(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.image.ok_or(Error::Protocol {
            during: CALL,
            detail: "no image",
        })
    }

    /// All images, newest first.
    #[must_use]
    pub fn list(&self) -> Pages<v1::Image> {
        let this = self.clone();
        pages(move |page_token| {
            let this = this.clone();
            async move {
                let request = v1::ListImagesRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                };
                let call = || async { this.rpc().list_images(request.clone()).await };
                let page = this.client.repeat("ListImages", call).await?;
                Ok((page.images, page.next_page_token))
            }
        })
    }

    /// Gives an image another reference. One that another image has is refused, unless `take_over` says that it may
    /// be taken.
    pub fn tag(
        &self,
        image: impl Into<String>,
        reference: impl Into<String>,
        take_over: TakeOver,
    ) -> Request<v1::Image> {
        const CALL: &str = "TagImage";
        let (this, image, reference) = (self.clone(), image.into(), reference.into());
        Request::new(move |request_id| async move {
            let request = v1::TagImageRequest {
                image,
                reference,
                replace: take_over == TakeOver::Allowed,
                request_id,
            };
            let call = || async { this.rpc().tag_image(request.clone()).await };
            let answer = this.client.repeat(CALL, call).await?;
            answer.image.ok_or(Error::Protocol {
                during: CALL,
                detail: "no image",
            })
        })
    }

    /// Removes what nothing needs: by default the images without a reference, and the files of no image.
    pub fn prune(&self, prune: Prune) -> Request<v1::PruneImagesResponse> {
        let this = self.clone();
        Request::new(move |request_id| async move {
            let older_than_seconds = i64::try_from(prune.older_than.as_secs()).unwrap_or(i64::MAX);
            let request = v1::PruneImagesRequest {
                all: prune.all,
                older_than_seconds,
                build_cache: prune.build_cache,
                dry_run: prune.dry_run,
                request_id,
            };
            let call = || async { this.rpc().prune_images(request.clone()).await };
            this.client.repeat("PruneImages", call).await
        })
    }

    /// What all images take on the host: each, newest first, and the totals.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn usage(&self) -> Result<ImagesUsage> {
        let mut usage = ImagesUsage::default();
        let mut page_token = String::new();
        loop {
            let request = v1::ListImageUsageRequest {
                page_size: PAGE_SIZE,
                page_token,
            };
            let call = || async { self.rpc().list_image_usage(request.clone()).await };
            let page = self.client.repeat("ListImageUsage", call).await?;
            usage.images.extend(page.images);
            if page.next_page_token.is_empty() {
                usage.rootfs_bytes = page.total_rootfs_bytes;
                usage.blob_bytes = page.total_blob_bytes;
                usage.unreferenced_bytes = page.unreferenced_bytes;
                usage.build_cache_bytes = page.build_cache_bytes;
                return Ok(usage);
            }
            page_token = page.next_page_token;
        }
    }

    /// Removes an image; named by one of several references, it loses that reference only.
    pub fn delete(&self, image: impl Into<String>) -> Request<v1::DeleteImageResponse> {
        let (this, image) = (self.clone(), image.into());
        Request::new(|request_id| async move {
            let request = v1::DeleteImageRequest { image, request_id };
            let call = || async { this.rpc().delete_image(request.clone()).await };
            this.client.repeat("DeleteImage", call).await
        })
    }
}

/// Whether a reference may be taken from another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// It may.
    Allowed,
    /// A taken reference is an error.
    Refused,
}

/// What to prune.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prune {
    /// Every image that no VM uses; otherwise only those without a reference.
    pub all: bool,
    /// Only images that came longer ago than this; whole seconds.
    pub older_than: Duration,
    /// The steps kept of builds, too.
    pub build_cache: bool,
    /// Tells what would be removed, and removes nothing.
    pub dry_run: bool,
}

/// What all images take on the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImagesUsage {
    /// Each, newest first.
    pub images: Vec<v1::ImageUsage>,
    /// All base disks.
    pub rootfs_bytes: i64,
    /// All blobs.
    pub blob_bytes: i64,
    /// What no image needs.
    pub unreferenced_bytes: i64,
    /// The steps kept of builds.
    pub build_cache_bytes: i64,
}

/// What a bundle is to be called; what is empty is made of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleNames {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The kernel it is meant for.
    pub kernel: String,
}

/// Where an image is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullSource {
    /// In the catalogs only.
    Catalog,
    /// In the registry only.
    Registry,
}

/// A pull, made when it is awaited.
#[derive(Debug)]
#[must_use = "a pull is made when it is awaited"]
pub struct PullImage {
    images: Images,
    request: v1::PullImageRequest,
    auth_files: Option<AuthFiles>,
    progress: Progress,
}

impl PullImage {
    /// For this platform, `os/architecture[/variant]`, instead of the host's.
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.request.platform = platform.into();
        self
    }

    /// With this kernel for the image's VMs, here or in a catalog, instead of the bundle's own.
    pub fn kernel(mut self, kernel: impl Into<String>) -> Self {
        self.request.kernel = kernel.into();
        self
    }

    /// A bundle takes the name over where another image has it.
    pub const fn replace(mut self) -> Self {
        self.request.replace = true;
        self
    }

    /// From there only, instead of from the first that has it.
    pub fn source(mut self, source: PullSource) -> Self {
        let source = match source {
            PullSource::Catalog => v1::pull_image_request::Source::Catalog,
            PullSource::Registry => v1::pull_image_request::Source::Registry,
        };
        self.request.source = source.into();
        self
    }

    /// With these credentials for the registry, used for this pull and never stored.
    pub fn credentials(self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.login(Login::Password {
            username: username.into(),
            password: password.into(),
        })
    }

    /// With this login for the registry, used for this pull and never stored.
    pub fn login(mut self, login: Login) -> Self {
        self.request.auth = Some(basic_auth(login));
        self
    }

    /// With the login that these files of this client have for the registry, if none was given. Where they have
    /// none either, the daemon looks into its own.
    pub fn auth_files(mut self, files: AuthFiles) -> Self {
        self.auth_files = Some(files);
        self
    }

    /// With this request id: joins a pull that has it.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.request.request_id = id.to_string();
        self
    }

    /// Calls back each time the operation has changed.
    pub fn progress(mut self, callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        self.progress = Progress::to(callback);
        self
    }

    async fn run(mut self) -> Result<v1::Image> {
        const CALL: &str = "PullImage";
        if let Some(files) = self
            .auth_files
            .take()
            .filter(|_| self.request.auth.is_none())
        {
            let place = registry_and_repository(&self.request.reference);
            let found = files.login(&place).await.map_err(Error::Credentials)?;
            if let Some(login) = found {
                self = self.login(login);
            }
        }
        let (images, request) = (&self.images, &self.request);
        let open = || async {
            images
                .client
                .watched(images.rpc().pull_image(request.clone()).await, CALL)
        };
        follow(&images.client, CALL, &mut self.progress, open).await
    }
}

impl IntoFuture for PullImage {
    type Output = Result<v1::Image>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// A login as the API has it.
pub(crate) fn basic_auth(login: Login) -> v1::BasicAuth {
    match login {
        Login::Password { username, password } => v1::BasicAuth {
            username,
            password,
            ..v1::BasicAuth::default()
        },
        Login::IdentityToken(identity_token) => v1::BasicAuth {
            identity_token,
            ..v1::BasicAuth::default()
        },
    }
}

/// A registration, made when it is awaited. It is not repeated when the connection breaks.
#[derive(Debug)]
#[must_use = "a registration is made when it is awaited"]
pub struct RegisterImage {
    images: Images,
    start: v1::RegisterImageStart,
    source: Source,
    progress: Progress,
}

impl RegisterImage {
    /// The archive has this format; found out from the content otherwise.
    pub fn format(mut self, format: ArchiveFormat) -> Self {
        self.start.format = format.into();
        self
    }

    /// With this kernel for the image's VMs, instead of a bundle's own.
    pub fn kernel(mut self, kernel: impl Into<String>) -> Self {
        self.start.kernel = kernel.into();
        self
    }

    /// The configuration of a root filesystem; archives of images bring their own.
    pub fn config(mut self, config: v1::ImageConfig) -> Self {
        self.start.config = Some(config);
        self
    }

    /// For this platform, `os/architecture[/variant]`, instead of the host's.
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.start.platform = platform.into();
        self
    }

    /// It may take its name over from another image.
    pub fn replace(mut self) -> Self {
        self.start.replace = true;
        self
    }

    /// This image of an archive of several, by its name there.
    pub fn image(mut self, name: impl Into<String>) -> Self {
        self.start.image = name.into();
        self
    }

    /// With this request id.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.start.request_id = id.to_string();
        self
    }

    /// Calls back each time the operation has changed.
    pub fn progress(mut self, callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        self.progress = Progress::to(callback);
        self
    }

    async fn run(mut self) -> Result<v1::Image> {
        const CALL: &str = "RegisterImage";
        use v1::register_image_request::Message;
        if self.start.format == i32::from(ArchiveFormat::Unspecified)
            && let Some(directory) = self.source.directory()
        {
            let layout = directory.join("oci-layout").is_file();
            let format = if layout {
                ArchiveFormat::OciLayout
            } else {
                ArchiveFormat::RootfsTar
            };
            self.start.format = format.into();
        }
        let wrap = |message| v1::RegisterImageRequest {
            message: Some(message),
        };
        let chunk: fn(Bytes) -> _ = |data| v1::RegisterImageRequest {
            message: Some(Message::Chunk(data)),
        };
        let (images, mut progress) = (self.images, self.progress);
        let start = wrap(Message::Start(self.start));
        send(start, vec![(self.source, chunk)], |stream| async move {
            let answer = images.rpc().register_image(stream).await;
            follow_once(images.client.watched(answer, CALL)?, CALL, &mut progress).await
        })
        .await
    }
}

impl IntoFuture for RegisterImage {
    type Output = Result<v1::Image>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl IntoStep<v1::Image> for v1::PullImageResponse {
    fn into_step(self) -> Option<Step<v1::Image>> {
        use v1::pull_image_response::Message;
        Some(match self.message? {
            Message::Operation(operation) => Step::Progress(operation),
            Message::Image(image) => Step::Done(image),
            Message::Heartbeat(_) => Step::Idle,
        })
    }
}

impl IntoStep<v1::Image> for v1::RegisterImageResponse {
    fn into_step(self) -> Option<Step<v1::Image>> {
        use v1::register_image_response::Message;
        Some(match self.message? {
            Message::Operation(operation) => Step::Progress(operation),
            Message::Image(image) => Step::Done(image),
            Message::Heartbeat(_) => Step::Idle,
        })
    }
}

impl ExportMessage for v1::ExportBundleResponse {
    fn part(self) -> Option<ExportPart> {
        use v1::export_bundle_response::Message;
        Some(match self.message? {
            Message::Start(start) => ExportPart::Start(start),
            Message::Chunk(bytes) => ExportPart::Chunk(bytes),
            Message::End(end) => ExportPart::End(end),
            Message::Heartbeat(_) => ExportPart::Idle,
        })
    }
}
