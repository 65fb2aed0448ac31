//! The gRPC server: what it serves, its limits, and how it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use banger_app::App;
use banger_proto::v1::catalog_service_server::CatalogServiceServer;
use banger_proto::v1::file_service_server::FileServiceServer;
use banger_proto::v1::host_service_server::HostServiceServer;
use banger_proto::v1::image_service_server::ImageServiceServer;
use banger_proto::v1::kernel_service_server::KernelServiceServer;
use banger_proto::v1::operation_service_server::OperationServiceServer;
use banger_proto::v1::session_service_server::SessionServiceServer;
use banger_proto::v1::tunnel_service_server::TunnelServiceServer;
use banger_proto::v1::vm_service_server::VmServiceServer;
use banger_proto::v1::volume_service_server::VolumeServiceServer;
use banger_proto::v1::workspace_service_server::WorkspaceServiceServer;
use futures::Stream;
use futures::future::try_join_all;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder as Reflection;

use crate::config::LimitsConfig;
use crate::connection::Connection;
use crate::grpc::access::AccessLayer;
use crate::grpc::admit::{self, AdmitLayer};
use crate::grpc::intake::IntakeLayer;
use crate::grpc::{Api, Drain, PerCaller, layer};
use crate::listen::windows::{Window, Windows};

/// The largest message a caller may send: an environment or a piece of a file, with room.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// The largest message about sessions: a command and an environment of 6 MiB together, with room.
const SESSION_REQUEST_BYTES_MAX: usize = 8 << 20;
/// The largest headers of a request.
const HEADERS_MAX: u32 = 16 << 10;
/// Streams that a caller may reset before they were looked at (against rapid resets, CVE-2023-44487).
const RESETS_WAITING_MAX: usize = 64;
/// After the grace, how long streams have to say that they end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The services of the API, by their full names.
pub const SERVICES: [&str; 11] = [
    <CatalogServiceServer<Api> as NamedService>::NAME,
    <FileServiceServer<Api> as NamedService>::NAME,
    <HostServiceServer<Api> as NamedService>::NAME,
    <ImageServiceServer<Api> as NamedService>::NAME,
    <KernelServiceServer<Api> as NamedService>::NAME,
    <OperationServiceServer<Api> as NamedService>::NAME,
    <SessionServiceServer<Api> as NamedService>::NAME,
    <TunnelServiceServer<Api> as NamedService>::NAME,
    <VmServiceServer<Api> as NamedService>::NAME,
    <VolumeServiceServer<Api> as NamedService>::NAME,
    <WorkspaceServiceServer<Api> as NamedService>::NAME,
];
/// Services that every gRPC server has, also shown by reflection.
const COMMON_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// A service of the API, with handlers for each caller and a bound on its messages.
macro_rules! per_caller {
    ($api:expr, $server:ident, $bytes_max:ident) => {
        PerCaller::new($api.clone(), |api| {
            $server::new(api).max_decoding_message_size($bytes_max)
        })
    };
}

/// Why serving ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors do not fit together: a defect of the build.
    #[error("could not put reflection together")]
    Reflection {
        /// Why.
        #[source]
        source: tonic_reflection::server::Error,
    },
    /// The socket failed.
    #[error("could not serve on the socket")]
    Transport {
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Serves the callers of `connections` until `stop`, then ends in good order: health says so, no new connection is taken, what can be taken
/// up again ends at once, and everything else has `grace` to end by itself. Returns whether all did.
///
/// # Errors
/// If serving could not begin, or the socket failed.
pub async fn serve(
    app: Arc<App>,
    connections: impl Stream<Item = io::Result<Connection>> + Send + 'static,
    limits: &LimitsConfig,
    stop: CancellationToken,
    grace: Duration,
) -> Result<bool, ServeError> {
    let drain = Drain::default();
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, ServingStatus::Serving).await;
    let reflection = reflection()
        .build_v1()
        .map_err(|source| ServeError::Reflection { source })?;
    let reflection_alpha = self::reflection()
        .build_v1alpha()
        .map_err(|source| ServeError::Reflection { source })?;
    let audit = app.audit().clone();
    let api = Api::new(app.clone(), drain.clone());
    let routes = Routes::new(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(per_caller!(api, CatalogServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, FileServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, HostServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, ImageServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, KernelServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, OperationServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(
            api,
            SessionServiceServer,
            SESSION_REQUEST_BYTES_MAX
        ))
        .add_service(per_caller!(api, TunnelServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, VmServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, VolumeServiceServer, REQUEST_BYTES_MAX))
        .add_service(per_caller!(api, WorkspaceServiceServer, REQUEST_BYTES_MAX));
    // One of each for all connections, whatever their windows.
    let admitting = AdmitLayer::new(limits);
    let access = AccessLayer::new(audit);
    let intake = IntakeLayer::new(limits.request_timeout.unsigned_abs());
    let (lanes, sorting) = Windows::default().sort(connections);
    let lanes = Window::ALL.into_iter().zip(lanes).map(|(window, lane)| {
        let stopped = drain.begun.clone().cancelled_owned();
        server(limits, window)
            .layer(tower::util::MapRequestLayer::new(admit::identify::<Body>))
            .layer(layer::log())
            .layer(layer::catch_panic())
            .layer(admitting.clone())
            .layer(access.clone())
            .layer(intake.clone())
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(lane, stopped)
    });
    let served = try_join_all(lanes);
    let served = async {
        let sorting = drain.begun.run_until_cancelled(sorting);
        futures::join!(served, sorting).0
    };
    let ending = end_in_order(stop, &health, &drain, &app, grace);
    tokio::select! {
        // cancel-safe: dropped only when everything had its time to end
        served = served => served.map(|_| true).map_err(|source| ServeError::Transport { source }),
        () = ending => Ok(false),
    }
}

/// Resolves when whoever is left has had every chance to end.
async fn end_in_order(
    stop: CancellationToken,
    health: &HealthReporter,
    drain: &Drain,
    app: &App,
    grace: Duration,
) {
    stop.cancelled().await;
    set_health(health, ServingStatus::NotServing).await;
    drain.begun.cancel();
    tokio::time::sleep(grace).await;
    app.leave();
    drain.over.cancel();
    tokio::time::sleep(LAST_WORDS).await;
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in [""].into_iter().chain(SERVICES) {
        health.set_service_status(service, status).await;
    }
}

fn server(limits: &LimitsConfig, window: Window) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(window.stream())
        .initial_connection_window_size(window.connection())
        .http2_keepalive_interval(Some(limits.keepalive_interval.unsigned_abs()))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout.unsigned_abs()))
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_WAITING_MAX))
}

/// The details that errors carry, so that whoever asks by reflection can read them. `google.rpc.Status` itself is among
/// the descriptors of the API.
fn error_details() -> FileDescriptorSet {
    let set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET);
    let mut set = set.unwrap_or_default();
    set.file
        .retain(|file| file.name().ends_with("error_details.proto"));
    set
}

/// The descriptors of everything that is served; the protocol between host and guest is not.
fn reflection() -> Reflection<'static> {
    let builder = Reflection::configure()
        .register_encoded_file_descriptor_set(banger_proto::FILE_DESCRIPTOR_SET)
        .register_file_descriptor_set(error_details())
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .include_reflection_service(false);
    SERVICES
        .into_iter()
        .chain(COMMON_SERVICES)
        .fold(builder, Reflection::with_service_name)
}
