//! Stores in scratch directories, and domain values to put into them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::image::{Image, ImageConfig, Layer, Platform};
use banger_core::kernel::{FeatureState, Kernel, KernelFeature, KernelInspection};
use banger_core::operation::{Operation, OperationKind, OperationState, Stage, StageKey};
use banger_core::setup::{InitMode, VmIdentity};
use banger_core::vm::{RestartPolicy, Shape, StopOutcome, Vm, VmSpec, VmState};
use banger_core::vmm::{NetworkPlan, StopRung};
use banger_core::{
    Digest, Failure, FailureKind, ImageId, KernelId, Name, OperationId, Owner, Timestamp, VmId,
};
use banger_store::{RequestKey, Store};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;

/// A store in a directory that removes itself.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

impl Scratch {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&file_in(dir.path())).await.unwrap();
        Self { store, dir }
    }

    pub(crate) fn file(&self) -> PathBuf {
        file_in(self.dir.path())
    }
}

pub(crate) fn file_in(dir: &Path) -> PathBuf {
    dir.join("banger.db")
}

/// A connection that knows nothing of the store's rules.
pub(crate) async fn raw(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(false);
    SqliteConnection::connect_with(&options).await.unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).unwrap()
}

pub(crate) fn vm(text: &str) -> Vm {
    Vm {
        id: VmId::new(),
        spec: VmSpec {
            name: name(text),
            labels: BTreeMap::from([("team".into(), "a'b\"c".into())]),
            image: "docker.io/library/debian:12".into(),
            kernel: String::new(),
            vcpu_count: 2,
            memory_mib: 512,
            disk_mib: 8192,
            env: BTreeMap::from([("PATH".into(), "/bin".into())]),
            network: NetworkPlan::User,
            ephemeral: true,
            ttl: Some(Duration::from_secs(3600)),
            idle_timeout: None,
            restart_policy: RestartPolicy::OnFailure,
            init: InitMode::Agent,
            identity: VmIdentity::default(),
            keep_logs: false,
            volumes: Vec::new(),
        },
        image: None,
        kernel: None,
        owner: Owner::of_uid(1000),
        state: VmState::Creating,
        shape: Some(Shape {
            vcpu_count: 1,
            memory_mib: 256,
            disk_mib: 8192,
        }),
        restart_count: 3,
        generation: 1,
        boot_timing: vec![stage()],
        last_stop: Some(StopOutcome {
            rung: StopRung::Agent,
            took: Duration::from_millis(1234),
            restart_time: Some(at(1_700_000_005)),
            kept_logs: None,
        }),
        create_time: at(1_700_000_000),
        start_time: Some(at(1_700_000_001)),
        stop_time: None,
        stuck: None,
    }
}

pub(crate) fn stage() -> Stage {
    Stage {
        key: StageKey::item("fetch", "abc"),
        start_time: at(1),
        end_time: Some(at(2)),
        done_bytes: 7,
        total_bytes: Some(8),
    }
}

pub(crate) fn failure() -> Failure {
    Failure {
        kind: FailureKind::Unavailable {
            retry_after: Duration::from_secs(3),
        },
        reason: "VMM_GONE".into(),
        message: "the VM's VMM is gone".into(),
        remedy: Some("Start the VM again.".into()),
        metadata: BTreeMap::from([("a".into(), "b".into())]),
    }
}

pub(crate) fn image(content: &str) -> Image {
    Image {
        id: ImageId::new(),
        references: Vec::new(),
        digest: Digest::of(content.as_bytes()),
        platform: Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: Some("v8".into()),
        },
        config: ImageConfig {
            env: vec![("A".into(), "1".into()), ("A".into(), "2".into())],
            user: "1000:100".into(),
            cmd: vec!["/bin/sh".into(), String::new(), "\0".into()],
            ..ImageConfig::default()
        },
        layers: vec![Layer {
            digest: Digest::of(b"layer"),
            size_bytes: u64::MAX,
        }],
        rootfs_size_bytes: 1 << 30,
        rootfs_allocated_bytes: 1 << 20,
        origin: "registry.example".into(),
        kernel: Some(name("small")),
        create_time: at(5),
    }
}

pub(crate) fn kernel(text: &str) -> Kernel {
    Kernel {
        id: KernelId::new(),
        name: name(text),
        release: "6.1.0".into(),
        digest: Digest::of(text.as_bytes()),
        size_bytes: 42,
        modules: vec!["virtio_blk".into(), "overlay".into()],
        origin: "/boot/vmlinuz".into(),
        is_default: false,
        inspection: KernelInspection {
            format: "bzImage (lz4)".into(),
            features: vec![KernelFeature {
                name: "virtio-blk".into(),
                options: vec!["CONFIG_VIRTIO_BLK".into()],
                state: FeatureState::Module,
                required: true,
                purpose: "disks".into(),
            }],
            ..KernelInspection::default()
        },
        create_time: at(6),
    }
}

pub(crate) fn operation() -> Operation {
    Operation {
        owner: Owner::of_uid(1000),
        id: OperationId::new(),
        kind: OperationKind::PullImage,
        target: "debian:12".into(),
        state: OperationState::Running,
        stages: vec![stage()],
        create_time: at(7),
        end_time: None,
    }
}

pub(crate) fn ended(mut operation: Operation, second: i64) -> Operation {
    operation.state = OperationState::Succeeded;
    operation.end_time = Some(at(second));
    operation
}

pub(crate) fn key(id: &str, body: &str) -> RequestKey {
    RequestKey {
        owner: Owner::daemon(),
        id: id.into(),
        method: "/banger.v1.VmService/CreateVm".into(),
        body_digest: Digest::of(body.as_bytes()),
    }
}
