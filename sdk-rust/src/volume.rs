//! Volumes: create, get, list, update, delete.

use std::collections::BTreeMap;
use std::future::IntoFuture;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;
use v1::volume_service_client::VolumeServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::operation::{IntoStep, Progress, Step, follow};
use crate::request::Request;
use crate::stream::{Pages, pages};

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;

/// Volumes.
#[derive(Debug, Clone)]
pub struct Volumes {
    client: Client,
}

impl Volumes {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn rpc(&self) -> VolumeServiceClient<tonic::transport::Channel> {
        VolumeServiceClient::new(self.client.channel())
    }

    /// Makes a volume. The creation goes on in the daemon if this is dropped.
    pub fn create(&self, name: impl Into<String>) -> CreateVolume {
        let request = v1::CreateVolumeRequest {
            name: name.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::CreateVolumeRequest::default()
        };
        CreateVolume {
            volumes: self.clone(),
            request,
            progress: Progress::none(),
        }
    }

    /// The volume with this id or name.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, volume: impl Into<String>) -> Result<v1::Volume> {
        const CALL: &str = "GetVolume";
        let request = v1::GetVolumeRequest {
            volume: volume.into(),
        };
        let call = || async { self.rpc().get_volume(request.clone()).await };
        present(self.client.repeat(CALL, call).await?.volume, CALL)
    }

    /// All volumes, newest first.
    #[must_use]
    pub fn list(&self) -> Pages<v1::Volume> {
        self.list_labelled(std::iter::empty::<(String, String)>())
    }

    /// The volumes that have all of these labels, newest first.
    pub fn list_labelled<K: Into<String>, V: Into<String>>(
        &self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Pages<v1::Volume> {
        let this = self.clone();
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        pages(move |page_token| {
            let (this, labels) = (this.clone(), labels.clone());
            async move {
                let request = v1::ListVolumesRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                    labels,
                };
                let call = || async { this.rpc().list_volumes(request.clone()).await };
                let page = this.client.repeat("ListVolumes", call).await?;
                Ok((page.volumes, page.next_page_token))
            }
        })
    }

    /// Changes a volume.
    pub fn update(&self, volume: impl Into<String>) -> UpdateVolume {
        let request = v1::UpdateVolumeRequest {
            volume: volume.into(),
            update_mask: Some(prost_types::FieldMask::default()),
            request_id: Uuid::new_v4().to_string(),
            ..v1::UpdateVolumeRequest::default()
        };
        UpdateVolume {
            volumes: self.clone(),
            request,
        }
    }

    /// Removes a volume that no VM names, with what is in it.
    pub fn delete(&self, volume: impl Into<String>) -> Request<()> {
        let (this, volume) = (self.clone(), volume.into());
        Request::new(|request_id| async move {
            let request = v1::DeleteVolumeRequest { volume, request_id };
            let call = || async { this.rpc().delete_volume(request.clone()).await };
            this.client.repeat("DeleteVolume", call).await.map(drop)
        })
    }
}

fn present(volume: Option<v1::Volume>, during: &'static str) -> Result<v1::Volume> {
    volume.ok_or(Error::Protocol {
        during,
        detail: "no volume",
    })
}

/// A creation, made when it is awaited. Repeated with the same request id when the connection breaks, so
/// that it makes one volume.
#[derive(Debug)]
#[must_use = "a volume is made when this is awaited"]
pub struct CreateVolume {
    volumes: Volumes,
    request: v1::CreateVolumeRequest,
    progress: Progress,
}

impl CreateVolume {
    /// With this label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.labels.insert(key.into(), value.into());
        self
    }

    /// Of this size, in MiB; 0 means 8192, or the seed's.
    pub const fn size_mib(mut self, mib: i64) -> Self {
        self.request.size_mib = mib;
        self
    }

    /// With the content of this volume, by id or name, which is not changed.
    pub fn seed(mut self, volume: impl Into<String>) -> Self {
        self.request.seed = volume.into();
        self
    }

    /// With this request id: joins a creation that has it.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.request.request_id = id.to_string();
        self
    }

    /// Calls back each time the operation has changed.
    pub fn progress(mut self, callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        self.progress = Progress::to(callback);
        self
    }

    async fn run(mut self) -> Result<v1::Volume> {
        const CALL: &str = "CreateVolume";
        let (volumes, request) = (&self.volumes, &self.request);
        let open = || async {
            let answer = volumes.rpc().create_volume(request.clone()).await;
            volumes.client.watched(answer, CALL)
        };
        follow(&volumes.client, CALL, &mut self.progress, open).await
    }
}

impl IntoFuture for CreateVolume {
    type Output = Result<v1::Volume>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl IntoStep<v1::Volume> for v1::CreateVolumeResponse {
    fn into_step(self) -> Option<Step<v1::Volume>> {
        use v1::create_volume_response::Message;
        Some(match self.message? {
            Message::Operation(operation) => Step::Progress(operation),
            Message::Volume(volume) => Step::Done(volume),
            Message::Heartbeat(_) => Step::Idle,
        })
    }
}

/// A change of a volume, made when it is awaited. What is not named stays.
#[derive(Debug)]
#[must_use = "a volume is changed when this is awaited"]
pub struct UpdateVolume {
    volumes: Volumes,
    request: v1::UpdateVolumeRequest,
}

impl UpdateVolume {
    fn named(mut self, field: &str) -> Self {
        let mask = self.request.update_mask.get_or_insert_default();
        if !mask.paths.iter().any(|path| path == field) {
            mask.paths.push(field.to_owned());
        }
        self
    }

    /// All labels anew.
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.request.labels = labels;
        self.named("labels")
    }

    /// The size in MiB; it can only grow, while no VM has the volume.
    pub fn size_mib(mut self, mib: i64) -> Self {
        self.request.size_mib = mib;
        self.named("size_mib")
    }

    /// Only if the volume's `etag` is still this.
    pub fn if_unchanged(mut self, etag: impl Into<String>) -> Self {
        self.request.etag = etag.into();
        self
    }

    async fn run(self) -> Result<v1::Volume> {
        const CALL: &str = "UpdateVolume";
        let (volumes, request) = (&self.volumes, &self.request);
        let call = || async { volumes.rpc().update_volume(request.clone()).await };
        present(volumes.client.repeat(CALL, call).await?.volume, CALL)
    }
}

impl IntoFuture for UpdateVolume {
    type Output = Result<v1::Volume>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}
