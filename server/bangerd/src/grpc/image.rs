//! `ImageService`.

use banger_app::build::CacheUsage;
use banger_app::image::ExportRequest;
use banger_app::upload::{Upload, UploadKind, Uploaded};
use banger_app::{App, AppError};
use banger_core::Role;
use banger_core::image::TakeOver;
use banger_proto::v1;
use banger_proto::v1::image_service_server::ImageService;
use banger_proto::v1::register_image_request::Message;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{field, image, page};
use super::export::{self, ExportMessage};
use super::request::{self, RequestError};
use super::stream::{self, Answers, OperationMessage};
use super::{Api, access, build, refused};

#[tonic::async_trait]
impl ImageService for Api {
    type PullImageStream = Answers<v1::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let mut request = request.into_inner();
        if request.replace || !request.kernel.is_empty() {
            // It changes what others get by a name, or what they boot.
            let what = "PullImage with `replace` or `kernel`";
            access::require(self.app.role(), Role::Admin, what)?;
        }
        // So does a name that is there and comes to mean other content.
        let take_over = match self.app.role() >= Role::Operator {
            true => TakeOver::Allowed,
            false => TakeOver::Refused,
        };
        let id = std::mem::take(&mut request.request_id);
        // The key is stored, and is a digest of the request: not of a password, which could be guessed from it.
        let auth = request.auth.take();
        let key = request::key("banger.v1.ImageService/PullImage", &id, &request)?;
        request.auth = auth;
        let pull = image::pull(request, self.app.caller().clone(), take_over)?;
        let images = self.app.images.clone();
        let begun = async move { images.pull(pull, key.as_ref()).await };
        let operation = request::to_its_end(&self.app, begun).await?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    type RegisterImageStream = Answers<v1::RegisterImageResponse>;

    async fn register_image(
        &self,
        request: Request<Streaming<v1::RegisterImageRequest>>,
    ) -> Result<Response<Self::RegisterImageStream>, Status> {
        let mut messages = request.into_inner();
        let Some(Message::Start(mut start)) = stream::first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let id = std::mem::take(&mut start.request_id);
        let key = request::key("banger.v1.ImageService/RegisterImage", &id, &start)?;
        let start = image::register(start)?;
        let archive = receive(
            self.app
                .uploads
                .begin(UploadKind::Image, self.app.caller())
                .await
                .map_err(refused)?,
            messages,
        )
        .await?;
        let (images, register) = (self.app.images.clone(), start.with(archive));
        let begun = async move { images.register(register, key.as_ref()).await };
        let operation = request::to_its_end(&self.app, begun).await?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    type BuildImageStream = Answers<v1::BuildImageResponse>;

    async fn build_image(
        &self,
        request: Request<Streaming<v1::BuildImageRequest>>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        use v1::build_image_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(mut start)) = stream::first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let id = std::mem::take(&mut start.request_id);
        // As with a pull: the key is no digest of a password.
        let auths = std::mem::take(&mut start.auths);
        let key = request::key("banger.v1.ImageService/BuildImage", &id, &start)?;
        let start = build::Start::parse(start)?.logins(auths)?;
        // A mistake in the recipe is told before the context is taken in.
        start.kind.check().map_err(refused)?;
        let begun = self.app.builds.begun(key.as_ref()).await.map_err(refused)?;
        if let Some(begun) = begun {
            let answers = build::join(&self.app, &self.drain, begun, messages).await?;
            return Ok(Response::new(answers));
        }
        let place = self.app.builds.reserve().map_err(refused)?;
        let uploads = &self.app.uploads;
        let upload = uploads.begin(UploadKind::Context, self.app.caller());
        let upload = upload.await;
        let context = build::receive(upload.map_err(refused)?, messages).await?;
        let (builds, build) = (self.app.builds.clone(), start.with(context, place));
        let begun = async move { builds.build(build, key.as_ref()).await };
        let (operation, log) = request::to_its_end(&self.app, begun).await?;
        let answers = build::follow(&self.app, &self.drain, operation, log).await?;
        Ok(Response::new(answers))
    }

    type ExportBundleStream = Answers<v1::ExportBundleResponse>;

    async fn export_bundle(
        &self,
        request: Request<v1::ExportBundleRequest>,
    ) -> Result<Response<Self::ExportBundleStream>, Status> {
        let request = request.into_inner();
        field::named("image", &request.image)?;
        let request = ExportRequest {
            image: request.image,
            name: request.name,
            version: request.version,
            kernel: request.kernel,
        };
        let export = self.app.images.export_bundle(request, self.app.caller());
        let export = export.await;
        Ok(Response::new(export::parts(
            export.map_err(refused)?,
            &self.drain,
        )))
    }

    type ExportOciLayoutStream = Answers<v1::ExportOciLayoutResponse>;

