//! A daemon that is killed and started again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::operation_service_client::OperationServiceClient;
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_vmm::FakeHost;
use bangerd::config::Config;
use bangerd::daemon;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::agent::{FakeConnector, Sessions};
use crate::rig::{PATIENCE, connect};

/// Before a daemon that could not start is started again.
const START_AGAIN: Duration = Duration::from_millis(20);

/// A daemon in a runtime of its own.
pub(super) struct Daemon {
    runtime: Runtime,
    pub(super) channel: Channel,
    pub(super) is_mute: Arc<AtomicBool>,
}

impl Daemon {
    pub(super) async fn start(config: &Config, host: &FakeHost, sessions: &Sessions) -> Self {
        // Connected to nothing yet.
        let channel = Endpoint::from_static("http://[::1]:1").connect_lazy();
        let mut daemon = Self::begin(config, host, sessions, Arc::default(), channel);
        daemon.channel = connect(&config.socket).await;
        daemon
    }

    /// Does not wait until it serves; `channel` is that of the one before. A daemon that cannot start, since its disk
    /// fails, is started again, as a service manager does.
    pub(super) fn begin(
        config: &Config,
        host: &FakeHost,
        sessions: &Sessions,
        is_mute: Arc<AtomicBool>,
        channel: Channel,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (config, host, sessions) = (config.clone(), host.clone(), sessions.clone());
        let mute = is_mute.clone();
        drop(runtime.spawn(async move {
            loop {
                let connector = Arc::new(FakeConnector {
                    is_mute: mute.clone(),
                    sessions: sessions.clone(),
                    ..FakeConnector::default()
                });
                let driver = Arc::new(host.driver());
                let stop = CancellationToken::new();
                let ended = daemon::run(config.clone(), driver, connector, stop).await;
                // It ends only when it does not start.
                drop(ended.unwrap_err());
                tokio::time::sleep(START_AGAIN).await;
            }
        }));
        Self {
            runtime,
            channel,
            is_mute,
        }
    }

    /// What it was doing is dropped where it stood. System calls under way are waited for: those a kernel would
    /// finish too.
    pub(super) async fn kill(self) {
        let runtime = self.runtime;
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE));
        ended.await.unwrap();
    }

    pub(super) fn vms(&self) -> VmServiceClient<Channel> {
        VmServiceClient::new(self.channel.clone())
    }

    pub(super) async fn all(&self) -> Vec<v1::Vm> {
        let listed = self.vms().list_vms(v1::ListVmsRequest::default()).await;
        listed.unwrap().into_inner().vms
    }
}

impl Daemon {
    /// Operations that go on.
    pub(super) async fn running_operations(&self) -> Vec<String> {
        let mut operations = OperationServiceClient::new(self.channel.clone());
        let request = v1::ListOperationsRequest {
            page_size: 100,
            ..Default::default()
        };
        let listed = operations.list_operations(request).await;
        let listed = listed.unwrap().into_inner().operations;
        let running =
            |operation: &v1::Operation| operation.state() == v1::operation::State::Running;
        listed
            .into_iter()
            .filter(running)
            .map(|operation| format!("{:?} {}", operation.kind(), operation.id))
            .collect()
    }
}
