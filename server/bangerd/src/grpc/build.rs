//! Builds and exports: the streams of `BuildImage` and `ExportOciLayout`.

use std::collections::BTreeMap;
use std::sync::Arc;

use banger_app::build::{
    BuildKind, BuildLog, BuildMachine, BuildPlace, BuildRequest, DebianRequest, DockerfileRequest,
    LogReader, Origin, Record,
};
use banger_app::image::Logins;
use banger_app::upload::{Upload, Uploaded};
use banger_app::{App, AppError};
use banger_core::OperationId;
use banger_core::operation::Operation;
use banger_core::vmm::NetworkPlan;
use banger_proto::v1;
use banger_proto::v1::build_image_request::Message;
use banger_proto::v1::build_image_response::Message as Told;
use banger_proto::v1::export_oci_layout_response::Message as Exported;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::{Status, Streaming};

use super::convert::{field, image};
use super::export::ExportMessage;
use super::refused;
use super::request::RequestError;
use super::stream::{Answers, Drain, OperationMessage, changes, outcome, served};

/// What is to be built, all but its context.
#[derive(Debug)]
pub(crate) struct Start {
    reference: String,
    pub(crate) kind: BuildKind,
    no_cache: bool,
    machine: BuildMachine,
    logins: Logins,
}

impl Start {
    pub(crate) fn parse(start: v1::BuildImageStart) -> Result<Self, RequestError> {
        use v1::build_image_start::Recipe;
        use v1::vm_spec::NetworkMode;
        field::named("start.reference", &start.reference)?;
        let kind = match start.recipe {
            Some(Recipe::Dockerfile(recipe)) => BuildKind::Dockerfile(DockerfileRequest {
                text: recipe.text,
                name: recipe.name,
                build_args: recipe.build_args,
                target: recipe.target,
            }),
            Some(Recipe::Debian(recipe)) => BuildKind::Debian(DebianRequest {
                suite: recipe.suite,
                variant: recipe.variant,
                include: recipe.include,
            }),
            None => return Err(RequestError::missing("start.recipe")),
        };
        let network = match NetworkMode::try_from(start.network) {
            Ok(NetworkMode::Unspecified) => None,
            Ok(NetworkMode::None) => Some(NetworkPlan::None),
            Ok(NetworkMode::User) => Some(NetworkPlan::User),
            Err(_) => {
                return Err(RequestError::invalid(
                    "start.network",
                    "is not a network mode",
                ));
            }
        };
        let disk_bytes: u64 = field::natural("start.disk_size_bytes", start.disk_size_bytes)?;
        let machine = BuildMachine {
            vcpu_count: field::natural("start.vcpu_count", start.vcpu_count)?,
            memory_mib: field::natural("start.memory_mib", start.memory_mib)?,
            disk_mib: disk_bytes.div_ceil(1 << 20),
            network,
            kernel: start.kernel,
        };
        Ok(Self {
            reference: start.reference,
            kind,
            no_cache: start.no_cache,
            machine,
            logins: Logins::default(),
        })
    }

    /// The logins for base images.
    pub(crate) fn logins(
        self,
        auths: BTreeMap<String, v1::BasicAuth>,
    ) -> Result<Self, RequestError> {
        let logins = image::logins(auths)?;
        Ok(Self { logins, ..self })
    }

    pub(crate) fn with(self, context: Uploaded, place: BuildPlace) -> BuildRequest {
        BuildRequest {
            reference: self.reference,
            kind: self.kind,
            no_cache: self.no_cache,
            machine: self.machine,
            logins: self.logins,
            context,
            place,
        }
    }
}

/// Takes a context in. The end of the stream is its end; a stream that breaks off leaves nothing.
pub(crate) async fn receive(
    mut upload: Upload,
    mut messages: Streaming<v1::BuildImageRequest>,
) -> Result<Uploaded, Status> {
    while let Some(message) = upload.next(messages.message()).await.map_err(refused)?? {
        match message.message {
            Some(Message::Chunk(bytes)) => upload
                .write(field::chunk("chunk", bytes)?)
                .await
                .map_err(refused)?,
            Some(Message::Start(_)) => {
                return Err(RequestError::invalid("start", "comes a second time").into());
            }
            None => return Err(RequestError::missing("message").into()),
        }
    }
    upload.finish().await.map_err(refused)
}

