//! A daemon in this process, and its callers.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banger_core::SessionId;
use banger_proto::v1;
use banger_proto::v1::host_service_client::HostServiceClient;
use banger_proto::v1::image_service_client::ImageServiceClient;
use banger_proto::v1::kernel_service_client::KernelServiceClient;
use banger_proto::v1::operation_service_client::OperationServiceClient;
use banger_proto::v1::session_service_client::SessionServiceClient;
use banger_proto::v1::tunnel_service_client::TunnelServiceClient;
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_proto::v1::volume_service_client::VolumeServiceClient;
use banger_vmm::FakeHost;
use bangerd::config::Config;
use bangerd::daemon::{self, DaemonError};
use bangerd::listen::Outside;
use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::access::Door;
use crate::agent::{Disks, FakeConnector, Setup, agent};

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) host: FakeHost,
    pub(crate) channel: Channel,
    /// For callers who are made up.
    pub(crate) door: Door,
    pub(crate) stop: CancellationToken,
    pub(crate) killed: Arc<Mutex<Vec<SessionId>>>,
    /// Whether agents have stopped answering.
    pub(crate) is_mute: Arc<AtomicBool>,
    pub(crate) disks: Arc<Mutex<Disks>>,
    pub(crate) setup: Arc<Setup>,
    /// The files of all guests.
    pub(crate) files: crate::file_agent::FakeFiles,
    pub(crate) daemon: JoinHandle<Result<(), DaemonError>>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A daemon that is configured otherwise than the others.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        Self::start_configured(dir, FakeHost::new(agent()), config).await
    }

    /// A daemon on a state directory and a host that may have seen one before.
    pub(crate) async fn start_in(dir: TempDir, host: FakeHost) -> Self {
        let config = config(&dir);
        Self::start_configured(dir, host, config).await
    }

    pub(crate) async fn start_configured(dir: TempDir, host: FakeHost, config: Config) -> Self {
        Self::start_from_outside(dir, host, config, Outside::default()).await
    }

    /// A daemon that is given more than a configuration.
    pub(crate) async fn start_from_outside(
        dir: TempDir,
        host: FakeHost,
        config: Config,
        outside: Outside,
    ) -> Self {
        let socket = config.socket.clone();
        std::fs::write(dir.path().join("agent"), "an agent").unwrap();
        let connector = Arc::new(FakeConnector::default());
        let (killed, is_mute) = (connector.killed.clone(), connector.is_mute.clone());
        let disks = connector.disks.clone();
        let setup = connector.setup.clone();
        let files = connector.files.clone();
        let stop = CancellationToken::new();
        let (door, callers) = mpsc::channel(1);
        let outside = Outside {
            connections: Some(ReceiverStream::new(callers).map(Ok).boxed()),
            ..outside
        };
        let driver = Arc::new(host.driver());
        let run = daemon::run_with(config, driver, connector, outside, stop.clone());
        let daemon = TaskTracker::new().spawn(run);
        let channel = connect(&socket).await;
        Self {
            dir,
            host,
            channel,
            door: Door(door),
            stop,
            killed,
            is_mute,
            disks,
            setup,
            files,
            daemon,
        }
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    pub(crate) fn kernels(&self) -> KernelServiceClient<Channel> {
        KernelServiceClient::new(self.channel.clone())
    }

    pub(crate) fn vms(&self) -> VmServiceClient<Channel> {
        VmServiceClient::new(self.channel.clone())
    }

    pub(crate) fn volumes(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn tunnels(&self) -> TunnelServiceClient<Channel> {
        TunnelServiceClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub(crate) fn hosts(&self) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel.clone())
    }

    /// The way of another client, by a connection of its own.
    pub(crate) async fn another_client(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(connect(&self.dir.path().join("s")).await)
    }

    /// See [`furnish`].
    pub(crate) async fn furnish(&self) {
        furnish(&self.channel).await;
    }

    /// See [`register`].
    pub(crate) async fn register(
        &self,
        reference: &str,
    ) -> Result<Vec<v1::RegisterImageResponse>, Status> {
        register(&self.channel, reference).await
    }

    /// See [`register_as`].
    pub(crate) async fn register_as(
        &self,
        start: v1::RegisterImageStart,
        archive: &[u8],
    ) -> Result<Vec<v1::RegisterImageResponse>, Status> {
        register_as(&self.channel, start, archive).await
    }

    pub(crate) async fn create(&self, name: &str) -> Result<v1::Vm, Status> {
        self.create_as(creation(name)).await
    }

    pub(crate) async fn create_as(&self, request: v1::CreateVmRequest) -> Result<v1::Vm, Status> {
        let answers = self.vms().create_vm(request).await?.into_inner();
        match drain(answers).await?.pop().and_then(|last| last.message) {
            Some(v1::create_vm_response::Message::Vm(vm)) => Ok(vm),
            other => panic!("the last message is {other:?}"),
        }
    }

    pub(crate) async fn start_vm(&self, vm: &str) -> Result<v1::Vm, Status> {
        let request = v1::StartVmRequest {
            vm: vm.into(),
            ..Default::default()
        };
        Ok(self.vms().start_vm(request).await?.into_inner().vm.unwrap())
    }

    pub(crate) async fn stop_vm(&self, vm: &str) {
        let request = v1::StopVmRequest {
            vm: vm.into(),
            ..Default::default()
        };
        self.vms().stop_vm(request).await.unwrap();
    }

    pub(crate) async fn delete_vm(&self, vm: &str) {
        let request = v1::DeleteVmRequest {
            vm: vm.into(),
            ..Default::default()
        };
        self.vms().delete_vm(request).await.unwrap();
    }

    pub(crate) async fn stopped(self) -> (TempDir, FakeHost) {
        self.stop.cancel();
        drop(self.channel);
        tokio::time::timeout(PATIENCE, self.daemon)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        (self.dir, self.host)
    }
}

