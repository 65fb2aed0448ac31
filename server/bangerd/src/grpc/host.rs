//! `HostService`.

mod audit;
mod events;

use banger_app::doctor::DoctorRequest;
use banger_app::event::Filter;
use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::doctor_response::Message;
use banger_proto::v1::host_service_server::HostService;
use futures::StreamExt as _;
use tonic::{Request, Response, Status};

use super::convert::{field, page};
use super::request::RequestError;
use super::stream::{self, Answers};
use super::{Api, access, convert, refused};

/// The most checks that may be named: more than there are.
const CHECKS_MAX: usize = 256;

#[tonic::async_trait]
impl HostService for Api {
    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        let info = self.app.host_info().await.map_err(refused)?;
        Ok(Response::new(v1::GetInfoResponse {
            info: Some(convert::host::info(info)),
        }))
    }

    type DoctorStream = Answers<v1::DoctorResponse>;

    async fn doctor(
        &self,
        request: Request<v1::DoctorRequest>,
    ) -> Result<Response<Self::DoctorStream>, Status> {
        let v1::DoctorRequest { fix, checks } = request.into_inner();
        if fix {
            access::require(self.app.role(), Role::Admin, "Doctor with `fix`")?;
        }
        if checks.len() > CHECKS_MAX {
            let problem = format!("has {} entries, and may have {CHECKS_MAX}", checks.len());
            return Err(RequestError::invalid("checks", problem).into());
        }
        let request = DoctorRequest { fix, checks };
        let told = self.app.doctor.run(request).map_err(refused)?;
        let messages = told.map(|told| Ok(convert::host::told(told)));
        let messages = stream::served(messages, self.drain.over.clone(), || {
            Message::Heartbeat(v1::Heartbeat {})
        });
        let numbered = stream::numbered(messages, |sequence, message| v1::DoctorResponse {
            sequence,
            message: Some(message),
        });
        Ok(Response::new(numbered))
    }

    type WatchEventsStream = Answers<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let request = request.into_inner();
        let vm = match request.vm.as_str() {
            "" => None,
            named => Some(
                self.app
                    .vms
                    .get(field::named("vm", named)?)
                    .map_err(refused)?
                    .id,
            ),
        };
        let filter = Filter {
            kinds: convert::event::kinds(&request.kinds)?,
            vm,
            ..Filter::default()
        };
        let from = convert::event::from(request.start)?;
        let watch = self.app.watch_events(&from, filter);
        Ok(Response::new(events::watch(watch, &self.drain)))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let wanted = convert::audit::wanted(request.into_inner())?;
        let audit = self.app.audit();
        let found = audit.list(wanted.size, wanted.before, &wanted.filter);
        let found = found.await.map_err(refused)?;
        Ok(Response::new(v1::ListAuditResponse {
            records: found.items.iter().map(convert::audit::record).collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| {
                item.sequence.to_string()
            }),
        }))
    }

    type WatchAuditStream = Answers<v1::WatchAuditResponse>;

    async fn watch_audit(
        &self,
        request: Request<v1::WatchAuditRequest>,
    ) -> Result<Response<Self::WatchAuditStream>, Status> {
        let (after, filter) = convert::audit::watched(request.get_ref())?;
        let watch = self.app.audit().watch(after, filter);
        Ok(Response::new(audit::watch(
            watch.await.map_err(refused)?,
            &self.drain,
        )))
    }

    async fn get_usage(
        &self,
        _: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let usage = self.app.usage().await.map_err(refused)?;
        Ok(Response::new(v1::GetUsageResponse {
            usage: Some(convert::usage::usage(usage)),
        }))
    }
}
