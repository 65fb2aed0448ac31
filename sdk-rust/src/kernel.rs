//! Kernels: import, export, get, list, delete.

use std::future::IntoFuture;
use std::path::PathBuf;

use banger_proto::v1;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;
use v1::kernel_service_client::KernelServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::export::{Export, ExportMessage, ExportPart};
use crate::operation::{IntoStep, Progress, Step, follow, follow_once};
use crate::request::Request;
use crate::stream::{Pages, pages};
use crate::upload::{Part, Source, send};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

/// Kernels.
#[derive(Debug, Clone)]
pub struct Kernels {
    client: Client,
}

impl Kernels {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn rpc(&self) -> KernelServiceClient<tonic::transport::Channel> {
        KernelServiceClient::new(self.client.channel())
    }

    /// Imports a vmlinux or bzImage, with the directory of its modules if it needs any; or a kernel bundle, which
    /// has all of it inside.
    pub fn import_file(&self, kernel: impl Into<Source>, modules: Option<PathBuf>) -> ImportKernel {
        let kernel = kernel.into();
        let file_name = kernel.file_name();
        let kernel_part: Part<_> = (kernel, kernel_chunk);
        let modules_part =
            modules.map(|path| (Source::Path(path), modules_chunk as fn(Bytes) -> _));
        let parts = [kernel_part].into_iter().chain(modules_part);
        let mut import = self.import(String::new(), parts.collect());
        import.start.file_name = file_name;
        import
    }

    /// Imports the kernel of a Debian package, which the daemon fetches with its host's apt.
    pub fn import_debian_package(&self, package: impl Into<String>) -> ImportKernel {
        self.import(package.into(), Vec::new())
    }

    fn import(
        &self,
        debian_package: String,
        parts: Vec<Part<v1::ImportKernelRequest>>,
    ) -> ImportKernel {
        let request_id = Uuid::new_v4().to_string();
        let start = v1::ImportKernelStart {
            debian_package,
            request_id,
            ..v1::ImportKernelStart::default()
        };
        ImportKernel {
            kernels: self.clone(),
            start,
            parts,
            progress: Progress::none(),
        }
    }

    /// Pulls a kernel of a catalog, by its name or as `catalog/name`. The pull goes on in the daemon if this is
    /// dropped.
    pub fn pull(&self, kernel: impl Into<String>) -> PullKernel {
        let request = v1::PullKernelRequest {
            kernel: kernel.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::PullKernelRequest::default()
        };
        PullKernel {
            kernels: self.clone(),
            request,
            progress: Progress::none(),
        }
    }

    /// Writes a kernel as a kernel bundle: what catalogs offer and [`Self::import_file`] takes.
    ///
    /// # Errors
    /// When there is no such kernel, or the daemon cannot be asked.
    pub async fn export(&self, kernel: impl Into<String>) -> Result<Export> {
        const CALL: &str = "ExportKernel";
        let request = v1::ExportKernelRequest {
            kernel: kernel.into(),
        };
        let answer = self.rpc().export_kernel(request).await;
        Export::begin(self.client.watched(answer, CALL)?, CALL).await
    }

    /// The kernel with this id or name.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, kernel: impl Into<String>) -> Result<v1::Kernel> {
        const CALL: &str = "GetKernel";
        let request = v1::GetKernelRequest {
            kernel: kernel.into(),
        };
        let call = || async { self.rpc().get_kernel(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.kernel.ok_or(Error::Protocol {
            during: CALL,
            detail: "no kernel",
        })
    }

    /// All kernels, newest first.
    #[must_use]
    pub fn list(&self) -> Pages<v1::Kernel> {
        let this = self.clone();
        pages(move |page_token| {
            let this = this.clone();
            async move {
                let request = v1::ListKernelsRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                };
                let call = || async { this.rpc().list_kernels(request.clone()).await };
                let page = this.client.repeat("ListKernels", call).await?;
                Ok((page.kernels, page.next_page_token))
            }
        })
    }

    /// Removes a kernel.
    pub fn delete(&self, kernel: impl Into<String>) -> Request<()> {
        let (this, kernel) = (self.clone(), kernel.into());
        Request::new(|request_id| async move {
            let request = v1::DeleteKernelRequest { kernel, request_id };
            let call = || async { this.rpc().delete_kernel(request.clone()).await };
            this.client.repeat("DeleteKernel", call).await.map(drop)
        })
    }
}

fn kernel_chunk(data: Bytes) -> v1::ImportKernelRequest {
    let message = v1::import_kernel_request::Message::KernelChunk(data);
    v1::ImportKernelRequest {
        message: Some(message),
    }
}

