//! Keeping images: other references, removal, pruning, and what each takes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use banger_core::image::{Image, TakeOver};
use banger_core::{Digest, ImageId, Name, Scope, SignedDuration, Timestamp};
use banger_image::{KeptFile, KeptKind, Sweep};
use banger_store::{DeleteOutcome, TagOutcome, UntagOutcome};

use super::{Images, blocking, canonical};
use crate::error::AppError;
use crate::page::{self, Paged};

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The references that name nothing any more.
    pub references: Vec<String>,
    /// Whether the image is gone too.
    pub image: bool,
    /// The space that was freed.
    pub freed_bytes: u64,
    /// Whether its files go only when the images that are being brought in are here.
    pub is_deferred: bool,
}

/// What to prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRequest {
    /// Every image that no VM uses; otherwise only those without a reference.
    pub all: bool,
    /// Only images that came longer ago than this.
    pub older_than: SignedDuration,
    /// Tells only.
    pub dry_run: bool,
}

/// What pruning removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The images.
    pub images: Vec<Image>,
    /// Base disks and blobs.
    pub files: u64,
    /// Their space.
    pub freed_bytes: u64,
    /// Whether files go only when the images that are being brought in are here.
    pub is_deferred: bool,
}

/// What one image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The image.
    pub image: Image,
    /// Its base disk's space.
    pub rootfs_bytes: u64,
    /// Its blobs' space.
    pub blob_bytes: u64,
    /// Of both, what other images need too.
    pub shared_bytes: u64,
    /// What removing it would free.
    pub reclaimable_bytes: u64,
    /// The images with which it shares.
    pub shared_with: Vec<ImageId>,
    /// The VMs that use it, some of them.
    pub vms: Vec<Name>,
}

/// What all images take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TotalUsage {
    /// Base disks.
    pub rootfs_bytes: u64,
    /// Blobs.
    pub blob_bytes: u64,
    /// What no image needs.
    pub unreferenced_bytes: u64,
}

impl Images {
    /// Gives an image another reference, and returns it as it is then.
    ///
    /// # Errors
    /// If it does not exist, or the reference is wrong or another image's.
    pub async fn tag(
        &self,
        named: &str,
        reference: &str,
        take_over: TakeOver,
    ) -> Result<Image, AppError> {
        let reference = canonical("reference", reference)?;
        // A digest names content by itself: it cannot be given to other content.
        if reference.digest().is_some() {
            return Err(AppError::Invalid {
                field: "reference",
                problem: "has a digest, and must be a name with a tag".into(),
            });
        }
        let image = self.get(named).await?;
        let reference = reference.to_string();
        let outcome = self
            .context
            .store
            .tag_image(image.id, &reference, take_over)
            .await?;
        match outcome {
            TagOutcome::Tagged(image) => Ok(*image),
            TagOutcome::Taken => Err(AppError::ReferenceTaken { reference }),
            TagOutcome::Missing => Err(AppError::NotFound {
                resource: "image",
                name: named.to_owned(),
            }),
        }
    }

    /// Removes an image and what only it used; named by one of several references, it loses that one only.
    ///
    /// # Errors
    /// If it does not exist or a VM uses it.
    pub async fn delete(&self, named: &str) -> Result<Removed, AppError> {
        let image = self.get(named).await?;
        if let Some(removed) = self.untag(&image, named).await? {
            return Ok(removed);
        }
        match self.forget(&image).await? {
            DeleteOutcome::Deleted | DeleteOutcome::Missing => {
                let worker = self.worker();
                let swept = worker.sweep_files(Sweep::Remove, &HashSet::new()).await?;
                Ok(Removed {
                    references: image.references,
                    image: true,
                    freed_bytes: swept.bytes,
                    is_deferred: swept.is_deferred,
                })
            }
            DeleteOutcome::UsedBy(users) => Err(AppError::InUse {
                resource: "image",
                name: named.to_owned(),
                users,
            }),
        }
    }

    /// Takes the reference by which an image was named, where it has others.
    async fn untag(&self, image: &Image, named: &str) -> Result<Option<Removed>, AppError> {
        let Ok(reference) = canonical("image", named) else {
            return Ok(None);
        };
        let reference = reference.to_string();
        if !image.references.contains(&reference) {
            return Ok(None);
        }
        match self.context.store.untag_image(&reference).await? {
            UntagOutcome::Untagged => Ok(Some(Removed {
                references: vec![reference],
                ..Removed::default()
            })),
            UntagOutcome::Last | UntagOutcome::Missing => Ok(None),
        }
    }

