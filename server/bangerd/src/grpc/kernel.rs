//! `KernelService`.

mod upload;

use banger_app::catalog::PullKernelRequest;
use banger_app::kernel::{ImportRequest, ImportSource};
use banger_app::{App, AppError};
use banger_proto::v1;
use banger_proto::v1::export_kernel_response::Message as Exported;
use banger_proto::v1::import_kernel_request::Message;
use banger_proto::v1::import_kernel_response::Message as Answer;
use banger_proto::v1::kernel_service_server::KernelService;
use banger_proto::v1::pull_kernel_response::Message as Pulled;
use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{field, kernel, page};
use super::export::{self, ExportMessage};
use super::request::{self, RequestError};
use super::stream::{self, Answers, OperationMessage};
use super::{Api, refused};

#[tonic::async_trait]
impl KernelService for Api {
    type ImportKernelStream = Answers<v1::ImportKernelResponse>;

    async fn import_kernel(
        &self,
        request: Request<Streaming<v1::ImportKernelRequest>>,
    ) -> Result<Response<Self::ImportKernelStream>, Status> {
        let mut messages = request.into_inner();
        let Some(Message::Start(mut start)) = stream::first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let id = std::mem::take(&mut start.request_id);
        let key = request::key("banger.v1.KernelService/ImportKernel", &id, &start)?;
        let source = match start.debian_package.as_str() {
            "" => upload::receive(&self.app, messages, start.file_name).await?,
            package => ImportSource::DebianPackage(
                field::named("start.debian_package", package)?.to_owned(),
            ),
        };
        let request = ImportRequest {
            name: start.name,
            source,
            make_default: start.make_default,
            replace: start.replace,
        };
        let kernels = self.app.kernels.clone();
        let begun = async move { kernels.import(request, key.as_ref()).await };
        let operation = request::to_its_end(&self.app, begun).await?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    type PullKernelStream = Answers<v1::PullKernelResponse>;

    async fn pull_kernel(
        &self,
        request: Request<v1::PullKernelRequest>,
    ) -> Result<Response<Self::PullKernelStream>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.KernelService/PullKernel", &id, &request)?;
        field::named("kernel", &request.kernel)?;
        let pull = PullKernelRequest {
            kernel: request.kernel,
            name: request.name,
            make_default: request.make_default,
            replace: request.replace,
        };
        let catalogs = self.app.catalogs.clone();
        let begun = async move { catalogs.pull_kernel(pull, key.as_ref()).await };
        let operation = request::to_its_end(&self.app, begun).await?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    type ExportKernelStream = Answers<v1::ExportKernelResponse>;

    async fn export_kernel(
        &self,
        request: Request<v1::ExportKernelRequest>,
    ) -> Result<Response<Self::ExportKernelStream>, Status> {
        let named = field::named("kernel", &request.get_ref().kernel)?;
        let export = self.app.kernels.export(named, self.app.caller()).await;
        Ok(Response::new(export::parts(
            export.map_err(refused)?,
            &self.drain,
        )))
    }

    async fn get_kernel(
        &self,
        request: Request<v1::GetKernelRequest>,
    ) -> Result<Response<v1::GetKernelResponse>, Status> {
        let found = self
            .app
            .kernels
            .get(field::named("kernel", &request.get_ref().kernel)?)
            .await
            .map_err(refused)?;
        Ok(Response::new(v1::GetKernelResponse {
            kernel: Some(kernel::kernel(&found)),
        }))
    }

    async fn list_kernels(
        &self,
        request: Request<v1::ListKernelsRequest>,
    ) -> Result<Response<v1::ListKernelsResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let found = self
            .app
            .kernels
            .list(wanted.size, wanted.before)
            .await
            .map_err(refused)?;
        Ok(Response::new(v1::ListKernelsResponse {
            kernels: found.items.iter().map(kernel::kernel).collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| item.id.to_string()),
        }))
    }

    async fn delete_kernel(
        &self,
        request: Request<v1::DeleteKernelRequest>,
    ) -> Result<Response<v1::DeleteKernelResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.KernelService/DeleteKernel", &id, &request)?;
        let named = field::named("kernel", &request.kernel)?.to_owned();
        let kernels = self.app.kernels.clone();
        let work = async move {
            kernels
                .delete(&named)
                .await
                .map(|()| v1::DeleteKernelResponse {})
        };
        self.once.answer(&self.app, key, work).await
    }
}

impl OperationMessage for v1::ImportKernelResponse {
    fn operation(operation: v1::Operation) -> Self {
        Self {
            message: Some(Answer::Operation(operation)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(Answer::Heartbeat(v1::Heartbeat {})),
        }
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = kernel::kernel(&app.kernels.get(target).await?);
        Ok(Self {
            message: Some(Answer::Kernel(found)),
        })
    }
}

impl OperationMessage for v1::PullKernelResponse {
    fn operation(operation: v1::Operation) -> Self {
        Self {
            message: Some(Pulled::Operation(operation)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(Pulled::Heartbeat(v1::Heartbeat {})),
        }
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = kernel::kernel(&app.kernels.get(target).await?);
        Ok(Self {
            message: Some(Pulled::Kernel(found)),
        })
    }
}

impl ExportMessage for v1::ExportKernelResponse {
    fn start(start: v1::ExportStart) -> Self {
        Self {
            message: Some(Exported::Start(start)),
        }
    }

    fn chunk(bytes: Bytes) -> Self {
        Self {
            message: Some(Exported::Chunk(bytes)),
        }
    }

    fn end(end: v1::ExportEnd) -> Self {
        Self {
            message: Some(Exported::End(end)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(Exported::Heartbeat(v1::Heartbeat {})),
        }
    }
}
