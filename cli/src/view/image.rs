//! Images.

use std::collections::BTreeMap;

use banger_sdk::types;
use jiff::Timestamp;
use serde::Serialize;

use super::{age, bytes, timestamp};
use crate::output::Row;

/// The characters of a digest in a table.
const SHORT_DIGEST: usize = "sha256:".len() + 12;

/// An image.
#[derive(Debug, Serialize)]
pub(crate) struct Image {
    id: String,
    references: Vec<String>,
    digest: String,
    platform: String,
    config: Config,
    layers: Vec<Layer>,
    rootfs_size_bytes: i64,
    rootfs_allocated_bytes: i64,
    origin: String,
    kernel: String,
    create_time: Option<Timestamp>,
}

/// What a guest honours.
#[derive(Debug, Serialize)]
struct Config {
    env: Vec<String>,
    user: String,
    working_dir: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    exposed_ports: Vec<String>,
    labels: BTreeMap<String, String>,
    stop_signal: String,
}

/// A layer.
#[derive(Debug, Serialize)]
struct Layer {
    digest: String,
    size_bytes: i64,
}

impl From<types::Image> for Image {
    fn from(image: types::Image) -> Self {
        let config = image.config.unwrap_or_default();
        let layer = |layer: types::ImageLayer| Layer {
            digest: layer.digest,
            size_bytes: layer.size_bytes,
        };
        Self {
            id: image.id,
            references: image.references,
            digest: image.digest,
            platform: image.platform,
            config: Config {
                env: config.env,
                user: config.user,
                working_dir: config.working_dir,
                entrypoint: config.entrypoint,
                cmd: config.cmd,
                exposed_ports: config.exposed_ports,
                labels: config.labels.into_iter().collect(),
                stop_signal: config.stop_signal,
            },
            layers: image.layers.into_iter().map(layer).collect(),
            rootfs_size_bytes: image.rootfs_size_bytes,
            rootfs_allocated_bytes: image.rootfs_allocated_bytes,
            origin: image.origin,
            kernel: image.kernel,
            create_time: timestamp(image.create_time),
        }
    }
}

impl Image {
    /// The image, as it was just named: that reference comes first.
    pub(crate) fn named(mut self, reference: &str) -> Self {
        let ends_so =
            |known: &String| known == reference || known.ends_with(&format!("/{reference}"));
        if let Some(place) = self.references.iter().position(ends_so) {
            self.references[..=place].rotate_right(1);
        }
        self
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(SHORT_DIGEST).collect()
}

impl Row for Image {
    const HEADINGS: &'static [&'static str] =
        &["REFERENCE", "DIGEST", "PLATFORM", "SIZE", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.references.first().cloned().unwrap_or_default(),
            short(&self.digest),
            self.platform.clone(),
            bytes(self.rootfs_allocated_bytes),
            age(self.create_time),
            self.id.clone(),
        ]
    }

    fn name(&self) -> String {
        self.references.first().unwrap_or(&self.id).clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let layer =
            |layer: &Layer| format!("{}  {}", short(&layer.digest), bytes(layer.size_bytes));
        let layers = self.layers.iter().map(layer).collect::<Vec<_>>().join("\n");
        let disk = (
            bytes(self.rootfs_size_bytes),
            bytes(self.rootfs_allocated_bytes),
        );
        vec![
            ("References", self.references.join("\n")),
            ("Id", self.id.clone()),
            ("Digest", self.digest.clone()),
            ("Platform", self.platform.clone()),
            ("Disk", format!("{}, {} used", disk.0, disk.1)),
            ("Origin", self.origin.clone()),
            ("Kernel", self.kernel.clone()),
            ("Created", age(self.create_time)),
            ("Entrypoint", self.config.entrypoint.join(" ")),
            ("Cmd", self.config.cmd.join(" ")),
            ("User", self.config.user.clone()),
            ("Directory", self.config.working_dir.clone()),
            ("Environment", self.config.env.join("\n")),
            ("Ports", self.config.exposed_ports.join(" ")),
            ("Layers", layers),
        ]
    }
}
