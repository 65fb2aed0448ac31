//! Files: what is said in which order, and what wrong input makes of it.

use std::time::Duration;

use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::file_service_client::FileServiceClient;
use banger_proto::v1::write_file_request::Message as Write;
use bangerd::config::Config;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::access::callers::user;
use crate::rig::{PATIENCE, Rig, drain};

const UUID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

async fn rig() -> (Rig, FileServiceClient<Channel>) {
    rig_with(|_| {}).await
}

/// The same, of a daemon that is configured otherwise.
async fn rig_with(change: impl FnOnce(&mut Config)) -> (Rig, FileServiceClient<Channel>) {
    let rig = Rig::start_with(change).await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let files = FileServiceClient::new(rig.channel.clone());
    (rig, files)
}

fn write_start(path: &str) -> v1::WriteFileStart {
    v1::WriteFileStart {
        vm: "web".into(),
        path: path.into(),
        ..Default::default()
    }
}

/// Writes these messages, and says that they are all.
async fn write(
    files: &FileServiceClient<Channel>,
    mut messages: Vec<Write>,
) -> Result<Vec<v1::WriteFileResponse>, Status> {
    messages.push(Write::End(v1::WriteFileEnd {}));
    send(files, messages).await
}

/// Sends these messages; the stream ends after them.
async fn send(
    files: &FileServiceClient<Channel>,
    messages: Vec<Write>,
) -> Result<Vec<v1::WriteFileResponse>, Status> {
    let messages = messages.into_iter().map(|message| v1::WriteFileRequest {
        message: Some(message),
    });
    let answers = files.clone().write_file(stream::iter(messages)).await?;
    drain(answers.into_inner()).await
}

fn chunk(content: &'static [u8]) -> Write {
    Write::Chunk(Bytes::from_static(content))
}

/// Checks the code and the reason of an error.
fn assert_refused(status: &Status, code: Code, reason: &str) {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str()),
        (code, reason),
        "{status:?}"
    );
}

