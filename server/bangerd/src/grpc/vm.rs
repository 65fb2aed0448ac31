//! `VmService`.

mod console;
mod watch;

use banger_app::{App, AppError};
use banger_core::lifecycle::Verb;
use banger_proto::v1;
use banger_proto::v1::create_vm_response::Message;
use banger_proto::v1::vm_service_server::VmService;
use tonic::{Request, Response, Status};

use super::convert::{field, page, vm};
use super::request;
use super::stream::{self, Answers, OperationMessage};
use super::{Api, refused};

#[tonic::async_trait]
impl VmService for Api {
    type CreateVmStream = Answers<v1::CreateVmResponse>;

    async fn create_vm(
        &self,
        request: Request<v1::CreateVmRequest>,
    ) -> Result<Response<Self::CreateVmStream>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/CreateVm", &id, &request)?;
        let operation = self
            .app
            .vms
            .create(&vm::create(request)?, key.as_ref())
            .await
            .map_err(refused)?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    async fn get_vm(
        &self,
        request: Request<v1::GetVmRequest>,
    ) -> Result<Response<v1::GetVmResponse>, Status> {
        let found = self
            .app
            .vms
            .get(field::named("vm", &request.get_ref().vm)?)
            .map_err(refused)?;
        Ok(Response::new(v1::GetVmResponse {
            vm: Some(vm::vm(&found)),
        }))
    }

    async fn list_vms(
        &self,
        request: Request<v1::ListVmsRequest>,
    ) -> Result<Response<v1::ListVmsResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let size = usize::try_from(wanted.size).unwrap_or(usize::MAX);
        let found = self.app.vms.list(size, wanted.before_vm(), &request.labels);
        Ok(Response::new(v1::ListVmsResponse {
            vms: found.items.iter().map(|item| vm::vm(item)).collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| item.id.to_string()),
        }))
    }

    async fn start_vm(
        &self,
        request: Request<v1::StartVmRequest>,
    ) -> Result<Response<v1::StartVmResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/StartVm", &id, &request)?;
        let named = field::named("vm", &request.vm)?.to_owned();
        let vms = self.app.vms.clone();
        let work = async move {
            vms.start(&named).await.map(|found| v1::StartVmResponse {
                vm: Some(vm::vm(&found)),
            })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn stop_vm(
        &self,
        request: Request<v1::StopVmRequest>,
    ) -> Result<Response<v1::StopVmResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/StopVm", &id, &request)?;
        let named = field::named("vm", &request.vm)?.to_owned();
        let vms = self.app.vms.clone();
        let work = async move {
            vms.stop(&named, Verb::Stop)
                .await
                .map(|found| v1::StopVmResponse {
                    vm: Some(vm::vm(&found)),
                })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn kill_vm(
        &self,
        request: Request<v1::KillVmRequest>,
    ) -> Result<Response<v1::KillVmResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/KillVm", &id, &request)?;
        let named = field::named("vm", &request.vm)?.to_owned();
        let vms = self.app.vms.clone();
        let work = async move {
            vms.stop(&named, Verb::Kill)
                .await
                .map(|found| v1::KillVmResponse {
                    vm: Some(vm::vm(&found)),
                })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn delete_vm(
        &self,
        request: Request<v1::DeleteVmRequest>,
    ) -> Result<Response<v1::DeleteVmResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/DeleteVm", &id, &request)?;
        let named = field::named("vm", &request.vm)?.to_owned();
        let vms = self.app.vms.clone();
        let work = async move { vms.delete(&named).await.map(|()| v1::DeleteVmResponse {}) };
        self.once.answer(&self.app, key, work).await
    }

    type WatchVmStream = Answers<v1::WatchVmResponse>;

    async fn watch_vm(
        &self,
        request: Request<v1::WatchVmRequest>,
    ) -> Result<Response<Self::WatchVmStream>, Status> {
        let view = self
            .app
            .vms
            .watch(field::named("vm", &request.get_ref().vm)?)
            .map_err(refused)?;
        Ok(Response::new(watch::watch(view, &self.drain)))
    }

    type ReadConsoleStream = Answers<v1::ReadConsoleResponse>;

    async fn read_console(
        &self,
        request: Request<v1::ReadConsoleRequest>,
    ) -> Result<Response<Self::ReadConsoleStream>, Status> {
        let request = request.into_inner();
        let named = field::named("vm", &request.vm)?;
        let reader = console::Reader {
            console: self.app.vms.console(named).map_err(refused)?,
            view: self.app.vms.watch(named).map_err(refused)?,
            offset: field::natural("offset", request.offset.unwrap_or(0))?,
            follow: request.follow,
        };
        Ok(Response::new(reader.read(&self.drain)))
    }
}

impl OperationMessage for v1::CreateVmResponse {
    fn operation(operation: v1::Operation) -> Self {
        Self {
            message: Some(Message::Operation(operation)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(Message::Heartbeat(v1::Heartbeat {})),
        }
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = vm::vm(&*app.vms.get(target)?);
        Ok(Self {
            message: Some(Message::Vm(found)),
        })
    }
}
