//! `KernelService`.

use banger_app::kernel::{ImportRequest, ImportSource};
use banger_app::upload::Upload;
use banger_app::{App, AppError};
use banger_proto::v1;
use banger_proto::v1::import_kernel_request::Message;
use banger_proto::v1::import_kernel_response::Message as Answer;
use banger_proto::v1::kernel_service_server::KernelService;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{field, kernel, page};
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
            "" => receive(&self.app, messages).await?,
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
        let operation = self
            .app
            .kernels
            .import(request, key.as_ref())
            .await
            .map_err(refused)?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    type PullKernelStream = Answers<v1::PullKernelResponse>;

    async fn pull_kernel(
        &self,
        _: Request<v1::PullKernelRequest>,
    ) -> Result<Response<Self::PullKernelStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type ExportKernelStream = Answers<v1::ExportKernelResponse>;

    async fn export_kernel(
        &self,
        _: Request<v1::ExportKernelRequest>,
    ) -> Result<Response<Self::ExportKernelStream>, Status> {
        Err(Status::unimplemented("not yet"))
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

/// Takes a kernel in, and its modules, which come after it.
async fn receive(
    app: &App,
    mut messages: Streaming<v1::ImportKernelRequest>,
) -> Result<ImportSource, Status> {
    let mut kernel = app.images.begin_upload().await.map_err(refused)?;
    let mut modules: Option<Upload> = None;
    let mut is_empty = true;
    while let Some(message) = messages.message().await? {
        match (message.message, &mut modules) {
            (Some(Message::KernelChunk(bytes)), None) => {
                is_empty &= bytes.is_empty();
                kernel
                    .write(field::chunk("kernel_chunk", bytes)?)
                    .await
                    .map_err(refused)?;
            }
            (Some(Message::KernelChunk(_)), Some(_)) => {
                return Err(
                    RequestError::invalid("kernel_chunk", "comes after the modules").into(),
                );
            }
            (Some(Message::ModulesChunk(_)), None) if is_empty => {
                return Err(
                    RequestError::invalid("modules_chunk", "comes before the kernel").into(),
                );
            }
            (Some(Message::ModulesChunk(bytes)), modules) => {
                let upload = match modules {
                    Some(upload) => upload,
                    None => modules.insert(app.images.begin_upload().await.map_err(refused)?),
                };
                upload
                    .write(field::chunk("modules_chunk", bytes)?)
                    .await
                    .map_err(refused)?;
            }
            (Some(Message::ConfigChunk(_)), _) => {
                return Err(RequestError::invalid("config_chunk", "is not taken yet").into());
            }
            (Some(Message::Start(_)), _) => {
                return Err(RequestError::invalid("start", "comes a second time").into());
            }
            (None, _) => return Err(RequestError::missing("message").into()),
        }
    }
    if is_empty {
        return Err(RequestError::missing("kernel_chunk").into());
    }
    let modules = match modules {
        Some(upload) => Some(upload.finish().await.map_err(refused)?),
        None => None,
    };
    Ok(ImportSource::Upload {
        kernel: kernel.finish().await.map_err(refused)?,
        modules,
    })
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
