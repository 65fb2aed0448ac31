//! Puts an image together: a base image's layers, one more, and a configuration that says what was done.

use std::collections::BTreeSet;
use std::sync::Arc;

use banger_core::Digest;
use banger_core::image::{ImageConfig, Platform};
use banger_core::operation::Progress;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::layer::{LayerWriter, NewLayer};
use crate::document::{
    Descriptor, Document, DocumentError, Manifest, OCI_LAYER, ParsedConfig, to_oci_layer,
};
use crate::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::store::{BlobSource, BuiltImage, ImageStore, Plan, Region, StoreError};

/// What an image is to say of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDescription {
    /// What a guest honours.
    pub config: ImageConfig,
    /// Paths that a container would keep apart.
    pub volumes: BTreeSet<String>,
    /// What was done to the base, in order. At most one line changes files: all of it is one layer.
    pub history: Vec<HistoryLine>,
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The instruction.
    pub created_by: String,
    /// Whether it stands for no layer.
    pub empty_layer: bool,
}

impl ImageStore {
    /// A layer to be written, in this store's temporary directory. Blocks, briefly.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn layer_writer(&self) -> Result<LayerWriter, StoreError> {
        LayerWriter::new(self.tmp())
    }

    /// Whether an image has layers on which others can be put. A bundle has none. Blocks, briefly.
    ///
    /// # Errors
    /// When its documents cannot be read.
    pub fn has_layers(&self, manifest: Digest) -> Result<bool, StoreError> {
        match self.documents(manifest) {
            Ok(_) => Ok(true),
            Err(StoreError::NoLayers { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What an image asks of builds that begin with it (`ONBUILD`), in order. Blocks, briefly.
    ///
    /// # Errors
    /// When its documents cannot be read.
    pub fn triggers(&self, manifest: Digest) -> Result<Vec<String>, StoreError> {
        let config = match self.documents(manifest) {
            Ok((_, _, config)) => config,
            // A bundle keeps none.
            Err(StoreError::NoLayers { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let triggers = config.pointer("/config/OnBuild").and_then(Value::as_array);
        let text = |line: &Value| line.as_str().map(str::to_owned);
        Ok(triggers.into_iter().flatten().filter_map(text).collect())
    }

    /// The manifest and the configuration of an image with layers, as they came.
    pub(super) fn documents(
        &self,
        digest: Digest,
    ) -> Result<(Vec<u8>, Manifest, Vec<u8>), StoreError> {
        let bytes = self.read_document(digest, digest, MANIFEST_BYTES_MAX)?;
        match Document::parse(&bytes) {
            Ok(Document::Manifest(manifest)) => {
                let config =
                    self.read_document(digest, manifest.config.digest, CONFIG_BYTES_MAX)?;
                Ok((bytes, manifest, config))
            }
            Ok(Document::Index(_))
            | Err(DocumentError::NotAnImage { .. } | DocumentError::Malformed { .. }) => {
                Err(StoreError::NoLayers { digest })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an image of `base`'s layers and `layer`, and of `layer` alone where there is no base. Stages
    /// as of [`ImageStore::register`]. The result's `reference` is absent.
    ///
    /// # Errors
    /// What [`StoreError`] says; nothing but whole blobs is kept of a failed assembly.
    pub async fn assemble(
        &self,
        base: Option<Digest>,
        layer: Option<NewLayer>,
        description: &ImageDescription,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let platform = Platform::host();
        let (mut layers, mut config) = match base {
            Some(digest) => {
                let (_, manifest, config) = self.documents(digest)?;
                let config =
                    serde_json::from_slice(&config).map_err(|source| DocumentError::Malformed {
                        document: "configuration",
                        source,
                    })?;
                (
                    manifest.layers.into_iter().map(to_oci_layer).collect(),
                    config,
                )
            }
            None => (Vec::new(), json!({})),
        };
        let mut files = Vec::new();
        let mut diff_id = None;
        if let Some(layer) = &layer {
            let media_type = format!("{OCI_LAYER}+gzip");
            layers.push(Descriptor::new(&media_type, layer.digest, layer.size));
            let file = layer
                .file
                .reopen()
                .map_err(StoreError::io("open", layer.file.path()))?;
            files.push((layer.digest, Region::new(Arc::new(file), 0, layer.size)));
            diff_id = Some(layer.diff_id);
        }
        describe(&mut config, description, diff_id, layers.len(), &platform);
        let config = serde_json::to_vec(&config).expect("plain data serialises");
        ParsedConfig::parse(&config)?;
        let plan = Plan::around(layers, config, &platform)?;
        let built = self
            .build_files(plan, BlobSource::Files(files), progress, cancel)
            .await;
        drop(layer); // its temporary file goes with it
        built
    }
}

/// Writes what the image says of itself into a base's configuration; what is not known here stays.
fn describe(
    config: &mut Value,
    description: &ImageDescription,
    diff_id: Option<Digest>,
    layers: usize,
    platform: &Platform,
) {
    let root = object(config);
    // They speak of the base's own making.
    for stale in [
        "created",
        "id",
        "parent",
        "container",
        "container_config",
        "docker_version",
    ] {
        root.remove(stale);
    }
    root.insert("architecture".into(), json!(platform.architecture));
    root.insert("os".into(), json!(platform.os));
    process(
        object(root.entry("config").or_insert(json!({}))),
        description,
    );

    let rootfs = object(root.entry("rootfs").or_insert(json!({})));
    rootfs.insert("type".into(), json!("layers"));
    let diff_ids = array(rootfs.entry("diff_ids").or_insert(json!([])));
    diff_ids.extend(diff_id.map(|digest| json!(digest.to_string())));

    let history = array(root.entry("history").or_insert(json!([])));
    let is_layer = |line: &&Value| line.get("empty_layer") != Some(&Value::Bool(true));
    let told = history.iter().filter(is_layer).count();
    // A base that tells less than it has: each layer gets its line, so that the others stay right.
    let own = usize::from(diff_id.is_some());
    let missing = (layers - own.min(layers)).saturating_sub(told);
    history.extend((0..missing).map(|_| json!({ "created_by": "" })));
    history.extend(description.history.iter().map(|line| {
        if line.empty_layer {
            json!({ "created_by": line.created_by, "empty_layer": true })
        } else {
            json!({ "created_by": line.created_by })
        }
    }));
}

fn process(process: &mut Map<String, Value>, description: &ImageDescription) {
    let config = &description.config;
    let keys = |keys: &BTreeSet<String>| -> Value {
        keys.iter()
            .map(|key| (key.clone(), json!({})))
            .collect::<Map<_, _>>()
            .into()
    };
    let env: Vec<String> = config
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut volumes = description.volumes.clone();
    if let Some(Value::Object(known)) = process.get("Volumes") {
        volumes.extend(known.keys().cloned());
    }
    // The triggers of a base were for this build, and were not run.
    process.remove("OnBuild");
    process.remove("Image");
    for (key, value, is_empty) in [
        ("Env", json!(env), env.is_empty()),
        ("User", json!(config.user), config.user.is_empty()),
        (
            "WorkingDir",
            json!(config.working_dir),
            config.working_dir.is_empty(),
        ),
        (
            "Entrypoint",
            json!(config.entrypoint),
            config.entrypoint.is_empty(),
        ),
        ("Cmd", json!(config.cmd), config.cmd.is_empty()),
        ("Labels", json!(config.labels), config.labels.is_empty()),
        (
            "StopSignal",
            json!(config.stop_signal),
            config.stop_signal.is_empty(),
        ),
        (
            "ExposedPorts",
            keys(&config.exposed_ports),
            config.exposed_ports.is_empty(),
        ),
        ("Volumes", keys(&volumes), volumes.is_empty()),
    ] {
        if is_empty {
            process.remove(key);
        } else {
            process.insert(key.into(), value);
        }
    }
}

/// The object at `value`, which becomes one where it is none.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made above")
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("made above")
}