    async fn export_oci_layout(
        &self,
        request: Request<v1::ExportOciLayoutRequest>,
    ) -> Result<Response<Self::ExportOciLayoutStream>, Status> {
        let named = field::named("image", &request.get_ref().image)?;
        let export = self.app.images.export_oci_layout(named, self.app.caller());
        let export = export.await;
        Ok(Response::new(export::parts(
            export.map_err(refused)?,
            &self.drain,
        )))
    }

    async fn tag_image(
        &self,
        request: Request<v1::TagImageRequest>,
    ) -> Result<Response<v1::TagImageResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.ImageService/TagImage", &id, &request)?;
        let tag = image::tag(request)?;
        let images = self.app.images.clone();
        let work = async move {
            let tagged = images
                .tag(&tag.image, &tag.reference, tag.take_over)
                .await?;
            Ok(v1::TagImageResponse {
                image: Some(image::image(&tagged)),
            })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn prune_images(
        &self,
        request: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneImagesResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.ImageService/PruneImages", &id, &request)?;
        let prune = image::prune(&request)?;
        let app = self.app.clone();
        let (wanted, dry_run) = (request.build_cache, request.dry_run);
        let work = async move {
            let pruned = app.images.prune(prune).await?;
            let steps = match wanted {
                true => app.builds.prune_cache(dry_run).await?,
                false => CacheUsage::default(),
            };
            Ok(image::pruned(&pruned, steps))
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn list_image_usage(
        &self,
        request: Request<v1::ListImageUsageRequest>,
    ) -> Result<Response<v1::ListImageUsageResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let (found, total) = self
            .app
            .images
            .usage(wanted.size, wanted.before, self.app.scope())
            .await
            .map_err(refused)?;
        let token = page::next(&found.items, found.has_more, |item| {
            item.image.id.to_string()
        });
        let mut usages = image::usages(&found.items, &total, token);
        let kept = self.app.builds.cache_usage().await.map_err(refused)?;
        usages.build_cache_bytes = field::int(kept.bytes);
        Ok(Response::new(usages))
    }

    async fn get_image(
        &self,
        request: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::GetImageResponse>, Status> {
        let found = self
            .app
            .images
            .get(field::named("image", &request.get_ref().image)?)
            .await
            .map_err(refused)?;
        Ok(Response::new(v1::GetImageResponse {
            image: Some(image::image(&found)),
        }))
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let found = self
            .app
            .images
            .list(wanted.size, wanted.before)
            .await
            .map_err(refused)?;
        Ok(Response::new(v1::ListImagesResponse {
            images: found.items.iter().map(image::image).collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| item.id.to_string()),
        }))
    }

    async fn delete_image(
        &self,
        request: Request<v1::DeleteImageRequest>,
    ) -> Result<Response<v1::DeleteImageResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.ImageService/DeleteImage", &id, &request)?;
        let named = field::named("image", &request.image)?.to_owned();
        let images = self.app.images.clone();
        let work = async move { images.delete(&named).await.map(image::removed) };
        self.once.answer(&self.app, key, work).await
    }
}

/// Takes an archive in. The end of the stream is its end; a stream that breaks off leaves nothing.
async fn receive(
    mut upload: Upload,
    mut messages: Streaming<v1::RegisterImageRequest>,
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

impl OperationMessage for v1::PullImageResponse {
    fn operation(operation: v1::Operation) -> Self {
        Self {
            message: Some(v1::pull_image_response::Message::Operation(operation)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(v1::pull_image_response::Message::Heartbeat(
                v1::Heartbeat {},
            )),
        }
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = image::image(&app.images.get(target).await?);
        Ok(Self {
            message: Some(v1::pull_image_response::Message::Image(found)),
        })
    }
}

impl OperationMessage for v1::RegisterImageResponse {
    fn operation(operation: v1::Operation) -> Self {
        Self {
            message: Some(v1::register_image_response::Message::Operation(operation)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(v1::register_image_response::Message::Heartbeat(
                v1::Heartbeat {},
            )),
        }
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = image::image(&app.images.get(target).await?);
        Ok(Self {
            message: Some(v1::register_image_response::Message::Image(found)),
        })
    }
}

impl ExportMessage for v1::ExportBundleResponse {
    fn start(start: v1::ExportStart) -> Self {
        Self {
            message: Some(v1::export_bundle_response::Message::Start(start)),
        }
    }

    fn chunk(bytes: bytes::Bytes) -> Self {
        Self {
            message: Some(v1::export_bundle_response::Message::Chunk(bytes)),
        }
    }

    fn end(end: v1::ExportEnd) -> Self {
        Self {
            message: Some(v1::export_bundle_response::Message::End(end)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(v1::export_bundle_response::Message::Heartbeat(
                v1::Heartbeat {},
            )),
        }
    }
}
