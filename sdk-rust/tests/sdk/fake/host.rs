//! The host.

use std::sync::atomic::Ordering;

use banger_proto::v1;
use futures::{StreamExt, stream};
use tonic::{Code, Request, Response, Status};
use v1::host_service_server::HostService;

use super::observe;
use super::{Answer, Daemon, HEARTBEAT, refuse, time};

/// A record of the audit log.
fn audited(sequence: i64) -> v1::AuditRecord {
    v1::AuditRecord {
        sequence,
        time: time(0),
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
    }
}

/// The two records after what is asked for, by itself after 7, and then silence.
fn watch_audit(request: v1::WatchAuditRequest) -> Answer<v1::WatchAuditResponse> {
    use v1::watch_audit_response::Message;
    let told = |message| {
        Ok(v1::WatchAuditResponse {
            message: Some(message),
        })
    };
    let after = request.after.unwrap_or(7);
    let records = [after + 1, after + 2].map(|sequence| told(Message::Record(audited(sequence))));
    let beats = stream::unfold((), move |()| async move {
        tokio::time::sleep(HEARTBEAT).await;
        Some((told(Message::Heartbeat(v1::Heartbeat {})), ()))
    });
    let begun = stream::iter([told(Message::Started(after))]);
    begun.chain(stream::iter(records)).chain(beats).boxed()
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
        let record = audited(7);
        let is_wanted = request.owner.is_empty() || request.owner == record.owner;
        Ok(Response::new(v1::ListAuditResponse {
            records: is_wanted.then_some(record).into_iter().collect(),
            next_page_token: String::new(),
        }))
    }

    type WatchAuditStream = Answer<v1::WatchAuditResponse>;

    async fn watch_audit(
        &self,
        request: Request<v1::WatchAuditRequest>,
    ) -> Result<Response<Self::WatchAuditStream>, Status> {
        self.call("WatchAudit");
        Ok(Response::new(watch_audit(request.into_inner())))
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
