//! Every call of every service of the API has a way through the SDK: one that is added to the contract and not here fails.
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banger_proto::v1;
use banger_sdk::{
    BundleNames, Client, Command, Existing, Host, PackedTree, Prune, Search, SignalTarget, Source,
    TakeOver, TunnelTarget,
};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use http_body_util::Full;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::body::Body;

/// Paths that were asked for.
type Asked = Arc<Mutex<BTreeSet<String>>>;
/// A way through the SDK. How it ends is of no interest: whoever answers knows nothing.
type Way = fn(Client, &Path) -> BoxFuture<'static, ()>;

macro_rules! ways {
    ($(fn $name:literal ($client:ident, $dir:ident) $body:expr;)*) => {
        [$(($name, (|$client: Client, $dir: &Path| {
            let $dir = $dir.to_owned();
            async move { let _ = (&$dir, $body); }.boxed()
        }) as Way)),*]
    };
}

fn nothing() -> Source {
    Source::reader(Cursor::new(Vec::new()))
}

const SECOND: Duration = Duration::from_secs(1);

fn ways() -> Vec<(&'static str, Way)> {
    ways! {
        fn "CatalogService/AddCatalog"(c, _d) c.catalogs().add("", "u", "k").await;
        fn "CatalogService/GetCatalog"(c, _d) c.catalogs().get("x").await;
        fn "CatalogService/ListCatalogs"(c, _d) c.catalogs().list().next().await;
        fn "CatalogService/RefreshCatalog"(c, _d) c.catalogs().refresh("x").await;
        fn "CatalogService/RemoveCatalog"(c, _d) c.catalogs().remove("x").await;
        fn "CatalogService/ListCatalogEntries"(c, _d) c.catalogs().search(Search::default()).next().await;
        fn "FileService/ReadFile"(c, _d) c.files("v").read("/p").bytes(1).await;
        fn "FileService/WriteFile"(c, _d) c.files("v").write("/p").bytes("x").await;
        fn "FileService/StatFile"(c, _d) c.files("v").stat("/p").await;
        fn "FileService/ListFiles"(c, _d) c.files("v").list("/p", 1).next().await;
        fn "FileService/MakeDirectory"(c, _d) c.files("v").make_directory("/p").await;
        fn "FileService/RemoveFile"(c, _d) c.files("v").remove("/p").await;
        fn "FileService/RenameFile"(c, _d) c.files("v").rename("/p", "/q", Existing::Keep).await;
        fn "FileService/SetFileAttributes"(c, _d) c.files("v").set_attributes("/p").permissions(0o600).await;
        fn "FileService/MakeSymlink"(c, _d) c.files("v").symlink("/p", "q", Existing::Keep).await;
        fn "FileService/WatchFiles"(c, _d) c.files("v").watch("/p").open().await;
        fn "FileService/UploadFiles"(c, dir) c.files("v").upload(PackedTree::content_of(&dir), "/p").await;
        fn "FileService/DownloadFiles"(c, _d) c.files("v").download("/p").open().await;
        fn "HostService/GetInfo"(c, _d) c.host_info().await;
        fn "HostService/Doctor"(c, _d) c.doctor().stream().next().await;
        fn "HostService/WatchEvents"(c, _d) c.events().stream().next().await;
        fn "HostService/GetUsage"(c, _d) c.host_usage().await;
        fn "HostService/ListAudit"(c, _d) c.audit().list().next().await;
        fn "HostService/WatchAudit"(c, _d) c.audit().follow(None).next().await;
        fn "ImageService/PullImage"(c, _d) c.images().pull("x").await;
        fn "ImageService/RegisterImage"(c, _d) c.images().register("x", nothing()).await;
        fn "ImageService/BuildImage"(c, _d) c.images().build_debian("x", "bookworm").await;
        fn "ImageService/ExportBundle"(c, _d) c.images().export_bundle("x", BundleNames::default()).await;
        fn "ImageService/ExportOciLayout"(c, _d) c.images().export_oci_layout("x").await;
        fn "ImageService/GetImage"(c, _d) c.images().get("x").await;
        fn "ImageService/ListImages"(c, _d) c.images().list().next().await;
        fn "ImageService/TagImage"(c, _d) c.images().tag("x", "y", TakeOver::Refused).await;
        fn "ImageService/DeleteImage"(c, _d) c.images().delete("x").await;
        fn "ImageService/PruneImages"(c, _d) c.images().prune(Prune::default()).await;
        fn "ImageService/ListImageUsage"(c, _d) c.images().usage().await;
        fn "KernelService/ImportKernel"(c, _d) c.kernels().import_debian_package("x").await;
        fn "KernelService/PullKernel"(c, _d) c.kernels().pull("x").await;
        fn "KernelService/ExportKernel"(c, _d) c.kernels().export("x").await;
        fn "KernelService/GetKernel"(c, _d) c.kernels().get("x").await;
        fn "KernelService/ListKernels"(c, _d) c.kernels().list().next().await;
        fn "KernelService/DeleteKernel"(c, _d) c.kernels().delete("x").await;
        fn "OperationService/GetOperation"(c, _d) c.operations().get("x").await;
        fn "OperationService/ListOperations"(c, _d) c.operations().list().next().await;
        fn "OperationService/WatchOperation"(c, _d) c.operations().watch("x").next().await;
        fn "OperationService/CancelOperation"(c, _d) c.operations().cancel("x").await;
        fn "SessionService/StartSession"(c, _d) c.sessions().start("v", Command::new(["x"])).await;
        fn "SessionService/GetSession"(c, _d) c.sessions().get("x").await;
        fn "SessionService/ListSessions"(c, _d) c.sessions().list("v").next().await;
        fn "SessionService/AttachSession"(c, _d) c.sessions().attach("x").await;
        fn "SessionService/ReadSessionLog"(c, _d) c.sessions().log("x").stream().next().await;
        fn "SessionService/SignalSession"(c, _d) c.sessions().signal("x", 15, SignalTarget::Group).await;
        fn "SessionService/WaitSession"(c, _d) c.sessions().wait("x").await;
        fn "SessionService/DeleteSession"(c, _d) c.sessions().delete("x").await;
        fn "SessionService/Exec"(c, _d) c.sessions().exec("v", Command::new(["x"])).await;
        fn "TunnelService/Forward"(c, _d) c.tunnels().open("v", TunnelTarget::port(80)).await;
        fn "VmService/CreateVm"(c, _d) c.vms().create("x").await;
        fn "VmService/GetVm"(c, _d) c.vms().get("v").await;
        fn "VmService/ListVms"(c, _d) c.vms().list().next().await;
        fn "VmService/UpdateVm"(c, _d) c.vms().update("v").vcpus(1).await;
        fn "VmService/StartVm"(c, _d) c.vms().start("v").await;
        fn "VmService/StopVm"(c, _d) c.vms().stop("v").await;
        fn "VmService/RestartVm"(c, _d) c.vms().restart("v").await;
        fn "VmService/PauseVm"(c, _d) c.vms().pause("v").await;
        fn "VmService/ResumeVm"(c, _d) c.vms().resume("v").await;
        fn "VmService/KillVm"(c, _d) c.vms().kill("v").await;
        fn "VmService/DeleteVm"(c, _d) c.vms().delete("v").await;
        fn "VmService/WatchVm"(c, _d) c.vms().watch("v").next().await;
        fn "VmService/GetVmStats"(c, _d) c.vms().stats("v").await;
        fn "VmService/WatchVmStats"(c, _d) c.vms().watch_stats("v", SECOND).next().await;
        fn "VmService/ListPorts"(c, _d) c.vms().ports("v").await;
        fn "VmService/GetSshHostKey"(c, _d) c.vms().ssh_host_key("v").await;
        fn "VmService/ReadConsole"(c, _d) c.vms().console("v").stream().next().await;
        fn "VolumeService/CreateVolume"(c, _d) c.volumes().create("x").size_mib(1).await;
        fn "VolumeService/GetVolume"(c, _d) c.volumes().get("x").await;
        fn "VolumeService/ListVolumes"(c, _d) c.volumes().list().next().await;
        fn "VolumeService/UpdateVolume"(c, _d) c.volumes().update("x").size_mib(2).await;
        fn "VolumeService/DeleteVolume"(c, _d) c.volumes().delete("x").await;
        fn "WorkspaceService/PrepareWorkspace"(c, dir) c.workspace("v", "w").prepare(&dir).plain().state_directory(dir.join("state")).await;
        fn "WorkspaceService/ExportWorkspace"(c, dir)
            c.workspace("v", "w").export(&dir).plain().state_directory(dir.join("state")).await;
        fn "WorkspaceService/GetWorkspaceStatus"(c, _d) c.workspace("v", "w").status().await;
    }
    .into()
}

