//! Changing a VM.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::Duration;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use super::{RestartPolicy, Vms, present, span};
use crate::error::Result;

/// A change of a VM, made when it is awaited. What is not named stays. `pending_fields` of the VM that it answers
/// with says what waits for the next start.
#[derive(Debug)]
#[must_use = "a VM is changed when this is awaited"]
pub struct UpdateVm {
    vms: Vms,
    request: v1::UpdateVmRequest,
}

impl UpdateVm {
    pub(super) fn new(vms: Vms, vm: String) -> Self {
        Self {
            vms,
            request: v1::UpdateVmRequest {
                vm,
                spec: Some(v1::VmSpec::default()),
                update_mask: Some(prost_types::FieldMask::default()),
                etag: String::new(),
                request_id: Uuid::new_v4().to_string(),
            },
        }
    }

    fn set(mut self, field: &str, set: impl FnOnce(&mut v1::VmSpec)) -> Self {
        set(self.request.spec.get_or_insert_default());
        let mask = self.request.update_mask.get_or_insert_default();
        if !mask.paths.iter().any(|path| path == field) {
            mask.paths.push(field.to_owned());
        }
        self
    }

    /// All labels anew.
    pub fn labels(self, labels: BTreeMap<String, String>) -> Self {
        self.set("labels", |spec| spec.labels = labels)
    }

    /// When it deletes itself, from its creation on; `None` means never.
    pub fn ttl(self, time: Option<Duration>) -> Self {
        self.set("ttl", |spec| spec.ttl = time.map(span))
    }

    /// After which it stops itself when nothing uses it; `None` means never.
    pub fn idle_timeout(self, time: Option<Duration>) -> Self {
        self.set("idle_timeout", |spec| spec.idle_timeout = time.map(span))
    }

    /// What happens when it ends by itself.
    pub fn restart_policy(self, policy: RestartPolicy) -> Self {
        self.set("restart_policy", |spec| spec.restart_policy = policy.into())
    }

    /// Virtual CPUs, from the next start on.
    pub fn vcpus(self, count: i32) -> Self {
        self.set("vcpu_count", |spec| spec.vcpu_count = count)
    }

    /// Memory in MiB, from the next start on.
    pub fn memory_mib(self, mib: i64) -> Self {
        self.set("memory_mib", |spec| spec.memory_mib = mib)
    }

    /// The writable disk in MiB; it can only grow.
    pub fn disk_mib(self, mib: i64) -> Self {
        self.set("disk_mib", |spec| spec.disk_mib = mib)
    }

    /// Only if the VM's `etag` is still this.
    pub fn if_unchanged(mut self, etag: impl Into<String>) -> Self {
        self.request.etag = etag.into();
        self
    }

    async fn run(self) -> Result<v1::Vm> {
        const CALL: &str = "UpdateVm";
        let (vms, request) = (&self.vms, &self.request);
        let call = || async { vms.rpc().update_vm(request.clone()).await };
        present(vms.client.repeat(CALL, call).await?.vm, CALL)
    }
}

impl IntoFuture for UpdateVm {
    type Output = Result<v1::Vm>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}
