//! Builds and layouts, with agents that run nothing and always have changed one file.

use std::path::{Path, PathBuf};

use banger_proto::v1;
use banger_proto::v1::build_image_request::Message;
use banger_proto::v1::build_image_response::Message as Told;
use banger_proto::v1::build_image_start::Recipe;
use futures::StreamExt as _;
use tokio::sync::oneshot;
use tonic::{Code, Status, Streaming};

use crate::rig::{PATIENCE, Rig, assert_refused, drain};

pub(crate) fn dockerfile(text: &str) -> v1::BuildImageStart {
    v1::BuildImageStart {
        reference: "built:1".into(),
        recipe: Some(Recipe::Dockerfile(v1::DockerfileRecipe {
            text: text.into(),
            ..Default::default()
        })),
        memory_mib: 96,
        disk_size_bytes: 64 << 20,
        ..Default::default()
    }
}

impl Rig {
    pub(crate) async fn begin_build(
        &self,
        start: v1::BuildImageStart,
        context: &[u8],
    ) -> Result<Streaming<v1::BuildImageResponse>, Status> {
        let chunk = (!context.is_empty()).then(|| Message::Chunk(context.to_vec().into()));
        let messages: Vec<_> = [Message::Start(start)].into_iter().chain(chunk).collect();
        let messages = messages.into_iter().map(|message| v1::BuildImageRequest {
            message: Some(message),
        });
        let stream = futures::stream::iter(messages.collect::<Vec<_>>());
        Ok(self.images().build_image(stream).await?.into_inner())
    }

    /// A build with a context that is more than any window holds; the receiver is told when all of it was taken.
    async fn begin_long_build(
        &self,
        start: v1::BuildImageStart,
    ) -> (Streaming<v1::BuildImageResponse>, oneshot::Receiver<()>) {
        let (taken, all_taken) = oneshot::channel();
        let chunk = Message::Chunk(vec![0; 1 << 20].into());
        let messages = [Message::Start(start)].into_iter().chain(vec![chunk; 64]);
        let messages = messages.map(|message| v1::BuildImageRequest {
            message: Some(message),
        });
        let end = futures::stream::once(async move {
            let _ = taken.send(());
            None
        });
        let stream = futures::stream::iter(messages.collect::<Vec<_>>().into_iter().map(Some));
        let stream = stream.chain(end).filter_map(std::future::ready);
        let answers = self.images().build_image(stream).await.unwrap();
        (answers.into_inner(), all_taken)
    }

    /// The image that was built, and what was told.
    async fn build(&self, text: &str, context: &[u8]) -> Result<(v1::Image, String), Status> {
        let answers = drain(self.begin_build(dockerfile(text), context).await?).await?;
        let mut log = String::new();
        for answer in &answers {
            if let Some(Told::Log(told)) = &answer.message {
                log.push_str(&String::from_utf8_lossy(&told.data));
            }
        }
        match answers
            .into_iter()
            .next_back()
            .and_then(|last| last.message)
        {
            Some(Told::Image(image)) => Ok((image, log)),
            other => panic!("the last message is {other:?}"),
        }
    }

    /// An image as a tar of a layout, and what was told at its end.
    async fn export_layout(&self, image: &str) -> Result<(Vec<u8>, v1::ExportEnd), Status> {
        use v1::export_oci_layout_response::Message as Exported;
        let request = v1::ExportOciLayoutRequest {
            image: image.into(),
        };
        let answers = self.images().export_oci_layout(request).await?.into_inner();
        let (mut bytes, mut end) = (Vec::new(), None);
        for answer in drain(answers).await? {
            match answer.message.unwrap() {
                Exported::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                Exported::End(told) => end = Some(told),
                Exported::Start(start) => assert!(start.content_bytes > 0),
                Exported::Heartbeat(_) => {}
            }
        }
        Ok((bytes, end.unwrap()))
    }

    pub(crate) async fn vm_count(&self) -> usize {
        let request = v1::ListVmsRequest::default();
        self.vms()
            .list_vms(request)
            .await
            .unwrap()
            .into_inner()
            .vms
            .len()
    }

