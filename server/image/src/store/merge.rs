//! Making one tree of an image's layers, of each as soon as it and all below it are there.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::SemaphorePermit;
use tokio::task::JoinHandle;

use super::bring::{ReadyLayer, joined};
use super::{ImageStore, StoreError};
use crate::ext4::Ext4Error;
use crate::flatten::{FlattenError, Tree};
use crate::tar::PackedEntries;

/// A tree that grows while layers come. It takes memory meanwhile, however long that is: few images have one.
#[derive(Debug)]
pub(super) struct Merging<'a> {
    to_thread: Sender<Arc<PackedEntries>>,
    /// How many layers have been handed over.
    count: usize,
    tree: JoinHandle<Result<Tree, FlattenError>>,
    _place: SemaphorePermit<'a>,
}

impl<'a> Merging<'a> {
    /// Begins, if there is a place. Nobody waits for one: without it the tree is made when all layers are there.
    pub(super) fn begin(store: &'a ImageStore) -> Option<Self> {
        let place = store.inner.merging.try_acquire().ok()?;
        let (to_thread, layers) = channel();
        Some(Self {
            to_thread,
            count: 0,
            tree: store.inner.tracker.spawn_blocking(move || merge(layers)),
            _place: place,
        })
    }

    /// Takes those that are ready, and all below them.
    pub(super) fn take(&mut self, layers: &[Option<ReadyLayer>]) {
        while let Some(Some(layer)) = layers.get(self.count) {
            // One that could not be merged says so in the end.
            let _ = self.to_thread.send(Arc::clone(&layer.entries));
            self.count += 1;
        }
    }

    /// Waits for the last.
    pub(super) async fn finish(self) -> Result<Tree, StoreError> {
        drop(self.to_thread);
        Ok(joined(self.tree).await?.map_err(Ext4Error::from)?)
    }
}

/// All layers of an image, from below.
pub(super) fn merge<E: Deref<Target = PackedEntries>>(
    layers: impl IntoIterator<Item = E>,
) -> Result<Tree, FlattenError> {
    let mut tree = Tree::new();
    for entries in layers {
        tree.apply(&entries)?;
    }
    Ok(tree)
}
