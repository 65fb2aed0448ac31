//! Callers that hang up at every instant of a call that begins something: it is whole afterwards, or not there, and a
//! repeat finds it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use banger_app::App;
use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::create_vm_response::Message;
use banger_proto::v1::create_volume_response::Message as VolumeMessage;
use banger_proto::v1::vm_service_server::VmService as _;
use banger_proto::v1::volume_service_server::VolumeService as _;
use banger_vmm::FakeHost;
use bangerd::grpc::{Api, Drain};
use futures::{StreamExt as _, poll};
use tempfile::TempDir;
use tonic::Request;

use crate::access::callers::user;
use crate::agent::FakeConnector;
use crate::rig::{PATIENCE, Rig, config, creation};

/// More steps than any of these calls has.
const STEPS_MAX: usize = 200;

/// A daemon without a socket: its handlers are called, and dropped, by hand.
struct Handlers {
    app: Arc<App>,
    api: Api,
    _dir: TempDir,
    _host: FakeHost,
}

impl Handlers {
    async fn start() -> Self {
        let rig = Rig::start().await;
        rig.furnish().await;
        let (dir, host) = rig.stopped().await;
        let config = config(&dir);
        let store = banger_store::Store::open(&config.database()).await.unwrap();
        let connector = Arc::new(FakeConnector::default());
        let started = App::start(config.app(), store, Arc::new(host.driver()), connector);
        let app = Arc::new(started.await.unwrap().0);
        let api = Api::new(app.clone(), Drain::default()).seen_by(&user(8001, Role::User));
        Self {
            app,
            api,
            _dir: dir,
            _host: host,
        }
    }

    async fn no_work_is_left(&self) {
        let idle = tokio::time::timeout(PATIENCE, self.app.operations.idle());
        idle.await.expect("everything that began ends");
    }
}

/// Drops `call` after so many steps of it; whether it was done before.
async fn cut_off<T>(call: impl Future<Output = T>, steps: usize) -> bool {
    let mut call = Box::pin(call);
    for _ in 0..steps {
        if poll!(&mut call).is_ready() {
            return true;
        }
        // What it waits for goes on.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_caller_hangs_up_is_whole_and_a_repeat_joins_it() {
    let daemon = Handlers::start().await;
    for steps in 1..STEPS_MAX {
        let request = || v1::CreateVmRequest {
            request_id: format!("01890a5d-ac96-774b-bcce-{steps:012}"),
            ..creation(&format!("vm-{steps}"))
        };
        let call = daemon.api.create_vm(Request::new(request()));
        let is_done = cut_off(call, steps).await;
        let again = daemon.api.create_vm(Request::new(request())).await;
        let answers: Vec<_> = again.unwrap().into_inner().collect().await;
        match answers.last() {
            Some(Ok(v1::CreateVmResponse {
                message: Some(Message::Vm(vm)),
            })) => assert_eq!(vm.spec.as_ref().unwrap().name, format!("vm-{steps}")),
            other => panic!("cut off after {steps} steps: {other:?}"),
        }
        let delete = v1::DeleteVmRequest {
            vm: format!("vm-{steps}"),
            ..Default::default()
        };
        daemon.api.delete_vm(Request::new(delete)).await.unwrap();
        if is_done {
            daemon.no_work_is_left().await;
            assert!(daemon.app.shut_down(PATIENCE).await);
            return;
        }
    }
    panic!("it takes more than {STEPS_MAX} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_caller_hangs_up_is_whole_and_a_repeat_joins_it() {
    let daemon = Handlers::start().await;
    for steps in 1..STEPS_MAX {
        let request = || v1::CreateVolumeRequest {
            request_id: format!("01890a5d-ac96-774b-bcce-{steps:012}"),
            name: format!("volume-{steps}"),
            size_mib: 64,
            ..Default::default()
        };
        let call = daemon.api.create_volume(Request::new(request()));
        let is_done = cut_off(call, steps).await;
        let again = daemon.api.create_volume(Request::new(request())).await;
        let answers: Vec<_> = again.unwrap().into_inner().collect().await;
        match answers.last() {
            Some(Ok(v1::CreateVolumeResponse {
                message: Some(VolumeMessage::Volume(volume)),
            })) => assert_eq!(volume.name, format!("volume-{steps}")),
            other => panic!("cut off after {steps} steps: {other:?}"),
        }
        if is_done {
            daemon.no_work_is_left().await;
            assert!(daemon.app.shut_down(PATIENCE).await);
            return;
        }
    }
    panic!("it takes more than {STEPS_MAX} steps");
}
