//! VMs: create, get, list, start, stop, restart, pause, kill, delete; what a new one is set up with in [`setup`],
//! changes in [`update`], watch and console in [`watch`].

use std::future::IntoFuture;
use std::time::Duration;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use uuid::Uuid;
use v1::vm_service_client::VmServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::operation::{IntoStep, Progress, Step, follow};
use crate::request::Request;
use crate::stream::{Pages, pages};

mod observe;
mod setup;
mod update;
mod watch;

pub use observe::{ListPorts, Round};
pub use setup::{InitMode, NewFile};
pub use update::UpdateVm;
pub use watch::{Console, VmEvent};

pub use v1::vm_spec::{NetworkMode, RestartPolicy};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

/// VMs.
#[derive(Debug, Clone)]
pub struct Vms {
    client: Client,
}

impl Vms {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn rpc(&self) -> VmServiceClient<tonic::transport::Channel> {
        VmServiceClient::new(self.client.channel())
    }

    /// Makes a VM of `image` (a reference, a digest or an id) and boots it. The creation goes on in the
    /// daemon if this is dropped.
    pub fn create(&self, image: impl Into<String>) -> CreateVm {
        let spec = v1::VmSpec {
            image: image.into(),
            ..v1::VmSpec::default()
        };
        let request_id = Uuid::new_v4().to_string();
        let request = v1::CreateVmRequest {
            request_id,
            ..v1::CreateVmRequest::default()
        };
        CreateVm {
            vms: self.clone(),
            spec,
            request,
            progress: Progress::none(),
        }
    }

    /// The VM with this id or name.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, vm: impl Into<String>) -> Result<v1::Vm> {
        const CALL: &str = "GetVm";
        let request = v1::GetVmRequest { vm: vm.into() };
        let call = || async { self.rpc().get_vm(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.vm.ok_or(Error::Protocol {
            during: CALL,
            detail: "no VM",
        })
    }

    /// All VMs, newest first.
    #[must_use]
    pub fn list(&self) -> Pages<v1::Vm> {
        self.list_labelled(std::iter::empty::<(String, String)>())
    }

    /// The VMs that have all of these labels, newest first.
    pub fn list_labelled<K: Into<String>, V: Into<String>>(
        &self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Pages<v1::Vm> {
        let this = self.clone();
        let labels: std::collections::BTreeMap<String, String> = labels
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        pages(move |page_token| {
            let (this, labels) = (this.clone(), labels.clone());
            async move {
                let request = v1::ListVmsRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                    labels,
                };
                let call = || async { this.rpc().list_vms(request.clone()).await };
                let page = this.client.repeat("ListVms", call).await?;
                Ok((page.vms, page.next_page_token))
            }
        })
    }

    /// Boots a stopped VM; answers when its agent does.
    pub fn start(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        let (this, vm) = (self.clone(), vm.into());
        Request::new(|request_id| async move {
            let request = v1::StartVmRequest { vm, request_id };
            let call = || async { this.rpc().start_vm(request.clone()).await };
            present(this.client.repeat("StartVm", call).await?.vm, "StartVm")
        })
    }

    /// Shuts a VM down; answers when it is off. `last_stop` tells how it went.
    pub fn stop(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        self.stop_with(vm.into(), false)
    }

    /// Shuts a VM down as [`Vms::stop`], and copies what is kept of its sessions' output out of it first. They are read as
    /// before; `last_stop.kept_logs` tells what was copied.
    pub fn stop_keeping_logs(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        self.stop_with(vm.into(), true)
    }

    fn stop_with(&self, vm: String, keep_logs: bool) -> Request<v1::Vm> {
        let this = self.clone();
        Request::new(move |request_id| async move {
            let request = v1::StopVmRequest {
                vm,
                request_id,
                keep_logs,
            };
            let call = || async { this.rpc().stop_vm(request.clone()).await };
            present(this.client.repeat("StopVm", call).await?.vm, "StopVm")
        })
    }

    /// Shuts a VM down and boots it again, or boots it where it is off; answers when its agent does.
    pub fn restart(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        let (this, vm) = (self.clone(), vm.into());
        Request::new(|request_id| async move {
            let request = v1::RestartVmRequest { vm, request_id };
            let call = || async { this.rpc().restart_vm(request.clone()).await };
            present(this.client.repeat("RestartVm", call).await?.vm, "RestartVm")
        })
    }

    /// Holds a VM's vCPUs; answers when it is so. Its memory is kept, its sessions stand still.
    pub fn pause(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        let (this, vm) = (self.clone(), vm.into());
        Request::new(|request_id| async move {
            let request = v1::PauseVmRequest { vm, request_id };
            let call = || async { this.rpc().pause_vm(request.clone()).await };
            present(this.client.repeat("PauseVm", call).await?.vm, "PauseVm")
        })
    }

    /// Lets the vCPUs of a paused VM go on; answers when it is so.
    pub fn resume(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        let (this, vm) = (self.clone(), vm.into());
        Request::new(|request_id| async move {
            let request = v1::ResumeVmRequest { vm, request_id };
            let call = || async { this.rpc().resume_vm(request.clone()).await };
            present(this.client.repeat("ResumeVm", call).await?.vm, "ResumeVm")
        })
    }

    /// Changes a VM, as the answer is told to.
    pub fn update(&self, vm: impl Into<String>) -> UpdateVm {
        UpdateVm::new(self.clone(), vm.into())
    }

    /// Ends a VM at once; answers when it is off.
    pub fn kill(&self, vm: impl Into<String>) -> Request<v1::Vm> {
        let (this, vm) = (self.clone(), vm.into());
        Request::new(|request_id| async move {
            let request = v1::KillVmRequest { vm, request_id };
            let call = || async { this.rpc().kill_vm(request.clone()).await };
            present(this.client.repeat("KillVm", call).await?.vm, "KillVm")
        })
    }

    /// Throws a VM and its disks away, from every state; answers when nothing is left.
    pub fn delete(&self, vm: impl Into<String>) -> Request<()> {
        let (this, vm) = (self.clone(), vm.into());
        Request::new(|request_id| async move {
            let request = v1::DeleteVmRequest { vm, request_id };
            let call = || async { this.rpc().delete_vm(request.clone()).await };
            this.client.repeat("DeleteVm", call).await.map(drop)
        })
    }

    /// The VM now, then after each change, until it is deleted. Goes on over broken connections.
    pub fn watch(&self, vm: impl Into<String>) -> BoxStream<'static, Result<VmEvent>> {
        watch::watch(self.clone(), vm.into())
    }

