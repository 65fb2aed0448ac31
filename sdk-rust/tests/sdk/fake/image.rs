//! Images and kernels.

use std::sync::Arc;

use banger_proto::v1;
use futures::{StreamExt, stream};
use tonic::{Code, Request, Response, Status, Streaming};
use v1::image_service_server::ImageService;
use v1::kernel_service_server::KernelService;

use super::vm::{page, stage};
use super::{Answer, Daemon, State, refuse, time};

impl State {
    fn image_named(&self, reference: &str, cmd: &[&str]) -> v1::Image {
        let layer = |n: i64| v1::ImageLayer {
            digest: format!("sha256:{n:064x}"),
            size_bytes: n * 1000,
        };
        let image = v1::Image {
            id: self.id(),
            references: vec![reference.to_owned()],
            digest: format!("sha256:{:064x}", 7),
            platform: "linux/amd64".into(),
            config: Some(v1::ImageConfig {
                env: vec!["PATH=/usr/bin:/bin".into()],
                cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
                ..v1::ImageConfig::default()
            }),
            layers: vec![layer(1), layer(2)],
            rootfs_size_bytes: 1 << 30,
            rootfs_allocated_bytes: 100 << 20,
            create_time: time(0),
            origin: "registry".into(),
            kernel: String::new(),
        };
        self.images
            .lock()
            .unwrap()
            .insert(image.id.clone(), image.clone());
        image
    }

    fn import_operation(
        &self,
        kind: v1::operation::Kind,
        target: &str,
        bytes: i64,
    ) -> v1::Operation {
        let operation = v1::Operation {
            id: self.id(),
            kind: kind.into(),
            target: target.into(),
            state: v1::operation::State::Running.into(),
            stages: vec![
                stage("upload", "", 0, Some(1), bytes),
                stage("convert", "", 1, None, 0),
            ],
            create_time: time(0),
            ..v1::Operation::default()
        };
        self.operations
            .lock()
            .unwrap()
            .insert(operation.id.clone(), operation.clone());
        operation
    }

    fn find_image(&self, name: &str) -> Result<v1::Image, Status> {
        if let Some(of) = name.strip_prefix("image-of") {
            let cmd: &[&str] = if of == "bare" {
                &[]
            } else {
                &["echo", "the", "image"]
            };
            return Ok(self.image_named(of, cmd));
        }
        let images = self.images.lock().unwrap();
        let found = images
            .values()
            .find(|i| i.id == name || i.references.iter().any(|r| r == name));
        let message = format!("there is no image `{name}`");
        found.cloned().ok_or_else(|| {
            refuse(
                Code::NotFound,
                "IMAGE_NOT_FOUND",
                &message,
                &[("image", name)],
            )
        })
    }

    fn find_kernel(&self, name: &str) -> Result<v1::Kernel, Status> {
        let kernels = self.kernels.lock().unwrap();
        let found = kernels
            .values()
            .find(|kernel| kernel.id == name || kernel.name == name);
        let message = format!("there is no kernel `{name}`");
        found.cloned().ok_or_else(|| {
            refuse(
                Code::NotFound,
                "KERNEL_NOT_FOUND",
                &message,
                &[("kernel", name)],
            )
        })
    }
}