/// What the contract has.
fn contract() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(banger_proto::FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "banger.v1");
    let services = files.flat_map(|file| &file.service);
    let of = |service: &prost_types::ServiceDescriptorProto| {
        let methods = service.method.iter();
        let path = |method: &prost_types::MethodDescriptorProto| {
            format!("{}/{}", service.name(), method.name())
        };
        methods.map(path).collect::<Vec<_>>()
    };
    services.flat_map(of).collect()
}

/// An answer with one message.
fn answer(message: &impl prost::Message) -> http::Response<Body> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let frame = [&[0][..], &length, &bytes].concat();
    http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0")
        .body(Body::new(Full::new(bytes::Bytes::from(frame))))
        .unwrap()
}

/// Knows of a VM and of a workspace, without which the SDK asks no further; of nothing else.
fn reply(path: &str) -> http::Response<Body> {
    match path {
        "VmService/GetVm" => answer(&v1::GetVmResponse {
            vm: Some(v1::Vm {
                id: "v".into(),
                ..v1::Vm::default()
            }),
        }),
        "WorkspaceService/GetWorkspaceStatus" => answer(&v1::GetWorkspaceStatusResponse {
            status: Some(banger_sdk::workspaces::Status::default()),
            base: None,
        }),
        _ => Status::unimplemented("nothing is known here").into_http(),
    }
}