    /// The guest's console.
    pub fn console(&self, vm: impl Into<String>) -> Console {
        Console::new(self.clone(), vm.into())
    }
}

/// A span as the API has it; one that is too long is as long as can be.
fn span(time: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(time).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

fn present(vm: Option<v1::Vm>, during: &'static str) -> Result<v1::Vm> {
    vm.ok_or(Error::Protocol {
        during,
        detail: "no VM",
    })
}

/// A creation, made when it is awaited. Repeated with the same request id when the connection breaks, so
/// that it makes one VM.
#[derive(Debug)]
#[must_use = "a VM is made when this is awaited"]
pub struct CreateVm {
    vms: Vms,
    spec: v1::VmSpec,
    request: v1::CreateVmRequest,
    progress: Progress,
}

impl CreateVm {
    /// All of the specification at once.
    pub fn spec(mut self, spec: v1::VmSpec) -> Self {
        self.spec = spec;
        self
    }

    /// Called this; a DNS label, unique among the living. Generated otherwise.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// With this label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.labels.insert(key.into(), value.into());
        self
    }

    /// Boots this kernel, a name or an id, instead of the default one.
    pub fn kernel(mut self, kernel: impl Into<String>) -> Self {
        self.spec.kernel = kernel.into();
        self
    }

    /// With this many virtual CPUs; 0 means 1.
    pub const fn vcpus(mut self, count: i32) -> Self {
        self.spec.vcpu_count = count;
        self
    }

    /// With this much memory, in MiB; 0 means 512.
    pub const fn memory_mib(mut self, mib: i64) -> Self {
        self.spec.memory_mib = mib;
        self
    }

    /// With a writable disk of this size, in MiB; 0 means 8192.
    pub const fn disk_mib(mut self, mib: i64) -> Self {
        self.spec.disk_mib = mib;
        self
    }

    /// With this variable in every session, above the image's.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.env.insert(key.into(), value.into());
        self
    }

    /// With this network.
    pub fn network(mut self, mode: NetworkMode) -> Self {
        self.spec.network_mode = mode.into();
        self
    }

    /// Deletes itself this long after it was asked for, whatever it does then.
    pub fn ttl(mut self, time: Duration) -> Self {
        self.spec.ttl = Some(span(time));
        self
    }

    /// Stops itself when nothing has used it for this long.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.spec.idle_timeout = Some(span(time));
        self
    }

    /// What happens when it ends by itself.
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.spec.restart_policy = policy.into();
        self
    }

    /// With this volume, by id or name, mounted at `path` for writing.
    pub fn volume(self, volume: impl Into<String>, path: impl Into<String>) -> Self {
        self.mount(volume.into(), path.into(), false)
    }

    /// With this volume, by id or name, mounted at `path` for reading only.
    pub fn volume_read_only(self, volume: impl Into<String>, path: impl Into<String>) -> Self {
        self.mount(volume.into(), path.into(), true)
    }

    fn mount(mut self, volume: String, path: String, read_only: bool) -> Self {
        self.spec.volumes.push(v1::VolumeMount {
            volume,
            path,
            read_only,
        });
        self
    }

    /// Deletes itself when it stops, however it stops.
    pub const fn ephemeral(mut self) -> Self {
        self.spec.ephemeral = true;
        self
    }

    /// Every orderly stop copies what is kept of its sessions' output out of it first. See [`Vms::stop_keeping_logs`].
    pub const fn keep_logs(mut self) -> Self {
        self.spec.keep_logs = true;
        self
    }

    /// Pulls the image if it is not there.
    pub const fn pull_if_missing(mut self) -> Self {
        self.request.pull_if_missing = true;
        self
    }

    /// With this request id: joins a creation that has it.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.request.request_id = id.to_string();
        self
    }

    /// Calls back each time the operation has changed.
    pub fn progress(mut self, callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        self.progress = Progress::to(callback);
        self
    }

    async fn run(mut self) -> Result<v1::Vm> {
        const CALL: &str = "CreateVm";
        self.request.spec = Some(self.spec);
        let (vms, request) = (&self.vms, &self.request);
        let open = || async {
            vms.client
                .watched(vms.rpc().create_vm(request.clone()).await, CALL)
        };
        follow(&vms.client, CALL, &mut self.progress, open).await
    }
}

impl IntoFuture for CreateVm {
    type Output = Result<v1::Vm>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl IntoStep<v1::Vm> for v1::CreateVmResponse {
    fn into_step(self) -> Option<Step<v1::Vm>> {
        use v1::create_vm_response::Message;
        Some(match self.message? {
            Message::Operation(operation) => Step::Progress(operation),
            Message::Vm(vm) => Step::Done(vm),
            Message::Heartbeat(_) => Step::Idle,
        })
    }
}
