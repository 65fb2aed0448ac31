//! What images take on the host, and what pruning freed.

use banger_sdk::types;
use serde::Serialize;

use super::{Image, bytes};
use crate::failure::Failure;
use crate::output::{self, Printer, Row};

/// What all images take.
#[derive(Debug, Serialize)]
pub(crate) struct ImagesUsage {
    images: Vec<ImageUsage>,
    rootfs_bytes: i64,
    blob_bytes: i64,
    unreferenced_bytes: i64,
    build_cache_bytes: i64,
}

/// What one image takes.
#[derive(Debug, Serialize)]
struct ImageUsage {
    id: String,
    references: Vec<String>,
    rootfs_bytes: i64,
    blob_bytes: i64,
    shared_bytes: i64,
    reclaimable_bytes: i64,
    shared_with: Vec<String>,
    vms: Vec<String>,
}

impl From<banger_sdk::ImagesUsage> for ImagesUsage {
    fn from(usage: banger_sdk::ImagesUsage) -> Self {
        let image = |image: types::ImageUsage| ImageUsage {
            id: image.image,
            references: image.references,
            rootfs_bytes: image.rootfs_bytes,
            blob_bytes: image.blob_bytes,
            shared_bytes: image.shared_bytes,
            reclaimable_bytes: image.reclaimable_bytes,
            shared_with: image.shared_with,
            vms: image.vms,
        };
        Self {
            images: usage.images.into_iter().map(image).collect(),
            rootfs_bytes: usage.rootfs_bytes,
            blob_bytes: usage.blob_bytes,
            unreferenced_bytes: usage.unreferenced_bytes,
            build_cache_bytes: usage.build_cache_bytes,
        }
    }
}

impl ImageUsage {
    fn name(&self) -> String {
        self.references.first().unwrap_or(&self.id).clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            bytes(self.rootfs_bytes),
            bytes(self.blob_bytes),
            bytes(self.shared_bytes),
            match self.vms.is_empty() {
                true => bytes(self.reclaimable_bytes),
                false => format!("{} (in use)", bytes(self.reclaimable_bytes)),
            },
            self.vms.join(" "),
        ]
    }
}

impl ImagesUsage {
    /// Prints each image's line, then the totals.
    pub(crate) fn print(&self, printer: Printer) -> Result<u8, Failure> {
        if printer.is_quiet() {
            output::lines(self.images.iter().map(ImageUsage::name))?;
        } else if printer.is_json() {
            output::json(self)?;
        } else {
            let headings = [
                "REFERENCE",
                "DISK",
                "BLOBS",
                "SHARED",
                "REMOVING FREES",
                "VMS",
            ];
            output::table(&headings, self.images.iter().map(ImageUsage::cells))?;
            output::lines([String::new()])?;
            output::table(&[], self.totals().into_iter())?;
        }
        Ok(0)
    }

    fn totals(&self) -> [Vec<String>; 4] {
        [
            ("Base disks:", self.rootfs_bytes),
            ("Blobs:", self.blob_bytes),
            ("Needed by no image:", self.unreferenced_bytes),
            ("Steps kept of builds:", self.build_cache_bytes),
        ]
        .map(|(what, count)| vec![what.to_owned(), bytes(count)])
    }
}

/// What pruning removed, or would remove.
#[derive(Debug, Serialize)]
pub(crate) struct Pruned {
    dry_run: bool,
    images: Vec<Image>,
    removed_files: i64,
    removed_build_steps: i64,
    freed_bytes: i64,
    deferred: bool,
}

impl Pruned {
    pub(crate) fn new(pruned: types::PruneImagesResponse, dry_run: bool) -> Self {
        Self {
            dry_run,
            images: pruned.images.into_iter().map(Image::from).collect(),
            removed_files: pruned.removed_files,
            removed_build_steps: pruned.removed_build_steps,
            freed_bytes: pruned.freed_bytes,
            deferred: pruned.deferred,
        }
    }
}

impl Row for Pruned {
    const HEADINGS: &'static [&'static str] = &["IMAGES", "FILES", "BUILD STEPS", "FREED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.images.len().to_string(),
            self.removed_files.to_string(),
            self.removed_build_steps.to_string(),
            bytes(self.freed_bytes),
        ]
    }

    fn name(&self) -> String {
        self.images
            .iter()
            .map(Row::name)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let freed = match self.dry_run {
            true => "Would free",
            false => "Freed",
        };
        let mut details = vec![
            ("Images", self.name()),
            ("Files", self.removed_files.to_string()),
            ("Build steps", self.removed_build_steps.to_string()),
            (freed, bytes(self.freed_bytes)),
        ];
        if self.deferred {
            let when = "files that nothing needs go when the image that is coming is here";
            details.push(("Put off", when.to_owned()));
        }
        details
    }
}