    /// Removes the images that nothing needs, and the files that no image needs.
    ///
    /// # Errors
    /// If the store or the disk cannot be read or written.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned, AppError> {
        let mut pruned = Pruned::default();
        for image in self.context.store.all_images().await? {
            if self.prune_one(&request, &image).await? {
                pruned.images.push(image);
            }
        }
        let sweep = match request.dry_run {
            true => Sweep::Tell,
            false => Sweep::Remove,
        };
        // What is only told of has its rows still.
        let gone = pruned.images.iter().map(|image| image.id).collect();
        let swept = self.worker().sweep_files(sweep, &gone).await?;
        pruned.files = swept.files;
        pruned.freed_bytes = swept.bytes;
        pruned.is_deferred = swept.is_deferred;
        Ok(pruned)
    }

    /// Whether an image goes; if so, and unless this only tells, its record is gone.
    async fn prune_one(&self, request: &PruneRequest, image: &Image) -> Result<bool, AppError> {
        let age = Timestamp::now().duration_since(image.create_time);
        if age < request.older_than || (!request.all && !image.references.is_empty()) {
            return Ok(false);
        }
        if request.dry_run {
            return Ok(self
                .context
                .store
                .vms_of_image(image.id, None)
                .await?
                .is_empty());
        }
        // Whether a VM uses it is asked in the same transaction.
        let outcome = self.forget(image).await?;
        Ok(!matches!(outcome, DeleteOutcome::UsedBy(_)))
    }

    /// Removes an image's row, unless a VM uses it.
    pub(super) async fn forget(&self, image: &Image) -> Result<DeleteOutcome, AppError> {
        let outcome = self.context.store.delete_image(image.id).await?;
        if outcome == DeleteOutcome::Deleted {
            self.context.events.image_removed(image);
        }
        Ok(outcome)
    }

    /// A page of what each image takes, newest first, and what all take. Of the VMs that use one, those that `scope`
    /// sees are named.
    ///
    /// # Errors
    /// If the store or the disk cannot be read.
    pub async fn usage(
        &self,
        limit: u32,
        before: Option<String>,
        scope: &Scope,
    ) -> Result<(Paged<Usage>, TotalUsage), AppError> {
        let all = self.context.store.all_images().await?;
        let digests: HashSet<Digest> = all.iter().map(|image| image.digest).collect();
        let (files, keep) = (self.files.clone(), digests.clone());
        let (kept, unreferenced) = blocking(move || {
            let kept: HashMap<_, _> = digests
                .into_iter()
                .map(|digest| (digest, files.files_of(digest).kept))
                .collect();
            Ok((kept, files.prune(&keep, Sweep::Tell)?.bytes))
        })
        .await?;
        let files = Files::new(&all, kept);
        let newest = all.iter().rev().filter(|image| {
            let id = image.id.to_string();
            before.as_ref().is_none_or(|before| id < *before)
        });
        let mut usages = Vec::new();
        for image in newest.take(limit as usize + 1) {
            let vms = self
                .context
                .store
                .vms_of_image(image.id, scope.only())
                .await?;
            usages.push(files.usage(image, vms));
        }
        Ok((page::cut(usages, limit as usize), files.total(unreferenced)))
    }
}

/// Which files the images have, and which images have a file.
struct Files {
    of: HashMap<Digest, Vec<KeptFile>>,
    owners: HashMap<PathBuf, Vec<Digest>>,
    /// One content may be kept for several platforms.
    images: HashMap<Digest, Vec<ImageId>>,
}

impl Files {
    fn new(all: &[Image], of: HashMap<Digest, Vec<KeptFile>>) -> Self {
        let mut owners: HashMap<PathBuf, Vec<Digest>> = HashMap::new();
        for (digest, files) in &of {
            for file in files {
                owners.entry(file.path.clone()).or_default().push(*digest);
            }
        }
        let mut images: HashMap<Digest, Vec<ImageId>> = HashMap::new();
        for image in all {
            images.entry(image.digest).or_default().push(image.id);
        }
        Self { of, owners, images }
    }

    fn total(&self, unreferenced_bytes: u64) -> TotalUsage {
        let mut seen = HashSet::new();
        let mut total = TotalUsage {
            unreferenced_bytes,
            ..TotalUsage::default()
        };
        for file in self.of.values().flatten() {
            if seen.insert(&file.path) {
                match file.kind {
                    KeptKind::Rootfs => total.rootfs_bytes += file.bytes,
                    KeptKind::Blob => total.blob_bytes += file.bytes,
                }
            }
        }
        total
    }

    /// The images that have a file too, beside this one.
    fn sharers<'a>(
        &'a self,
        file: &'a KeptFile,
        image: &'a Image,
    ) -> impl Iterator<Item = ImageId> + 'a {
        self.owners
            .get(&file.path)
            .into_iter()
            .flatten()
            .filter_map(|digest| self.images.get(digest))
            .flatten()
            .copied()
            .filter(|id| *id != image.id)
    }

    /// What one image takes, beside all others.
    fn usage(&self, image: &Image, vms: Vec<Name>) -> Usage {
        let mut usage = Usage {
            image: image.clone(),
            rootfs_bytes: 0,
            blob_bytes: 0,
            shared_bytes: 0,
            reclaimable_bytes: 0,
            shared_with: Vec::new(),
            vms,
        };
        let mut shared_with = BTreeSet::new();
        for file in self.of.get(&image.digest).into_iter().flatten() {
            let mut sharers = self.sharers(file, image).peekable();
            let is_shared = sharers.peek().is_some();
            shared_with.extend(sharers);
            match file.kind {
                KeptKind::Rootfs => usage.rootfs_bytes += file.bytes,
                KeptKind::Blob => usage.blob_bytes += file.bytes,
            }
            match is_shared {
                true => usage.shared_bytes += file.bytes,
                false => usage.reclaimable_bytes += file.bytes,
            }
        }
        usage.shared_with = shared_with.into_iter().collect();
        usage
    }
}

#[cfg(test)]
mod tests;