#[tokio::test]
async fn every_call_of_the_contract_has_a_way_through_the_sdk() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let asked = Asked::default();
    let heard = asked.clone();
    let listen = tower::layer::layer_fn(move |_| {
        let heard = heard.clone();
        tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().path().trim_start_matches("/banger.v1.");
            heard.lock().unwrap().insert(path.to_owned());
            std::future::ready(Ok::<_, Infallible>(reply(path)))
        })
    });
    let server = tonic::transport::Server::builder()
        .layer(listen)
        .add_routes(tonic::service::Routes::default())
        .serve_with_incoming(UnixListenerStream::new(listener));
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();

    let asking = async {
        let ways = ways();
        let named: BTreeSet<String> = ways.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(named, contract(), "the calls that have a way here");
        for (name, way) in ways {
            asked.lock().unwrap().clear();
            let client = Client::connect(Host::socket(&socket)).await.unwrap();
            let tried = tokio::time::timeout(Duration::from_secs(60), way(client, &tree));
            tried.await.unwrap_or_else(|_| panic!("{name} ends"));
            let asked = asked.lock().unwrap().clone();
            assert!(
                asked.contains(name),
                "{name} was not asked for, but {asked:?}"
            );
        }
    };
    tokio::select! {
        // cancel-safe: the test is over
        served = server => panic!("nobody serves any more: {served:?}"),
        () = asking => {}
    }
}
