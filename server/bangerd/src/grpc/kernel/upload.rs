//! Kernels that callers stream in.

use banger_app::App;
use banger_app::kernel::ImportSource;
use banger_app::upload::{Upload, UploadKind, Uploaded};
use banger_proto::v1;
use banger_proto::v1::import_kernel_request::Message;
use bytes::Bytes;
use tonic::{Status, Streaming};

use crate::grpc::convert::field;
use crate::grpc::refused;
use crate::grpc::request::RequestError;

/// Bytes of the name a caller gives an uploaded file: what file systems allow.
const FILE_NAME_BYTES_MAX: usize = 255;

/// An upload under way.
struct Receiving<'a> {
    app: &'a App,
    kernel: Upload,
    is_empty: bool,
    modules: Option<Upload>,
    config: Option<Upload>,
}

/// Takes a kernel in, and what belongs to it, which comes after it.
pub(super) async fn receive(
    app: &App,
    mut messages: Streaming<v1::ImportKernelRequest>,
    file_name: String,
) -> Result<ImportSource, Status> {
    let label = checked(file_name)?;
    let mut receiving = Receiving {
        app,
        kernel: begin(app, UploadKind::Kernel).await?,
        is_empty: true,
        modules: None,
        config: None,
    };
    while let Some(message) = receiving.next(&mut messages).await? {
        match message.message {
            Some(Message::KernelChunk(bytes)) => receiving.kernel(bytes).await?,
            Some(Message::ModulesChunk(bytes)) => {
                receiving.beside("modules_chunk", bytes).await?;
            }
            Some(Message::ConfigChunk(bytes)) => {
                receiving.beside("config_chunk", bytes).await?;
            }
            Some(Message::Start(_)) => {
                return Err(RequestError::invalid("start", "comes a second time").into());
            }
            None => return Err(RequestError::missing("message").into()),
        }
    }
    receiving.finish(label).await
}

fn checked(file_name: String) -> Result<String, RequestError> {
    let field = "start.file_name";
    if file_name.len() > FILE_NAME_BYTES_MAX {
        let problem = format!("has more than {FILE_NAME_BYTES_MAX} bytes");
        return Err(RequestError::invalid(field, problem));
    }
    if file_name.chars().any(char::is_control) {
        return Err(RequestError::invalid(field, "has control characters"));
    }
    Ok(file_name)
}

async fn begin(app: &App, kind: UploadKind) -> Result<Upload, Status> {
    let upload = app.uploads.begin(kind, app.caller());
    upload.await.map_err(refused)
}

impl Receiving<'_> {
    /// All that belongs to a kernel comes in one upload's time.
    async fn next(
        &self,
        messages: &mut Streaming<v1::ImportKernelRequest>,
    ) -> Result<Option<v1::ImportKernelRequest>, Status> {
        self.kernel
            .next(messages.message())
            .await
            .map_err(refused)?
    }

    async fn kernel(&mut self, bytes: Bytes) -> Result<(), Status> {
        if self.modules.is_some() || self.config.is_some() {
            let problem = "comes after the modules or the configuration";
            return Err(RequestError::invalid("kernel_chunk", problem).into());
        }
        self.is_empty &= bytes.is_empty();
        let bytes = field::chunk("kernel_chunk", bytes)?;
        self.kernel.write(bytes).await.map_err(refused)
    }

    async fn beside(&mut self, field: &'static str, bytes: Bytes) -> Result<(), Status> {
        if self.is_empty {
            return Err(RequestError::invalid(field, "comes before the kernel").into());
        }
        let bytes = field::chunk(field, bytes)?;
        let (part, kind) = match field {
            "modules_chunk" => (&mut self.modules, UploadKind::Modules),
            _ => (&mut self.config, UploadKind::KernelConfig),
        };
        let upload = match part {
            Some(upload) => upload,
            None => part.insert(begin(self.app, kind).await?),
        };
        upload.write(bytes).await.map_err(refused)
    }

    async fn finish(self, label: String) -> Result<ImportSource, Status> {
        if self.is_empty {
            return Err(RequestError::missing("kernel_chunk").into());
        }
        Ok(ImportSource::Upload {
            kernel: self.kernel.finish().await.map_err(refused)?,
            modules: finished(self.modules).await?,
            config: finished(self.config).await?,
            label,
        })
    }
}

async fn finished(upload: Option<Upload>) -> Result<Option<Uploaded>, Status> {
    match upload {
        Some(upload) => Ok(Some(upload.finish().await.map_err(refused)?)),
        None => Ok(None),
    }
}
