//! VMs, operations and the host.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use banger_proto::v1;
use futures::{StreamExt, stream};
use tonic::{Code, Request, Response, Status};
use v1::host_service_server::HostService;
use v1::operation_service_server::OperationService;
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
impl HostService for Daemon {
    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        let info = v1::HostInfo {
            version: "0.1.0".into(),
            driver: "fake".into(),
            accelerator: "tcg".into(),
            accelerator_warning: "no KVM here".into(),
            cpu_count: 2,
            memory_bytes: 8 << 30,
            memory_available_bytes: 4 << 30,
            state_dir: "/var/lib/banger".into(),
            state_dir_available_bytes: 10 << 30,
            vm_count: 3,
            running_vm_count: 1,
            image_count: 5,
            default_kernel: "cloud".into(),
            pid: 42,
            ..v1::HostInfo::default()
        };
        Ok(Response::new(v1::GetInfoResponse { info: Some(info) }))
    }

    type DoctorStream = Answer<v1::DoctorResponse>;

    async fn doctor(
        &self,
        request: Request<v1::DoctorRequest>,
    ) -> Result<Response<Self::DoctorStream>, Status> {
        use v1::doctor_response::Message;
        let request = request.into_inner();
        self.call(format!("Doctor fix={}", request.fix));
        if self.silent.load(Ordering::Relaxed) {
            return Ok(Response::new(stream::pending().boxed()));
        }
        let checks = super::doctor::checks(request.fix);
        let wanted = |check: &v1::DoctorCheck| {
            request.checks.is_empty() || request.checks.contains(&check.id)
        };
        let checks: Vec<_> = checks
            .into_iter()
            .filter(wanted)
            .map(Message::Check)
            .collect();
        if checks.is_empty() {
            let message = "checks has an id that there is none of";
            return Err(refuse(Code::InvalidArgument, "INVALID_FIELD", message, &[]));
        }
        let cut = self.draining.load(Ordering::Relaxed) > 0;
        let last = Message::Summary(v1::DoctorSummary::default());
        let messages = [Message::Heartbeat(v1::Heartbeat {})].into_iter();
        let messages = messages.chain(checks).chain((!cut).then_some(last));
        let messages: Vec<_> = messages
            .map(|message| {
                Ok(v1::DoctorResponse {
                    sequence: 1,
                    message: Some(message),
                })
            })
            .collect();
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    type WatchEventsStream = Answer<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        self.call("WatchEvents");
        Ok(Response::new(observe::watch_events(request.into_inner())))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let request = request.into_inner();
        let record = v1::AuditRecord {
            sequence: 7,
            time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            duration: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            owner: "cert:ci".into(),
            role: "user".into(),
            via: "certificate:0a".into(),
            method: "banger.v1.VmService/StopVm".into(),
            object: "web".into(),
            request_id: String::new(),
            code: 7,
            reason: "ROLE_TOO_LOW".into(),
            lost_count: 0,
        };
        let is_wanted = request.owner.is_empty() || request.owner == record.owner;
        Ok(Response::new(v1::ListAuditResponse {
            records: is_wanted.then_some(record).into_iter().collect(),
            next_page_token: String::new(),
        }))
    }

    async fn get_usage(
        &self,
        _: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let promise = |promised, limit| Some(v1::Promise { promised, limit });
        let promises = |memory_limit| v1::Promises {
            vms: promise(3, Some(1000)),
            running_vms: promise(1, None),
            vcpus: promise(2, Some(32)),
            memory_mib: promise(2048, memory_limit),
            volumes: promise(1, Some(1000)),
            disk_mib: promise(24576, None),
        };
        let usage = v1::HostUsage {
            promises: Some(promises(Some(7936))),
            owners: vec![v1::OwnerUsage {
                owner: "uid:1000".into(),
                promises: Some(promises(Some(4096))),
            }],
            memory_used_bytes: 512 << 20,
            memory_available_bytes: 4 << 30,
            disk_used_bytes: 1 << 30,
            disk_available_bytes: 10 << 30,
            booting_count: 1,
            max_parallel_boots: 4,
            waiting_count: 2,
            boot_queue_max: 1000,
            ..v1::HostUsage::default()
        };
        let usage = Some(usage);
        Ok(Response::new(v1::GetUsageResponse { usage }))
    }
}

#[tonic::async_trait]
impl OperationService for Daemon {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let id = request.into_inner().operation;
        let operation = self.operations.lock().unwrap().get(&id).cloned();
        let missing = || {
            refuse(
                Code::NotFound,
                "OPERATION_NOT_FOUND",
                "no such operation",
                &[],
            )
        };
        let operation = Some(operation.ok_or_else(missing)?);
        Ok(Response::new(v1::GetOperationResponse { operation }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let all: Vec<_> = self
            .operations
            .lock()
            .unwrap()
            .values()
            .rev()
            .cloned()
            .collect();
        let (operations, next_page_token) = page(&all, &request.into_inner().page_token);
        Ok(Response::new(v1::ListOperationsResponse {
            operations,
            next_page_token,
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        let id = request.into_inner().operation;
        let operation = self.operations.lock().unwrap().get(&id).cloned();
        Ok(Response::new(v1::CancelOperationResponse { operation }))
    }

    type WatchOperationStream = Answer<v1::WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().operation;
        let running = self.operations.lock().unwrap().get(&id).cloned();
        let missing = || {
            refuse(
                Code::NotFound,
                "OPERATION_NOT_FOUND",
                "no such operation",
                &[],
            )
        };
        let running = running.ok_or_else(missing)?;
        let mut ended = running.clone();
        ended.set_state(v1::operation::State::Succeeded);
        ended.end_time = time(9);
        let message = |(sequence, operation)| {
            let message = Some(v1::watch_operation_response::Message::Operation(operation));
            Ok(v1::WatchOperationResponse { sequence, message })
        };
        let stream = stream::iter([(1, running), (2, ended)].map(message));
        Ok(Response::new(stream.boxed()))
    }
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