pub(crate) fn config(dir: &TempDir) -> Config {
    Config {
        state_dir: dir.path().join("state"),
        socket: dir.path().join("s"),
        agent: dir.path().join("agent"),
        disk_reserve_mib: 0,
        memory_reserve_mib: 0,
        shutdown_grace: "200ms".parse().unwrap(),
        stats_timeout: "300ms".parse().unwrap(),
        ..Config::default()
    }
}

pub(crate) fn creation(name: &str) -> v1::CreateVmRequest {
    let spec = v1::VmSpec {
        name: name.into(),
        image: "web:1".into(),
        memory_mib: 96,
        disk_mib: 64,
        ..Default::default()
    };
    v1::CreateVmRequest {
        spec: Some(spec),
        ..Default::default()
    }
}

pub(crate) fn mask(paths: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
    }
}

/// Registers an image and imports a kernel: what a VM needs.
pub(crate) async fn furnish(channel: &Channel) {
    register(channel, "web:1").await.unwrap();
    let mut kernels = KernelServiceClient::new(channel.clone());
    let imported = kernels
        .import_kernel(futures::stream::iter(kernel_messages("k", &vmlinux())))
        .await
        .unwrap();
    drain(imported.into_inner()).await.unwrap();
}

/// Registers an empty image.
async fn register(
    channel: &Channel,
    reference: &str,
) -> Result<Vec<v1::RegisterImageResponse>, Status> {
    let start = v1::RegisterImageStart {
        reference: reference.into(),
        format: 3,
        ..Default::default()
    };
    register_as(channel, start, &[0; 1024]).await
}

/// Registers what an archive holds.
async fn register_as(
    channel: &Channel,
    start: v1::RegisterImageStart,
    archive: &[u8],
) -> Result<Vec<v1::RegisterImageResponse>, Status> {
    use v1::register_image_request::Message;
    let chunk = Message::Chunk(archive.to_vec().into());
    let messages = [Message::Start(start), chunk];
    let messages = messages.map(|message| v1::RegisterImageRequest {
        message: Some(message),
    });
    let mut images = ImageServiceClient::new(channel.clone());
    let answers = images
        .register_image(futures::stream::iter(messages))
        .await?;
    drain(answers.into_inner()).await
}

pub(crate) async fn connect(socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let connected = async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected)
        .await
        .expect("the daemon serves")
}

/// All messages of a stream, or its error.
pub(crate) async fn drain<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("in time")?
    {
        messages.push(message);
    }
    Ok(messages)
}

/// Checks what an error says: its code, reason and, for a wrong field, which.
pub(crate) fn assert_refused(status: &Status, code: Code, reason: &str, field: Option<&str>) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "banger.dev"),
        "{status:?}"
    );
    let named = details
        .bad_request()
        .map(|bad| bad.field_violations[0].field.as_str());
    assert_eq!(named, field, "{status:?}");
}

pub(crate) fn kernel_messages(name: &str, kernel: &[u8]) -> Vec<v1::ImportKernelRequest> {
    use v1::import_kernel_request::Message;
    let start = v1::ImportKernelStart {
        name: name.into(),
        ..Default::default()
    };
    let messages = [
        Message::Start(start),
        Message::KernelChunk(kernel.to_vec().into()),
    ];
    messages
        .into_iter()
        .map(|message| v1::ImportKernelRequest {
            message: Some(message),
        })
        .collect()
}

/// The least that is a kernel: an ELF file for x86-64 with the note that tells the PVH entry.
pub(crate) fn vmlinux() -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2;
    elf[18] = 62;
    elf[32] = 64; // program headers
    elf[54] = 56;
    elf[56] = 1;
    let mut header = vec![0; 56];
    header[0] = 4; // PT_NOTE
    header[8] = 120;
    header[32] = 20;
    elf.extend(header);
    elf.extend([4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    elf.extend(b"Xen\0");
    elf.extend([0; 4]);
    elf
}
