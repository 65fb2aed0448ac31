//! What a download tells of what did not come.
use std::convert::Infallible;

use banger_archive::TarWriter;
use banger_core::tree::{TreeEntry, TreeKind};
use banger_proto::v1;
use banger_proto::v1::download_files_response::Message;
use banger_sdk::{Client, Host, Unpack};
use http_body_util::Full;
use prost::Message as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;

/// A directory `d`.
fn archive() -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    let entry = TreeEntry {
        path: b"d".to_vec(),
        kind: TreeKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (1, 0),
        xattrs: Default::default(),
    };
    tar.entry(&entry).unwrap();
    tar.finish().unwrap()
}

fn answer(omissions: &v1::Omissions) -> http::Response<Body> {
    let moved = v1::FilesMoved {
        entry_count: 1,
        content_bytes: 0,
        omissions: (omissions.count > 0).then(|| omissions.clone()),
    };
    let messages = [Message::Chunk(archive().into()), Message::Done(moved)];
    let mut frames = Vec::new();
    for message in messages {
        let message = Some(message);
        let bytes = v1::DownloadFilesResponse { message }.encode_to_vec();
        frames.push(0);
        frames.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        frames.extend(bytes);
    }
    http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0")
        .body(Body::new(Full::new(bytes::Bytes::from(frames))))
        .unwrap()
}

#[tokio::test]
async fn a_download_tells_what_the_vm_left_out() {
    let first = vec![v1::Omission {
        path: "d/s".into(),
        reason: v1::omission::Reason::Socket.into(),
    }];
    for omissions in [v1::Omissions { count: 70, first }, v1::Omissions::default()] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let told = omissions.clone();
        let layer = tower::layer::layer_fn(move |_| {
            let told = told.clone();
            tower::service_fn(move |_: http::Request<Body>| {
                std::future::ready(Ok::<_, Infallible>(answer(&told)))
            })
        });
        let server = tonic::transport::Server::builder()
            .layer(layer)
            .add_routes(tonic::service::Routes::default())
            .serve_with_incoming(UnixListenerStream::new(listener));
        let asking = async {
            let client = Client::connect(Host::socket(&socket)).await.unwrap();
            let download = client.files("v").download("/d");
            download
                .unpack(dir.path().join("to"), Unpack::default())
                .await
        };
        let unpacked = tokio::select! {
            // cancel-safe: the test is over
            served = server => panic!("nobody serves any more: {served:?}"),
            unpacked = asking => unpacked.unwrap(),
        };
        assert_eq!((unpacked.entries, unpacked.skipped), (1, 0));
        assert_eq!(unpacked.omissions, omissions);
    }
}
