//! VMs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use banger_proto::v1;
use futures::{StreamExt, stream};
use tonic::{Code, Request, Response, Status};
use v1::vm_service_server::VmService;

use super::observe;
use super::{Answer, Daemon, HEARTBEAT, State, refuse, time};

/// The size of a page: small, so that lists have several.
const PAGE: usize = 2;
/// How often a VM that is followed is looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// A page of `all` from the item that `token` names, and the next token.
pub(super) fn page<T: Clone>(all: &[T], token: &str) -> (Vec<T>, String) {
    let start: usize = token.parse().unwrap_or(0);
    let end = (start + PAGE).min(all.len());
    let next = if end < all.len() {
        end.to_string()
    } else {
        String::new()
    };
    (all[start..end].to_vec(), next)
}

pub(super) fn stage(name: &str, item: &str, from: i64, to: Option<i64>, bytes: i64) -> v1::Stage {
    v1::Stage {
        name: name.into(),
        item: item.into(),
        start_time: time(from),
        end_time: to.and_then(time),
        done_bytes: bytes,
        total_bytes: (bytes > 0).then_some(1_000_000),
    }
}

impl State {
    fn find_vm(&self, name: &str) -> Result<v1::Vm, Status> {
        let vms = self.vms.lock().unwrap();
        let found = vms
            .values()
            .find(|vm| vm.id == name || vm.spec.as_ref().unwrap().name == name);
        found.cloned().ok_or_else(|| {
            let message = format!("no VM is called `{name}`");
            let remedy = ("remedy", "List the VMs: banger vm list.");
            refuse(
                Code::NotFound,
                "VM_NOT_FOUND",
                &message,
                &[("vm", name), remedy],
            )
        })
    }

    fn set_state(&self, name: &str, state: v1::vm::State) -> Result<v1::Vm, Status> {
        let mut vm = self.find_vm(name)?;
        vm.set_state(state);
        self.vms.lock().unwrap().insert(vm.id.clone(), vm.clone());
        Ok(vm)
    }

    /// The VM of a request, made by the first of those with its request id.
    fn made_by(&self, request: &v1::CreateVmRequest) -> v1::Vm {
        let mut vms = self.vms.lock().unwrap();
        if let Some(vm) = vms.values().find(|vm| vm.etag == request.request_id) {
            return vm.clone();
        }
        let mut spec = request.spec.clone().unwrap();
        if spec.name.is_empty() {
            spec.name = "generated".into();
        }
        let vm = v1::Vm {
            id: self.id(),
            spec: Some(spec),
            state: v1::vm::State::Running.into(),
            image_id: "image-of".to_owned() + &request.spec.as_ref().unwrap().image,
            kernel_id: "kernel-1".into(),
            etag: request.request_id.clone(),
            boot_timing: vec![
                stage("disks", "", 0, Some(1), 0),
                stage("guest-mount", "", 1, Some(2), 0),
            ],
            create_time: time(0),
            start_time: time(2),
            ..v1::Vm::default()
        };
        vms.insert(vm.id.clone(), vm.clone());
        vm
    }

    fn create_operation(&self, vm: &v1::Vm) -> v1::Operation {
        let operation = v1::Operation {
            id: self.id(),
            kind: v1::operation::Kind::CreateVm.into(),
            target: vm.id.clone(),
            state: v1::operation::State::Running.into(),
            stages: vec![
                stage("resolve", "", 0, Some(1), 0),
                stage("fetch", "0123456789ab", 1, Some(2), 1_000_000),
                stage("boot", "", 2, None, 0),
            ],
            create_time: time(0),
            ..v1::Operation::default()
        };
        self.operations
            .lock()
            .unwrap()
            .insert(operation.id.clone(), operation.clone());
        operation
    }
}