/// Follows a build that was begun before. The context that comes again is passed over: nobody needs it, but the caller
/// may read no answer until it has sent it.
pub(crate) async fn join(
    app: &Arc<App>,
    drain: &Drain,
    (id, log): (OperationId, Option<Arc<BuildLog>>),
    messages: Streaming<v1::BuildImageRequest>,
) -> Result<Answers<v1::BuildImageResponse>, Status> {
    let answers = follow(app, drain, id, log).await?;
    let answers = answers.map(Some).chain(stream::once(async { None }));
    let passed = messages.filter_map(|_| async { None });
    // The end of the build ends both.
    let both =
        stream::select(answers, passed).take_while(|told| std::future::ready(told.is_some()));
    Ok(both.filter_map(std::future::ready).boxed())
}

/// Follows a build to its end: its changes and its output, then the image, or the failure.
pub(crate) async fn follow(
    app: &Arc<App>,
    drain: &Drain,
    id: OperationId,
    log: Option<Arc<BuildLog>>,
) -> Result<Answers<v1::BuildImageResponse>, Status> {
    let view = app.operations.watch(id).await.map_err(refused)?;
    let following = Following {
        app: app.clone(),
        changes: changes(view).boxed(),
        log: log.map(|log| log.reader()),
        last: None,
        is_over: false,
    };
    let messages = stream::unfold(following, |mut following| async move {
        Some((following.next().await?, following))
    });
    let beat = v1::BuildImageResponse::heartbeat;
    Ok(served(messages, drain.over.clone(), beat))
}

struct Following {
    app: Arc<App>,
    changes: BoxStream<'static, Result<Arc<Operation>, Status>>,
    log: Option<LogReader>,
    /// The operation in its final state: what is left of the log comes before its outcome.
    last: Option<Arc<Operation>>,
    is_over: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Result<v1::BuildImageResponse, Status>> {
        if self.is_over {
            return None;
        }
        if let Some((record, lost)) = self.log.as_mut().and_then(LogReader::try_next) {
            return Some(Ok(told(Told::Log(logged(record, lost)))));
        }
        if let Some(last) = &self.last {
            self.is_over = true;
            return Some(outcome(&self.app, last).await);
        }
        tokio::select! {
            // cancel-safe: a change that was not taken is told again
            change = self.changes.next() => match change? {
                Ok(operation) => {
                    let shown = super::convert::operation::operation(&operation);
                    self.last = operation.state.is_final().then_some(operation);
                    Some(Ok(told(Told::Operation(shown))))
                }
                Err(status) => {
                    self.is_over = true;
                    Some(Err(status))
                }
            },
            // cancel-safe: holds no state
            () = more(self.log.as_mut()) => Box::pin(self.next()).await,
        }
    }
}

async fn more(log: Option<&mut LogReader>) {
    match log {
        Some(log) => log.changed().await,
        None => std::future::pending().await,
    }
}

fn told(message: Told) -> v1::BuildImageResponse {
    v1::BuildImageResponse {
        message: Some(message),
    }
}

fn logged(record: Record, lost: u64) -> v1::BuildLog {
    use v1::build_log::Stream;
    let stream = match record.origin {
        Origin::Banger => Stream::Unspecified,
        Origin::Stdout => Stream::Stdout,
        Origin::Stderr => Stream::Stderr,
    };
    v1::BuildLog {
        step: record.step.to_string(),
        stream: stream.into(),
        data: record.data,
        dropped_bytes: field::int(lost),
    }
}

impl OperationMessage for v1::BuildImageResponse {
    fn operation(operation: v1::Operation) -> Self {
        told(Told::Operation(operation))
    }

    fn heartbeat() -> Self {
        told(Told::Heartbeat(v1::Heartbeat {}))
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = image::image(&app.images.get(target).await?);
        Ok(told(Told::Image(found)))
    }
}

impl ExportMessage for v1::ExportOciLayoutResponse {
    fn start(start: v1::ExportStart) -> Self {
        exported(Exported::Start(start))
    }

    fn chunk(bytes: Bytes) -> Self {
        exported(Exported::Chunk(bytes))
    }

    fn end(end: v1::ExportEnd) -> Self {
        exported(Exported::End(end))
    }

    fn heartbeat() -> Self {
        exported(Exported::Heartbeat(v1::Heartbeat {}))
    }
}

fn exported(message: Exported) -> v1::ExportOciLayoutResponse {
    v1::ExportOciLayoutResponse {
        message: Some(message),
    }
}