/// The metadata of an error.
fn told(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get(key).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_and_read_in_parts() {
    let (rig, files) = rig().await;
    let written = write(
        &files,
        vec![
            Write::Start(write_start("/a")),
            chunk(b"hello "),
            chunk(b""),
            chunk(b"world"),
        ],
    )
    .await
    .unwrap();
    let Some(v1::write_file_response::Message::File(file)) = &written.last().unwrap().message
    else {
        panic!("{written:?}")
    };
    assert_eq!((file.path.as_str(), file.size_bytes), ("/a", 11));
    let request = v1::ReadFileRequest {
        vm: "web".into(),
        path: "/a".into(),
        offset: 6,
        length: Some(3),
        ..Default::default()
    };
    let read = files.clone().read_file(request).await.unwrap().into_inner();
    let read = drain(read).await.unwrap();
    use v1::read_file_response::Message;
    let [Some(Message::File(_)), Some(Message::Chunk(part))] =
        [read[0].message.clone(), read[1].message.clone()]
    else {
        panic!("{read:?}")
    };
    assert_eq!(&part[..], b"wor");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_by_field() {
    let (rig, files) = rig().await;
    let stat = async |vm: &str, user: &str, path: &str| {
        let request = v1::StatFileRequest {
            vm: vm.into(),
            user: user.into(),
            path: path.into(),
            follow: true,
        };
        files.clone().stat_file(request).await.unwrap_err()
    };
    for (vm, user, path, code, reason) in [
        ("", "", "/a", Code::InvalidArgument, "INVALID_FIELD"),
        ("web", "", "", Code::InvalidArgument, "INVALID_FIELD"),
        ("web", "", "/a/../b", Code::InvalidArgument, "INVALID_FIELD"),
        ("web", "a\nb", "/a", Code::InvalidArgument, "INVALID_FIELD"),
        ("none", "", "/a", Code::NotFound, "VM_NOT_FOUND"),
        (
            "web",
            "nobody",
            "/a",
            Code::InvalidArgument,
            "USER_NOT_FOUND",
        ),
    ] {
        assert_refused(&stat(vm, user, path).await, code, reason);
    }
    let missing = stat("web", "", "/none").await;
    assert_refused(&missing, Code::NotFound, "FILE_NOT_FOUND");
    assert!(!told(&missing, "remedy").is_empty());
    let wrong = |change: fn(&mut v1::WriteFileStart)| {
        let mut start = write_start("/a");
        change(&mut start);
        vec![Write::Start(start)]
    };
    for messages in [
        vec![],
        vec![chunk(b"x")],
        wrong(|start| start.permissions = Some(0o10_000)),
        wrong(|start| start.offset = 1),
        wrong(|start| start.truncate = true),
        wrong(|start| start.path = "../a".into()),
        wrong(|start| {
            start.mtime = Some(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            });
        }),
        vec![
            Write::Start(write_start("/a")),
            Write::Start(write_start("/a")),
        ],
        vec![
            Write::Start(write_start("/a")),
            Write::Chunk(vec![0; (1 << 20) + 1].into()),
        ],
    ] {
        let refused = write(&files, messages).await.unwrap_err();
        assert!(
            matches!(refused.code(), Code::InvalidArgument | Code::Cancelled),
            "{refused:?}"
        );
    }
    assert!(
        rig.files.lock().unwrap().is_empty(),
        "something was written"
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_tells_whether_something_was_written() {
    let (rig, files) = rig().await;
    let full = write(
        &files,
        vec![Write::Start(write_start("/full")), chunk(b"x")],
    )
    .await;
    let full = full.unwrap_err();
    assert_refused(&full, Code::ResourceExhausted, "VM_DISK_FULL");
    assert_eq!(told(&full, "written"), "no");
    let mut append = write_start("/full");
    append.mode = v1::write_file_start::Mode::Append.into();
    let full = write(&files, vec![Write::Start(append)]).await.unwrap_err();
    assert_eq!(told(&full, "written"), "maybe");
    let remove = v1::RemoveFileRequest {
        vm: "web".into(),
        path: "/lost".into(),
        ..Default::default()
    };
    let lost = files.clone().remove_file(remove).await.unwrap_err();
    assert_refused(&lost, Code::Unavailable, "AGENT_LOST");
    assert_eq!(told(&lost, "written"), "maybe");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_without_saying_so_writes_nothing() {
    let (rig, files) = rig().await;
    let half = vec![Write::Start(write_start("/half")), chunk(b"half")];
    let refused = send(&files, half).await.unwrap_err();
    assert_eq!(refused.code(), Code::Cancelled, "{refused:?}");
    assert!(rig.files.lock().unwrap().is_empty(), "half was written");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_writes_nothing() {
    let (rig, files) = rig().await;
    let first = v1::WriteFileRequest {
        message: Some(Write::Start(write_start("/half"))),
    };
    let half = v1::WriteFileRequest {
        message: Some(chunk(b"half")),
    };
    let messages = stream::iter([first, half]).chain(stream::pending());
    let answers = files
        .clone()
        .write_file(messages)
        .await
        .unwrap()
        .into_inner();
    let mut answers = answers;
    // Something came; then the caller hangs up.
    tokio::time::timeout(PATIENCE, answers.message())
        .await
        .unwrap()
        .unwrap();
    drop(answers);
    let is_idle = async {
        // Only when the daemon has let go is the guest's call over.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stat = v1::StatFileRequest {
            vm: "web".into(),
            path: "/half".into(),
            ..Default::default()
        };
        files.clone().stat_file(stat).await.unwrap_err()
    };
    assert_refused(&is_idle.await, Code::NotFound, "FILE_NOT_FOUND");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_write_is_told_of_as_alive() {
    let (rig, files) = rig().await;
    let first = v1::WriteFileRequest {
        message: Some(Write::Start(write_start("/stuck"))),
    };
    let messages = stream::iter([first]).chain(stream::pending());
    let mut answers = files
        .clone()
        .write_file(messages)
        .await
        .unwrap()
        .into_inner();
    let beat = tokio::time::timeout(PATIENCE, answers.message())
        .await
        .unwrap();
    let Some(v1::write_file_response::Message::Heartbeat(_)) = beat.unwrap().unwrap().message
    else {
        panic!("no heartbeat")
    };
    drop(answers);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_once_for_one_request_id() {
    let (rig, files) = rig().await;
    write(&files, vec![Write::Start(write_start("/a")), chunk(b"x")])
        .await
        .unwrap();
    let rename = |path: &str| v1::RenameFileRequest {
        vm: "web".into(),
        path: path.into(),
        new_path: "/b".into(),
        request_id: UUID.into(),
        ..Default::default()
    };
    for _ in 0..2 {
        let renamed = files.clone().rename_file(rename("/a")).await.unwrap();
        assert_eq!(renamed.into_inner().file.unwrap().path, "/b");
    }
    let other = files.clone().rename_file(rename("/c")).await.unwrap_err();
    assert_refused(&other, Code::InvalidArgument, "REQUEST_ID_REUSED");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_by_paths() {
    let (rig, files) = rig().await;
    for path in ["/a", "/b", "/c"] {
        write(&files, vec![Write::Start(write_start(path))])
            .await
            .unwrap();
    }
    let list = async |page_size, page_token: &str, depth| {
        let request = v1::ListFilesRequest {
            vm: "web".into(),
            path: "/".into(),
            page_size,
            page_token: page_token.into(),
            depth,
            ..Default::default()
        };
        files
            .clone()
            .list_files(request)
            .await
            .map(tonic::Response::into_inner)
    };
    let first = list(2, "", 0).await.unwrap();
    assert_eq!(first.files.len(), 2);
    let second = list(2, &first.next_page_token, 1).await.unwrap();
    assert_eq!(second.files[0].path, "c");
    assert_eq!(second.next_page_token, "");
    for (size, token, depth) in [(-1, "", 0), (0, "x", 0), (0, "", -1), (0, "", 65)] {
        let refused = list(size, token, depth).await.unwrap_err();
        assert_refused(&refused, Code::InvalidArgument, "INVALID_FIELD");
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_and_end_with_the_daemon() {
    let (rig, files) = rig().await;
    write(&files, vec![Write::Start(write_start("/a"))])
        .await
        .unwrap();
    let request = v1::WatchFilesRequest {
        vm: "web".into(),
        path: "/a".into(),
        ..Default::default()
    };
    use v1::watch_files_response::Message;
    let mut events = files
        .clone()
        .watch_files(request)
        .await
        .unwrap()
        .into_inner();
    let mut next = async || {
        let event = tokio::time::timeout(PATIENCE, events.message())
            .await
            .unwrap();
        event.map(|event| event.unwrap().message.unwrap())
    };
    assert!(matches!(next().await.unwrap(), Message::Started(_)));
    assert!(matches!(next().await.unwrap(), Message::Event(_)));
    assert!(matches!(next().await.unwrap(), Message::Overflow(_)));
    assert!(matches!(next().await.unwrap(), Message::Heartbeat(_)));
    rig.stop.cancel();
    let ended = loop {
        if let Err(status) = next().await {
            break status;
        }
    };
    assert_refused(&ended, Code::Unavailable, "DRAINING");
}

/// A tar archive with one file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

async fn upload(
    files: &FileServiceClient<Channel>,
    archive: &[u8],
) -> Result<Vec<v1::UploadFilesResponse>, Status> {
    use v1::upload_files_request::Message;
    let start = v1::UploadFilesStart {
        vm: "web".into(),
        path: "/up".into(),
        ..Default::default()
    };
    let chunks = archive
        .chunks(700)
        .map(|chunk| Message::Chunk(Bytes::copy_from_slice(chunk)));
    let messages: Vec<_> = [Message::Start(start)]
        .into_iter()
        .chain(chunks)
        .chain([Message::End(v1::UploadFilesEnd {})])
        .map(|message| v1::UploadFilesRequest {
            message: Some(message),
        })
        .collect();
    let answers = files.clone().upload_files(stream::iter(messages)).await?;
    drain(answers.into_inner()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_in_and_comes_out() {
    let (rig, files) = rig().await;
    let told = upload(&files, &archive("dir/file", &[7; 5000]))
        .await
        .unwrap();
    let Some(v1::upload_files_response::Message::Done(moved)) = &told.last().unwrap().message
    else {
        panic!("{told:?}")
    };
    assert_eq!((moved.entry_count, moved.content_bytes), (1, 5000));
    let request = v1::DownloadFilesRequest {
        vm: "web".into(),
        path: "/up/dir/file".into(),
        ..Default::default()
    };
    let answers = files
        .clone()
        .download_files(request)
        .await
        .unwrap()
        .into_inner();
    let answers = drain(answers).await.unwrap();
    use v1::download_files_response::Message;
    let mut bytes = Vec::new();
    for answer in &answers {
        if let Some(Message::Chunk(chunk)) = &answer.message {
            bytes.extend_from_slice(chunk);
        }
    }
    let Some(Message::Done(moved)) = &answers.last().unwrap().message else {
        panic!("{answers:?}")
    };
    let attributes = v1::Omission {
        path: "file".into(),
        reason: v1::omission::Reason::Attributes.into(),
    };
    let omissions = v1::Omissions {
        count: 70,
        first: vec![attributes],
    };
    assert_eq!(moved.omissions, Some(omissions));
    assert_eq!(&bytes[..5], b"file\0");
    assert_eq!(&bytes[512..5512], [7; 5000]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_none_or_leads_out_is_refused() {
    let (rig, files) = rig().await;
    let cut = archive("file", &[7; 5000]);
    for (number, bad) in [
        vec![b'x'; 5000],
        archive("../escape", b"x"),
        archive("a/../../escape", b"x"),
        cut[..3000].to_vec(),
    ]
    .iter()
    .enumerate()
    {
        let refused = upload(&files, bad).await.unwrap_err();
        assert_refused(&refused, Code::InvalidArgument, "ARCHIVE_INVALID");
        assert!(!told(&refused, "detail").is_empty(), "{number}");
    }
    assert!(rig.files.lock().unwrap().is_empty());
    rig.stopped().await;
}

/// As many as the daemon reads at once.
const UPLOADS_MAX: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_its_time_for_its_turn_and_is_then_refused() {
    let change = |config: &mut Config| config.upload_queue_timeout = "2s".parse().unwrap();
    let (rig, files) = rig_with(change).await;
    use v1::upload_files_request::Message;
    let start = v1::UploadFilesRequest {
        message: Some(Message::Start(v1::UploadFilesStart {
            vm: "web".into(),
            path: "/waiting".into(),
            ..Default::default()
        })),
    };
    // Each has begun, and its archive never ends.
    let (mut begun, end) = (Vec::new(), CancellationToken::new());
    for _ in 0..UPLOADS_MAX {
        let rest = stream::pending().take_until(end.clone().cancelled_owned());
        let messages = stream::iter([start.clone()]).chain(rest);
        let answers = files.clone().upload_files(messages).await.unwrap();
        begun.push(answers.into_inner());
    }
    let one_more = async || upload(&files, &archive("file", b"x")).await;
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            // The last of them may not have had its turn yet.
            if let Err(refused) = one_more().await {
                break refused;
            }
        }
    });
    let refused = refused.await.unwrap();
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_UPLOADS");
    assert_eq!(told(&refused, "limit"), UPLOADS_MAX.to_string());
    // Another owner has places of its own.
    let other = rig.enter(user(8001, Role::Operator)).await;
    let others = FileServiceClient::new(other.channel.clone());
    upload(&others, &archive("file", b"x")).await.unwrap();
    // HTTP/2 does not give up a call of which one half goes on.
    end.cancel();
    drop(begun);
    let again = tokio::time::timeout(PATIENCE, async {
        while one_more().await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    again.await.unwrap();
    rig.stopped().await;
}
