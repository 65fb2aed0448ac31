//! `VmService`.

mod console;
mod stats;
mod verb;
mod watch;

use banger_app::{App, AppError};
use banger_core::lifecycle::Verb;
use banger_core::port::Probe;
use banger_proto::v1;
use banger_proto::v1::create_vm_response::Message;
use banger_proto::v1::vm_service_server::VmService;
use tonic::{Request, Response, Status};

use super::convert::{self, change, field, page, vm};
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
        let owner = self.app.caller().clone();
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/CreateVm", &id, &request)?;
        let (vms, create) = (self.app.vms.clone(), vm::create(request, owner)?);
        let begun = async move { vms.create(&create, key.as_ref()).await };
        let operation = request::to_its_end(&self.app, begun).await?;
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
            vm: Some(vm::shown(&found, self.app.role().secrets())),
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
            vms: found
                .items
                .iter()
                .map(|item| vm::shown(item, self.app.role().secrets()))
                .collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| item.id.to_string()),
        }))
    }

    async fn update_vm(
        &self,
        request: Request<v1::UpdateVmRequest>,
    ) -> Result<Response<v1::UpdateVmResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VmService/UpdateVm", &id, &request)?;
        let named = field::named("vm", &request.vm)?.to_owned();
        let change = change::change(request)?;
        let vms = self.app.vms.clone();
        let work = async move {
            vms.update(&named, change)
                .await
                .map(|found| v1::UpdateVmResponse {
                    vm: Some(vm::vm(&found)),
                })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn start_vm(
        &self,
        request: Request<v1::StartVmRequest>,
    ) -> Result<Response<v1::StartVmResponse>, Status> {
        self.put(request, |vms, named| async move {
            let found = vms.start(&named).await?;
            let vm = Some(vm::vm(&found));
            Ok(v1::StartVmResponse { vm })
        })
        .await
    }

    async fn stop_vm(
        &self,
        request: Request<v1::StopVmRequest>,
    ) -> Result<Response<v1::StopVmResponse>, Status> {
        let keeps_logs = request.get_ref().keep_logs;
        self.put(request, move |vms, named| async move {
            let found = match keeps_logs {
                true => vms.stop_keeping_logs(&named).await?,
                false => vms.stop(&named, Verb::Stop).await?,
            };
            let vm = Some(vm::vm(&found));
            Ok(v1::StopVmResponse { vm })
        })
        .await
    }

    async fn restart_vm(
        &self,
        request: Request<v1::RestartVmRequest>,
    ) -> Result<Response<v1::RestartVmResponse>, Status> {
        self.put(request, |vms, named| async move {
            let found = vms.restart(&named).await?;
            let vm = Some(vm::vm(&found));
            Ok(v1::RestartVmResponse { vm })
        })
        .await
    }

    async fn pause_vm(
        &self,
        request: Request<v1::PauseVmRequest>,
    ) -> Result<Response<v1::PauseVmResponse>, Status> {
        self.put(request, |vms, named| async move {
            let found = vms.hold(&named, Verb::Pause).await?;
            let vm = Some(vm::vm(&found));
            Ok(v1::PauseVmResponse { vm })
        })
        .await
    }

    async fn resume_vm(
        &self,
        request: Request<v1::ResumeVmRequest>,
    ) -> Result<Response<v1::ResumeVmResponse>, Status> {
        self.put(request, |vms, named| async move {
            let found = vms.hold(&named, Verb::Resume).await?;
            let vm = Some(vm::vm(&found));
            Ok(v1::ResumeVmResponse { vm })
        })
        .await
    }

    async fn kill_vm(
        &self,
        request: Request<v1::KillVmRequest>,
    ) -> Result<Response<v1::KillVmResponse>, Status> {
        self.put(request, |vms, named| async move {
            let found = vms.stop(&named, Verb::Kill).await?;
            let vm = Some(vm::vm(&found));
            Ok(v1::KillVmResponse { vm })
        })
        .await
    }

    async fn delete_vm(
        &self,
        request: Request<v1::DeleteVmRequest>,
    ) -> Result<Response<v1::DeleteVmResponse>, Status> {
        self.put(request, |vms, named| async move {
            vms.delete(&named).await?;
            Ok(v1::DeleteVmResponse {})
        })
        .await
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
        let secrets = self.app.role().secrets();
        Ok(Response::new(watch::watch(view, secrets, &self.drain)))
    }

    async fn get_vm_stats(
        &self,
        request: Request<v1::GetVmStatsRequest>,
    ) -> Result<Response<v1::GetVmStatsResponse>, Status> {
        let named = field::named("vm", &request.get_ref().vm)?;
        let found = self.app.vms.stats(named).await.map_err(refused)?;
        Ok(Response::new(v1::GetVmStatsResponse {
            stats: Some(convert::stats::stats(&found)),
        }))
    }

    type WatchVmStatsStream = Answers<v1::WatchVmStatsResponse>;

    async fn watch_vm_stats(
        &self,
        request: Request<v1::WatchVmStatsRequest>,
    ) -> Result<Response<Self::WatchVmStatsStream>, Status> {
        let request = request.into_inner();
        let named = match request.vm.as_str() {
            "" => None,
            named => Some(field::named("vm", named)?),
        };
        let interval = convert::stats::interval(request.interval.as_ref())?;
        let meter = self.app.vms.meter(named).map_err(refused)?;
        let watch = stats::Watch::new(meter, interval);
        Ok(Response::new(watch.watch(&self.drain)))
    }

    async fn get_ssh_host_key(
        &self,
        request: Request<v1::GetSshHostKeyRequest>,
    ) -> Result<Response<v1::GetSshHostKeyResponse>, Status> {
        let named = field::named("vm", &request.get_ref().vm)?;
        let found = self.app.ssh.host_key(named).await.map_err(refused)?;
        Ok(Response::new(v1::GetSshHostKeyResponse {
            public_key: found.public_line(),
        }))
    }

    async fn list_ports(
        &self,
        request: Request<v1::ListPortsRequest>,
    ) -> Result<Response<v1::ListPortsResponse>, Status> {
        let request = request.into_inner();
        let named = field::named("vm", &request.vm)?;
        let probe = if request.probe {
            Probe::Http
        } else {
            Probe::No
        };
        let found = self.app.vms.ports(named, probe).await.map_err(refused)?;
        Ok(Response::new(v1::ListPortsResponse {
            ports: found.listeners.iter().map(convert::stats::port).collect(),
            is_truncated: found.is_truncated,
        }))
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
            start: console::start(request.offset, request.tail_lines)?,
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