/// What becomes of a VM. Only by its id is it followed; by its name it is gone at once.
fn followed(state: Arc<State>, id: String) -> Answer<v1::WatchVmResponse> {
    use v1::watch_vm_response::Message;
    let begin = (state, id, Some(None));
    let messages = stream::unfold(begin, |(state, id, told)| async move {
        let told: Option<v1::Vm> = told?;
        loop {
            let now = state.vms.lock().unwrap().get(&id).cloned();
            let (message, next) = match now {
                None => (Message::Deleted(v1::VmDeleted {}), None),
                Some(vm) if told.as_ref() != Some(&vm) => (Message::Vm(vm.clone()), Some(Some(vm))),
                Some(_) => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            return Some((message, (state, id, next)));
        }
    });
    let wrap = |message| {
        Ok(v1::WatchVmResponse {
            sequence: 1,
            dropped_count: 0,
            message: Some(message),
        })
    };
    messages.map(wrap).boxed()
}

#[tonic::async_trait]
impl VmService for Daemon {
    type CreateVmStream = Answer<v1::CreateVmResponse>;

    async fn create_vm(
        &self,
        request: Request<v1::CreateVmRequest>,
    ) -> Result<Response<Self::CreateVmStream>, Status> {
        use v1::create_vm_response::Message;
        let request = request.into_inner();
        let spec = request.spec.clone().unwrap_or_default();
        self.call(format!("CreateVm {}", spec.image));
        if spec.image == "missing" || (spec.image == "unpulled" && !request.pull_if_missing) {
            let message = format!("there is no image `{}`", spec.image);
            let remedy = ("remedy", "Pull it: banger image pull.");
            return Err(refuse(
                Code::NotFound,
                "IMAGE_NOT_FOUND",
                &message,
                &[("image", &spec.image), remedy],
            ));
        }
        let late = spec.image == "late";
        if late {
            // For a while the daemon knows of no VM: it would be pulling.
            tokio::time::sleep(HEARTBEAT).await;
        }
        let vm = self.made_by(&request);
        let operation = self.create_operation(&vm);
        let begun = Message::Operation(operation.clone());
        let state = Arc::clone(&self.0);
        let slow = spec.image == "slow" || late;
        let rest = stream::unfold(false, move |done| {
            let (state, vm, operation) = (state.clone(), vm.clone(), operation.clone());
            async move {
                if done {
                    return None;
                }
                if !slow {
                    return Some((Ok(Message::Vm(vm)), true));
                }
                tokio::time::sleep(HEARTBEAT).await;
                if state.vms.lock().unwrap().contains_key(&vm.id) {
                    return Some((Ok(Message::Operation(operation)), false));
                }
                Some((
                    Err(refuse(
                        Code::Cancelled,
                        "VM_DELETED",
                        "the VM was deleted",
                        &[],
                    )),
                    true,
                ))
            }
        });
        let wrap = |message: Result<Message, Status>| {
            message.map(|message| v1::CreateVmResponse {
                message: Some(message),
            })
        };
        Ok(Response::new(
            stream::iter([Ok(begun)]).chain(rest).map(wrap).boxed(),
        ))
    }

    async fn get_vm(
        &self,
        request: Request<v1::GetVmRequest>,
    ) -> Result<Response<v1::GetVmResponse>, Status> {
        let vm = Some(self.find_vm(&request.into_inner().vm)?);
        Ok(Response::new(v1::GetVmResponse { vm }))
    }

    async fn list_vms(
        &self,
        request: Request<v1::ListVmsRequest>,
    ) -> Result<Response<v1::ListVmsResponse>, Status> {
        let request = request.into_inner();
        let wanted = |vm: &&v1::Vm| {
            let labels = &vm.spec.as_ref().unwrap().labels;
            request
                .labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        let all: Vec<_> = self
            .vms
            .lock()
            .unwrap()
            .values()
            .filter(wanted)
            .cloned()
            .collect();
        let (vms, next_page_token) = page(&all, &request.page_token);
        Ok(Response::new(v1::ListVmsResponse {
            vms,
            next_page_token,
        }))
    }

    async fn start_vm(
        &self,
        request: Request<v1::StartVmRequest>,
    ) -> Result<Response<v1::StartVmResponse>, Status> {
        let vm = Some(self.set_state(&request.into_inner().vm, v1::vm::State::Running)?);
        Ok(Response::new(v1::StartVmResponse { vm }))
    }

    async fn stop_vm(
        &self,
        request: Request<v1::StopVmRequest>,
    ) -> Result<Response<v1::StopVmResponse>, Status> {
        let vm = Some(self.set_state(&request.into_inner().vm, v1::vm::State::Stopped)?);
        Ok(Response::new(v1::StopVmResponse { vm }))
    }

    async fn restart_vm(
        &self,
        request: Request<v1::RestartVmRequest>,
    ) -> Result<Response<v1::RestartVmResponse>, Status> {
        let vm = Some(self.set_state(&request.into_inner().vm, v1::vm::State::Running)?);
        Ok(Response::new(v1::RestartVmResponse { vm }))
    }

    async fn pause_vm(
        &self,
        request: Request<v1::PauseVmRequest>,
    ) -> Result<Response<v1::PauseVmResponse>, Status> {
        let vm = Some(self.set_state(&request.into_inner().vm, v1::vm::State::Paused)?);
        Ok(Response::new(v1::PauseVmResponse { vm }))
    }

    async fn resume_vm(
        &self,
        request: Request<v1::ResumeVmRequest>,
    ) -> Result<Response<v1::ResumeVmResponse>, Status> {
        let vm = Some(self.set_state(&request.into_inner().vm, v1::vm::State::Running)?);
        Ok(Response::new(v1::ResumeVmResponse { vm }))
    }

    async fn update_vm(
        &self,
        request: Request<v1::UpdateVmRequest>,
    ) -> Result<Response<v1::UpdateVmResponse>, Status> {
        let request = request.into_inner();
        self.call("UpdateVm");
        let vm = self.find_vm(&request.vm)?;
        let mask = request.update_mask.unwrap_or_default();
        let wanted = request.spec.unwrap_or_default();
        let mut vms = self.vms.lock().unwrap();
        let vm = vms.get_mut(&vm.id).unwrap();
        let spec = vm.spec.get_or_insert_default();
        for path in &mask.paths {
            match path.as_str() {
                "labels" => spec.labels.clone_from(&wanted.labels),
                "ttl" => spec.ttl = wanted.ttl,
                "memory_mib" => spec.memory_mib = wanted.memory_mib,
                other => return Err(Status::invalid_argument(other.to_owned())),
            }
        }
        let vm = Some(vm.clone());
        Ok(Response::new(v1::UpdateVmResponse { vm }))
    }

    async fn kill_vm(
        &self,
        request: Request<v1::KillVmRequest>,
    ) -> Result<Response<v1::KillVmResponse>, Status> {
        let vm = Some(self.set_state(&request.into_inner().vm, v1::vm::State::Stopped)?);
        Ok(Response::new(v1::KillVmResponse { vm }))
    }

    async fn delete_vm(
        &self,
        request: Request<v1::DeleteVmRequest>,
    ) -> Result<Response<v1::DeleteVmResponse>, Status> {
        let name = request.into_inner().vm;
        self.call("DeleteVm");
        let vm = self.find_vm(&name)?;
        self.vms.lock().unwrap().remove(&vm.id);
        self.deleted.notify_waiters();
        Ok(Response::new(v1::DeleteVmResponse {}))
    }

    type WatchVmStream = Answer<v1::WatchVmResponse>;

    async fn watch_vm(
        &self,
        request: Request<v1::WatchVmRequest>,
    ) -> Result<Response<Self::WatchVmStream>, Status> {
        use v1::watch_vm_response::Message;
        let named = request.into_inner().vm;
        let vm = self.find_vm(&named)?;
        if named == vm.id {
            return Ok(Response::new(followed(self.0.clone(), named)));
        }
        let messages = [Message::Vm(vm), Message::Deleted(v1::VmDeleted {})];
        let wrap = |message| {
            Ok(v1::WatchVmResponse {
                sequence: 1,
                dropped_count: 0,
                message: Some(message),
            })
        };
        Ok(Response::new(stream::iter(messages.map(wrap)).boxed()))
    }

    async fn get_vm_stats(
        &self,
        request: Request<v1::GetVmStatsRequest>,
    ) -> Result<Response<v1::GetVmStatsResponse>, Status> {
        let vm = self.find_vm(&request.into_inner().vm)?;
        let stats = Some(observe::stats(&vm, 0));
        Ok(Response::new(v1::GetVmStatsResponse { stats }))
    }

    type WatchVmStatsStream = Answer<v1::WatchVmStatsResponse>;

    async fn watch_vm_stats(
        &self,
        request: Request<v1::WatchVmStatsRequest>,
    ) -> Result<Response<Self::WatchVmStatsStream>, Status> {
        self.call("WatchVmStats");
        let wanted = match request.into_inner().vm.as_str() {
            "" => String::new(),
            named => self.find_vm(named)?.id,
        };
        let stream = observe::watch_stats(Arc::clone(&self.0), wanted);
        Ok(Response::new(stream))
    }

    async fn get_ssh_host_key(
        &self,
        request: Request<v1::GetSshHostKeyRequest>,
    ) -> Result<Response<v1::GetSshHostKeyResponse>, Status> {
        self.find_vm(&request.into_inner().vm)?;
        let public_key = "ssh-ed25519 AAAA".into();
        Ok(Response::new(v1::GetSshHostKeyResponse { public_key }))
    }

    async fn list_ports(
        &self,
        request: Request<v1::ListPortsRequest>,
    ) -> Result<Response<v1::ListPortsResponse>, Status> {
        let request = request.into_inner();
        self.find_vm(&request.vm)?;
        Ok(Response::new(observe::ports(request.probe)))
    }

    type ReadConsoleStream = Answer<v1::ReadConsoleResponse>;

    async fn read_console(
        &self,
        request: Request<v1::ReadConsoleRequest>,
    ) -> Result<Response<Self::ReadConsoleStream>, Status> {
        use v1::read_console_response::Message;
        let request = request.into_inner();
        self.find_vm(&request.vm)?;
        if self.silent.load(Ordering::Relaxed) {
            return Ok(Response::new(stream::pending().boxed()));
        }
        let text = b"Linux version 6.1\r\nagent ready\r\n";
        let offset = request.offset.unwrap_or(0);
        let from = match request.tail_lines {
            Some(1) => 19, // `agent ready`
            _ => usize::try_from(offset).unwrap().min(text.len()),
        };
        let output = v1::ConsoleOutput {
            offset: i64::try_from(from).unwrap(),
            data: text[from..].to_vec().into(),
        };
        let message = Some(Message::Output(output));
        Ok(Response::new(
            stream::iter([Ok(v1::ReadConsoleResponse { message })]).boxed(),
        ))
    }
}