fn config_chunk(data: Bytes) -> v1::ImportKernelRequest {
    let message = v1::import_kernel_request::Message::ConfigChunk(data);
    v1::ImportKernelRequest {
        message: Some(message),
    }
}

fn modules_chunk(data: Bytes) -> v1::ImportKernelRequest {
    let message = v1::import_kernel_request::Message::ModulesChunk(data);
    v1::ImportKernelRequest {
        message: Some(message),
    }
}

/// A pull, made when it is awaited.
#[derive(Debug)]
#[must_use = "a pull is made when it is awaited"]
pub struct PullKernel {
    kernels: Kernels,
    request: v1::PullKernelRequest,
    progress: Progress,
}

impl PullKernel {
    /// Under this name instead of the catalog's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.name = name.into();
        self
    }

    /// VMs get it that name none.
    pub const fn make_default(mut self) -> Self {
        self.request.make_default = true;
        self
    }

    /// Takes the place of a kernel of the same name.
    pub const fn replace(mut self) -> Self {
        self.request.replace = true;
        self
    }

    /// Calls back each time the operation has changed.
    pub fn progress(mut self, callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        self.progress = Progress::to(callback);
        self
    }

    async fn run(mut self) -> Result<v1::Kernel> {
        const CALL: &str = "PullKernel";
        let (kernels, request) = (&self.kernels, &self.request);
        let open = || async {
            let answer = kernels.rpc().pull_kernel(request.clone()).await;
            kernels.client.watched(answer, CALL)
        };
        follow(&kernels.client, CALL, &mut self.progress, open).await
    }
}

impl IntoFuture for PullKernel {
    type Output = Result<v1::Kernel>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl IntoStep<v1::Kernel> for v1::PullKernelResponse {
    fn into_step(self) -> Option<Step<v1::Kernel>> {
        use v1::pull_kernel_response::Message;
        Some(match self.message? {
            Message::Operation(operation) => Step::Progress(operation),
            Message::Kernel(kernel) => Step::Done(kernel),
            Message::Heartbeat(_) => Step::Idle,
        })
    }
}

/// An import, made when it is awaited. It is not repeated when the connection breaks.
#[derive(Debug)]
#[must_use = "an import is made when it is awaited"]
pub struct ImportKernel {
    kernels: Kernels,
    start: v1::ImportKernelStart,
    parts: Vec<Part<v1::ImportKernelRequest>>,
    progress: Progress,
}

impl ImportKernel {
    /// Under this name instead of one made of the release.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.start.name = name.into();
        self
    }

    /// With the configuration it was built with, as a file: what it has built in is read from there, unless it has
    /// its configuration inside.
    pub fn config(mut self, config: impl Into<Source>) -> Self {
        self.parts.push((config.into(), config_chunk));
        self
    }

    /// VMs get it that name none.
    pub const fn make_default(mut self) -> Self {
        self.start.make_default = true;
        self
    }

    /// Takes the place of a kernel of the same name.
    pub const fn replace(mut self) -> Self {
        self.start.replace = true;
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

    async fn run(self) -> Result<v1::Kernel> {
        const CALL: &str = "ImportKernel";
        let message = Some(v1::import_kernel_request::Message::Start(self.start));
        let (kernels, mut progress) = (self.kernels, self.progress);
        send(
            v1::ImportKernelRequest { message },
            self.parts,
            |stream| async move {
                let answer = kernels.rpc().import_kernel(stream).await;
                follow_once(kernels.client.watched(answer, CALL)?, CALL, &mut progress).await
            },
        )
        .await
    }
}

impl IntoFuture for ImportKernel {
    type Output = Result<v1::Kernel>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl ExportMessage for v1::ExportKernelResponse {
    fn part(self) -> Option<ExportPart> {
        use v1::export_kernel_response::Message;
        Some(match self.message? {
            Message::Start(start) => ExportPart::Start(start),
            Message::Chunk(bytes) => ExportPart::Chunk(bytes),
            Message::End(end) => ExportPart::End(end),
            Message::Heartbeat(_) => ExportPart::Idle,
        })
    }
}

impl IntoStep<v1::Kernel> for v1::ImportKernelResponse {
    fn into_step(self) -> Option<Step<v1::Kernel>> {
        use v1::import_kernel_response::Message;
        Some(match self.message? {
            Message::Operation(operation) => Step::Progress(operation),
            Message::Kernel(kernel) => Step::Done(kernel),
            Message::Heartbeat(_) => Step::Idle,
        })
    }
}