#[tonic::async_trait]
impl ImageService for Daemon {
    type PullImageStream = Answer<v1::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        use v1::pull_image_response::Message;
        let request = request.into_inner();
        self.call(format!(
            "PullImage {} {}",
            request.reference, request.request_id
        ));
        if request.reference == "private"
            && request.auth.as_ref().is_none_or(|a| a.password != "secret")
        {
            let remedy = ("remedy", "Give --username and --password-stdin.");
            let message = "the registry wants credentials";
            return Err(refuse(
                Code::Unauthenticated,
                "REGISTRY_UNAUTHENTICATED",
                message,
                &[remedy],
            ));
        }
        let operation = self.import_operation(
            v1::operation::Kind::PullImage,
            &request.reference,
            5_000_000,
        );
        let begun = Message::Operation(operation);
        let state = Arc::clone(&self.0);
        let rest = stream::once(async move {
            tokio::time::sleep(super::HEARTBEAT).await;
            Message::Image(state.image_named(&request.reference, &["sh"]))
        });
        let stream = stream::iter([begun]).chain(rest);
        let wrap = |message| {
            Ok(v1::PullImageResponse {
                message: Some(message),
            })
        };
        Ok(Response::new(stream.map(wrap).boxed()))
    }

    type RegisterImageStream = Answer<v1::RegisterImageResponse>;

    async fn register_image(
        &self,
        request: Request<Streaming<v1::RegisterImageRequest>>,
    ) -> Result<Response<Self::RegisterImageStream>, Status> {
        use v1::register_image_request::Message as Sent;
        use v1::register_image_response::Message;
        let mut sent = request.into_inner();
        let mut start = v1::RegisterImageStart::default();
        let mut archive = Vec::new();
        while let Some(message) = sent.message().await? {
            match message.message {
                Some(Sent::Start(begin)) => start = begin,
                Some(Sent::Chunk(chunk)) => archive.extend_from_slice(&chunk),
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        let kernel = match start.kernel.as_str() {
            "" => String::new(),
            named => format!(" {named}"),
        };
        self.call(format!(
            "RegisterImage {} {}{kernel}",
            start.reference, start.format
        ));
        let length = i64::try_from(archive.len()).unwrap();
        self.uploads
            .lock()
            .unwrap()
            .insert(start.reference.clone(), archive);
        let kind = v1::operation::Kind::RegisterImage;
        let operation = self.import_operation(kind, &start.reference, length);
        let messages = [
            Message::Operation(operation),
            Message::Heartbeat(v1::Heartbeat {}),
            Message::Image(self.image_named(&start.reference, &["sh"])),
        ];
        let wrap = |message| {
            Ok(v1::RegisterImageResponse {
                message: Some(message),
            })
        };
        Ok(Response::new(stream::iter(messages.map(wrap)).boxed()))
    }

    async fn get_image(
        &self,
        request: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::GetImageResponse>, Status> {
        let image = Some(self.find_image(&request.into_inner().image)?);
        Ok(Response::new(v1::GetImageResponse { image }))
    }

    type BuildImageStream = Answer<v1::BuildImageResponse>;

    async fn build_image(
        &self,
        _: Request<Streaming<v1::BuildImageRequest>>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        Err(unimplemented())
    }

    type ExportBundleStream = Answer<v1::ExportBundleResponse>;

    async fn export_bundle(
        &self,
        _: Request<v1::ExportBundleRequest>,
    ) -> Result<Response<Self::ExportBundleStream>, Status> {
        Err(unimplemented())
    }

    type ExportOciLayoutStream = Answer<v1::ExportOciLayoutResponse>;

    async fn export_oci_layout(
        &self,
        _: Request<v1::ExportOciLayoutRequest>,
    ) -> Result<Response<Self::ExportOciLayoutStream>, Status> {
        Err(unimplemented())
    }

    async fn tag_image(
        &self,
        request: Request<v1::TagImageRequest>,
    ) -> Result<Response<v1::TagImageResponse>, Status> {
        let request = request.into_inner();
        let mut image = self.find_image(&request.image)?;
        image.references.push(request.reference);
        self.images
            .lock()
            .unwrap()
            .insert(image.id.clone(), image.clone());
        Ok(Response::new(v1::TagImageResponse { image: Some(image) }))
    }

    async fn prune_images(
        &self,
        _: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneImagesResponse>, Status> {
        Err(unimplemented())
    }

    async fn list_image_usage(
        &self,
        _: Request<v1::ListImageUsageRequest>,
    ) -> Result<Response<v1::ListImageUsageResponse>, Status> {
        Err(unimplemented())
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let all: Vec<_> = self.images.lock().unwrap().values().cloned().collect();
        let (images, next_page_token) = page(&all, &request.into_inner().page_token);
        Ok(Response::new(v1::ListImagesResponse {
            images,
            next_page_token,
        }))
    }

    async fn delete_image(
        &self,
        request: Request<v1::DeleteImageRequest>,
    ) -> Result<Response<v1::DeleteImageResponse>, Status> {
        let image = self.find_image(&request.into_inner().image)?;
        self.images.lock().unwrap().remove(&image.id);
        Ok(Response::new(v1::DeleteImageResponse {
            removed_references: image.references,
            image_removed: true,
            freed_bytes: image.rootfs_allocated_bytes,
            deferred: false,
        }))
    }
}

/// What no test of the SDK asks of this daemon.
fn unimplemented() -> Status {
    Status::unimplemented("not by the daemon of the tests")
}

#[tonic::async_trait]
impl KernelService for Daemon {
    type ImportKernelStream = Answer<v1::ImportKernelResponse>;

    async fn import_kernel(
        &self,
        request: Request<Streaming<v1::ImportKernelRequest>>,
    ) -> Result<Response<Self::ImportKernelStream>, Status> {
        use v1::import_kernel_request::Message as Sent;
        use v1::import_kernel_response::Message;
        let mut sent = request.into_inner();
        let mut start = v1::ImportKernelStart::default();
        let (mut kernel, mut modules) = (Vec::new(), Vec::new());
        while let Some(message) = sent.message().await? {
            match message.message {
                Some(Sent::Start(begin)) => start = begin,
                Some(Sent::KernelChunk(chunk)) => kernel.extend_from_slice(&chunk),
                Some(Sent::ModulesChunk(chunk)) => modules.extend_from_slice(&chunk),
                Some(Sent::ConfigChunk(_)) => return Err(unimplemented()),
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        self.call(format!(
            "ImportKernel {} {}",
            start.name, start.debian_package
        ));
        let name = if start.name.is_empty() {
            "6-1-0".to_owned()
        } else {
            start.name.clone()
        };
        let size_bytes = i64::try_from(kernel.len()).unwrap();
        self.uploads.lock().unwrap().insert("kernel".into(), kernel);
        self.uploads
            .lock()
            .unwrap()
            .insert("modules".into(), modules);
        let made = v1::Kernel {
            id: self.id(),
            name: name.clone(),
            release: "6.1.0".into(),
            digest: format!("sha256:{:064x}", 9),
            size_bytes,
            modules: vec!["virtio_blk".into()],
            origin: if start.debian_package.is_empty() {
                "a file".into()
            } else {
                start.debian_package
            },
            is_default: start.make_default,
            create_time: time(0),
            inspection: None,
        };
        self.kernels
            .lock()
            .unwrap()
            .insert(made.id.clone(), made.clone());
        let operation = self.import_operation(v1::operation::Kind::ImportKernel, &name, size_bytes);
        let messages = [Message::Operation(operation), Message::Kernel(made)];
        let wrap = |message| {
            Ok(v1::ImportKernelResponse {
                message: Some(message),
            })
        };
        Ok(Response::new(stream::iter(messages.map(wrap)).boxed()))
    }

    type PullKernelStream = Answer<v1::PullKernelResponse>;

    async fn pull_kernel(
        &self,
        _: Request<v1::PullKernelRequest>,
    ) -> Result<Response<Self::PullKernelStream>, Status> {
        Err(unimplemented())
    }

    type ExportKernelStream = Answer<v1::ExportKernelResponse>;

    async fn export_kernel(
        &self,
        _: Request<v1::ExportKernelRequest>,
    ) -> Result<Response<Self::ExportKernelStream>, Status> {
        Err(unimplemented())
    }

    async fn get_kernel(
        &self,
        request: Request<v1::GetKernelRequest>,
    ) -> Result<Response<v1::GetKernelResponse>, Status> {
        let kernel = Some(self.find_kernel(&request.into_inner().kernel)?);
        Ok(Response::new(v1::GetKernelResponse { kernel }))
    }

    async fn list_kernels(
        &self,
        request: Request<v1::ListKernelsRequest>,
    ) -> Result<Response<v1::ListKernelsResponse>, Status> {
        let all: Vec<_> = self.kernels.lock().unwrap().values().cloned().collect();
        let (kernels, next_page_token) = page(&all, &request.into_inner().page_token);
        Ok(Response::new(v1::ListKernelsResponse {
            kernels,
            next_page_token,
        }))
    }

    async fn delete_kernel(
        &self,
        request: Request<v1::DeleteKernelRequest>,
    ) -> Result<Response<v1::DeleteKernelResponse>, Status> {
        let kernel = self.find_kernel(&request.into_inner().kernel)?;
        self.kernels.lock().unwrap().remove(&kernel.id);
        Ok(Response::new(v1::DeleteKernelResponse {}))
    }
}