    /// A build's files go with it: only what is kept on purpose stays.
    fn assert_nothing_left(&self) {
        let state = self.dir.path().join("state");
        assert_eq!(files_below(&state.join("tmp")), Vec::<PathBuf>::new());
        assert_eq!(std::fs::read_dir(state.join("vms")).unwrap().count(), 0);
    }
}

pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (dirs, mut files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.extend(dirs.iter().flat_map(|dir| files_below(dir)));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_makes_one_layer_and_leaves_nothing_but_the_image() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let text = "FROM web:1\nENV A=b\nRUN [\"echo\", \"hello from the step\"]\nCMD [\"serve\"]\n";
    let (image, log) = rig.build(text, &[]).await.unwrap();
    // The instruction has the words too.
    let said = |log: &str| log.matches("hello from the step").count() - 1;
    assert_eq!(said(&log), 1, "{log}");
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.origin, "build");
    let config = image.config.unwrap();
    assert_eq!(
        (config.env, config.cmd),
        (vec!["A=b".to_owned()], vec!["serve".to_owned()])
    );
    assert_eq!(image.references, ["docker.io/library/built:1"]);
    assert_eq!(rig.vm_count().await, 0);
    rig.assert_nothing_left();
    // The same again runs nothing.
    let (again, log) = rig.build(text, &[]).await.unwrap();
    assert_eq!(again.digest, image.digest);
    assert!(log.contains("CACHED the image") && said(&log) == 0, "{log}");
    // Another configuration takes the kept step, and another layer of the same changes.
    let other = text.replace("serve", "other");
    let (other, log) = rig.build(&other, &[]).await.unwrap();
    assert!(log.contains("CACHED RUN") && said(&log) == 0, "{log}");
    assert_eq!(other.layers, image.layers);
    assert!(other.digest != image.digest);
    rig.assert_nothing_left();

    let usage = rig
        .images()
        .list_image_usage(v1::ListImageUsageRequest::default())
        .await;
    assert!(usage.unwrap().into_inner().build_cache_bytes > 0);
    let prune = v1::PruneImagesRequest {
        build_cache: true,
        ..Default::default()
    };
    let pruned = rig.images().prune_images(prune).await.unwrap().into_inner();
    assert_eq!(pruned.removed_build_steps, 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_steps_needs_no_vm() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    // There is no kernel, so nothing could boot.
    let (image, _) = rig.build("FROM web:1\nLABEL a=b\n", &[]).await.unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.config.unwrap().labels["a"], "b");
    let error = rig.build("FROM web:1\nRUN x\n", &[]).await.unwrap_err();
    assert_refused(&error, Code::FailedPrecondition, "NO_KERNEL", None);
    rig.assert_nothing_left();
    rig.stopped().await;
}

