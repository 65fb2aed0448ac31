//! Requests that put one verb to one VM: the same in everything but the verb.

use std::sync::Arc;

use banger_app::AppError;
use banger_app::vm::Vms;
use banger_proto::v1;
use prost::Message;
use tonic::{Request, Response, Status};

use super::super::convert::field;
use super::super::request::Unsure;
use super::super::{Api, request};

/// A request that names a VM, and can be repeated by its id.
pub(super) trait VerbRequest: Message {
    /// The method's full name.
    const METHOD: &'static str;

    /// Whether it is made though the database fails.
    const UNSURE: Unsure;

    /// Takes the id out: what is left says what is wanted.
    fn take_id(&mut self) -> String;

    /// The VM, as the caller names it.
    fn vm(&self) -> &str;
}

macro_rules! verb_requests {
    ($($request:ident is $method:literal, unsure $unsure:ident;)+) => {$(
        impl VerbRequest for v1::$request {
            const METHOD: &'static str = concat!("banger.v1.VmService/", $method);
            const UNSURE: Unsure = Unsure::$unsure;

            fn take_id(&mut self) -> String {
                std::mem::take(&mut self.request_id)
            }

            fn vm(&self) -> &str {
                &self.vm
            }
        }
    )+};
}

verb_requests! {
    StartVmRequest is "StartVm", unsure Refused;
    StopVmRequest is "StopVm", unsure Made;
    RestartVmRequest is "RestartVm", unsure Refused;
    PauseVmRequest is "PauseVm", unsure Refused;
    ResumeVmRequest is "ResumeVm", unsure Refused;
    KillVmRequest is "KillVm", unsure Made;
    DeleteVmRequest is "DeleteVm", unsure Made;
}

impl Api {
    /// Does `work` on the VM that a request names, once for each request id.
    pub(super) async fn put<Q, A, W>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(Arc<Vms>, String) -> W,
    ) -> Result<Response<A>, Status>
    where
        Q: VerbRequest,
        A: Message + Default + 'static,
        W: Future<Output = Result<A, AppError>> + Send + 'static,
    {
        let mut request = request.into_inner();
        let id = request.take_id();
        let key = request::key(Q::METHOD, &id, &request)?;
        let named = field::named("vm", request.vm())?.to_owned();
        let work = work(self.app.vms.clone(), named);
        self.once.answer_if(Q::UNSURE, &self.app, key, work).await
    }
}