/// A Docker archive of an image of one empty layer, with this configuration.
fn docker_archive(config: &str) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let layer = vec![0; 1024];
    let document = format!(
        r#"{{"os":"linux","architecture":"amd64","config":{config},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{:x}"]}}}}"#,
        Sha256::digest(&layer)
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["x:1"],"Layers":["layer.tar"]}]"#;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("manifest.json", manifest.as_bytes()),
        ("config.json", document.as_bytes()),
        ("layer.tar", &layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_base_asks_of_builds_is_told_and_not_dropped_silently() {
    let rig = Rig::start().await;
    let archive = docker_archive(r#"{"OnBuild":["COPY . /app","RUN make\u001b"]}"#);
    let start = v1::RegisterImageStart {
        reference: "base:1".into(),
        ..Default::default()
    };
    rig.register_as(start, &archive).await.unwrap();
    let (_, log) = rig.build("FROM base:1\nLABEL a=b\n", &[]).await.unwrap();
    for trigger in ["COPY . /app", "RUN make "] {
        let told = format!("warning: base:1 asks for ONBUILD {trigger}");
        assert!(log.contains(&told), "{log}");
    }
    // The image that is built asks for nothing.
    let (_, log) = rig.build("FROM built:1\nLABEL c=d\n", &[]).await.unwrap();
    assert!(!log.contains("ONBUILD"), "{log}");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_tagged_as_it_was_asked_for() {
    use std::io::Read as _;
    let rig = Rig::start().await;
    rig.register("my-app:1").await.unwrap();
    for reference in ["app:1", "app:2"] {
        let tag = v1::TagImageRequest {
            image: "my-app:1".into(),
            reference: reference.into(),
            ..Default::default()
        };
        rig.images().tag_image(tag).await.unwrap();
    }
    let bytes = rig.export_layout("app:2").await.unwrap().0;
    let mut index = String::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("index.json") {
            entry.read_to_string(&mut index).unwrap();
        }
    }
    assert!(
        index.contains(r#""org.opencontainers.image.ref.name":"2""#),
        "{index}"
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_other_machines_is_refused_where_its_programs_would_run() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let start = v1::RegisterImageStart {
        reference: "web:1".into(),
        format: 3,
        platform: "linux/s390x".into(),
        replace: true,
        ..Default::default()
    };
    rig.register_as(start, &[0; 1024]).await.unwrap();
    let precondition = Code::FailedPrecondition;
    let error = rig.create("one").await.unwrap_err();
    assert_refused(&error, precondition, "IMAGE_OTHER_PLATFORM", None);
    assert!(error.message().contains("linux/s390x"), "{error:?}");
    let text = "FROM web:1\nLABEL a=b\n";
    let error = rig.build(text, &[]).await.unwrap_err();
    assert_refused(&error, precondition, "IMAGE_OTHER_PLATFORM", None);
    rig.assert_nothing_left();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_of_a_recipe_are_told_before_anything_is_made() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let field = Some("start.dockerfile.text");
    for (text, reason) in [
        ("FOO\n", "DOCKERFILE_INVALID"),
        ("FROM web:1\nONBUILD RUN x\n", "DOCKERFILE_UNSUPPORTED"),
    ] {
        let error = rig.begin_build(dockerfile(text), &[]).await.unwrap_err();
        assert_refused(&error, Code::InvalidArgument, reason, field);
    }
    let mut start = dockerfile("FROM web:1\n");
    start.recipe = Some(Recipe::Debian(v1::DebianRecipe {
        suite: "--hook=evil".into(),
        ..Default::default()
    }));
    let error = rig.begin_build(start, &[]).await.unwrap_err();
    assert_refused(
        &error,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("start.debian.suite"),
    );
    let mut start = dockerfile("FROM web:1\n");
    start.recipe = None;
    let error = rig.begin_build(start, &[]).await.unwrap_err();
    assert_refused(
        &error,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("start.recipe"),
    );
    let operations = rig
        .operations()
        .list_operations(v1::ListOperationsRequest::default())
        .await;
    let operations = operations.unwrap().into_inner().operations;
    assert!(
        operations
            .iter()
            .all(|operation| operation.kind() != v1::operation::Kind::BuildImage)
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_leaves_nothing() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let text = "FROM web:1\nRUN [\"true\"]\nRUN [\"missing\"]\n";
    let error = rig.build(text, &[]).await.unwrap_err();
    assert_refused(
        &error,
        Code::InvalidArgument,
        "PROGRAM_NOT_FOUND",
        Some("spec.command"),
    );
    assert!(error.message().contains("Dockerfile:3"), "{error}");
    let error = rig
        .build("FROM web:1\nCOPY nothing /\n", &[0; 1024])
        .await
        .unwrap_err();
    assert_refused(
        &error,
        Code::InvalidArgument,
        "BUILD_SOURCE_MISSING",
        Some("chunk"),
    );
    let error = rig
        .build("FROM web:1\nCOPY x /\n", b"no tar at all")
        .await
        .unwrap_err();
    assert_refused(
        &error,
        Code::InvalidArgument,
        "BUILD_CONTEXT_INVALID",
        Some("chunk"),
    );
    assert_eq!(rig.vm_count().await, 0);
    rig.assert_nothing_left();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_cancelled_leaves_nothing() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let start = dockerfile("FROM web:1\nRUN [\"sleep\", \"1000\"]\n");
    let mut answers = rig.begin_build(start, &[]).await.unwrap();
    let mut operation = None;
    let reached = async {
        loop {
            match answers.message().await.unwrap().unwrap().message {
                Some(Told::Operation(told)) => operation = Some(told.id),
                Some(Told::Log(log)) if log.data.starts_with(b"RUN") => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
    let request = v1::CancelOperationRequest {
        operation: operation.unwrap(),
    };
    rig.operations().cancel_operation(request).await.unwrap();
    let error = drain(answers).await.unwrap_err();
    assert_refused(&error, Code::Cancelled, "OPERATION_CANCELLED", None);
    assert_eq!(rig.vm_count().await, 0);
    rig.assert_nothing_left();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_command_hangs_ends_with_its_time_and_leaves_nothing() {
    let rig = Rig::start_with(|config| config.build_timeout = "3s".parse().unwrap()).await;
    rig.furnish().await;
    let hanging = "FROM web:1\nRUN [\"sleep\", \"1000\"]\n";
    let error = rig.build(hanging, &[]).await.unwrap_err();
    assert_refused(&error, Code::DeadlineExceeded, "BUILD_TIMEOUT", None);
    assert!(error.message().contains("within 3 s"), "{error}");
    assert_eq!(rig.vm_count().await, 0);
    rig.assert_nothing_left();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_that_no_queue_holds_are_refused_with_the_numbers() {
    let rig = Rig::start_with(|config| {
        config.max_parallel_builds = 1;
        config.build_queue_max = 1;
    })
    .await;
    rig.furnish().await;
    let hanging = || dockerfile("FROM web:1\nRUN [\"sleep\", \"1000\"]\n");
    let known = v1::BuildImageStart {
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        ..hanging()
    };
    let first = rig.begin_build(known.clone(), &[]).await.unwrap();
    let second = rig.begin_build(hanging(), &[]).await.unwrap();
    // A repeat of a build that goes on asks for no place. Its context is more than any window holds.
    let (joined, passed_over) = rig.begin_long_build(known.clone()).await;
    tokio::time::timeout(PATIENCE, passed_over)
        .await
        .unwrap()
        .unwrap();
    let other = v1::BuildImageStart {
        no_cache: true,
        ..known
    };
    let error = rig.begin_build(other, &[]).await.unwrap_err();
    assert_refused(
        &error,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
        Some("request_id"),
    );
    let refused = rig.begin_build(hanging(), &[]).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "BUILD_QUEUE_FULL", None);
    assert!(
        refused.message().contains("1 builds go on and 1 wait"),
        "{refused:?}"
    );
    // A place is free again as soon as one has ended.
    let request = v1::ListOperationsRequest::default();
    let listed = rig.operations().list_operations(request).await.unwrap();
    let builds = listed.into_inner().operations.into_iter();
    let builds: Vec<_> = builds
        .filter(|operation| operation.kind() == v1::operation::Kind::BuildImage)
        .collect();
    assert_eq!(builds.len(), 2, "{builds:?}");
    for build in builds {
        let operation = build.id;
        let request = v1::CancelOperationRequest { operation };
        rig.operations().cancel_operation(request).await.unwrap();
    }
    for answers in [first, joined, second] {
        let error = drain(answers).await.unwrap_err();
        assert_refused(&error, Code::Cancelled, "OPERATION_CANCELLED", None);
    }
    let free = async {
        loop {
            match rig.begin_build(hanging(), &[]).await {
                Ok(answers) => return answers,
                Err(error) => {
                    assert_refused(&error, Code::ResourceExhausted, "BUILD_QUEUE_FULL", None);
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let answers = tokio::time::timeout(PATIENCE, free).await.unwrap();
    drop(answers);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vms_of_builds_go_with_their_daemon() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let start = dockerfile("FROM web:1\nRUN [\"sleep\", \"1000\"]\n");
    let mut answers = rig.begin_build(start, &[]).await.unwrap();
    let reached = async {
        while !matches!(
            answers.message().await.unwrap().unwrap().message,
            Some(Told::Log(log)) if log.data.starts_with(b"RUN")
        ) {}
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    let gone = async {
        while rig.vm_count().await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_goes_out_whole_and_says_what_it_was() {
    use sha2::{Digest as _, Sha256};
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let (bytes, end) = rig.export_layout("web:1").await.unwrap();
    assert_eq!(usize::try_from(end.size_bytes).unwrap(), bytes.len());
    assert_eq!(end.sha256, format!("{:x}", Sha256::digest(&bytes)));
    let error = rig.export_layout("nothing:1").await.unwrap_err();
    assert_refused(&error, Code::NotFound, "IMAGE_NOT_FOUND", None);
    rig.stopped().await;
}
