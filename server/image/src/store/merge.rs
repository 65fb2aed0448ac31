//! Making one tree of an image's layers, of each as soon as it and all below it are there.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bring::{ReadyLayer, joined};
use super::{ImageStore, StoreError};
use crate::ext4::Ext4Error;
use crate::flatten::Tree;
use crate::tar::PackedEntries;

/// A tree that grows while layers come. It takes memory as long as the slowest of them does: few images have one at a
/// time, and the others' are made when all is there.
#[derive(Debug)]
pub(super) struct Merging<'a> {
    store: &'a ImageStore,
    cancel: CancellationToken,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The lowest layer is not there yet.
    Waiting,
    Running {
        to_thread: Sender<Arc<PackedEntries>>,
        /// How many layers have been handed over.
        count: usize,
        thread: JoinHandle<Result<Merged, Ext4Error>>,
    },
    /// There was no place.
    Left,
}

/// A tree, and its place among those that are made early: given back when the tree is gone.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) tree: Tree,
    pub(super) place: OwnedSemaphorePermit,
}

impl<'a> Merging<'a> {
    /// Gives up once `cancel` is cancelled.
    pub(super) const fn new(store: &'a ImageStore, cancel: CancellationToken) -> Self {
        Self {
            store,
            cancel,
            state: State::Waiting,
        }
    }

    /// Takes those that are ready, and all below them. Nobody waits for a place.
    pub(super) fn take(&mut self, layers: &[Option<ReadyLayer>]) {
        if matches!(self.state, State::Waiting) && layers.first().is_some_and(Option::is_some) {
            let place = Arc::clone(&self.store.inner.merging).try_acquire_owned();
            self.state = place.map_or(State::Left, |place| self.run(place));
        }
        let State::Running {
            to_thread, count, ..
        } = &mut self.state
        else {
            return;
        };
        while let Some(Some(layer)) = layers.get(*count) {
            // One that could not be merged says so in the end.
            let _ = to_thread.send(Arc::clone(&layer.entries));
            *count += 1;
        }
    }

    fn run(&self, place: OwnedSemaphorePermit) -> State {
        let (to_thread, layers) = channel();
        let cancel = self.cancel.clone();
        let work = move || {
            let tree = merge(layers, &cancel)?;
            Ok(Merged { tree, place })
        };
        State::Running {
            to_thread,
            count: 0,
            thread: self.store.inner.tracker.spawn_blocking(work),
        }
    }

    /// Waits for the last, or for the end of what was given up; `None` where there was no place.
    pub(super) async fn finish(self) -> Result<Option<Merged>, StoreError> {
        match self.state {
            State::Running {
                to_thread, thread, ..
            } => {
                drop(to_thread);
                Ok(Some(joined(thread).await??))
            }
            State::Waiting | State::Left => Ok(None),
        }
    }
}

/// All layers of an image, from below. Blocks, until `cancel` is cancelled.
pub(super) fn merge<E: Deref<Target = PackedEntries>>(
    layers: impl IntoIterator<Item = E>,
    cancel: &CancellationToken,
) -> Result<Tree, Ext4Error> {
    let mut tree = Tree::new();
    for entries in layers {
        if !tree.apply_while(&entries, || !cancel.is_cancelled())? {
            return Err(Ext4Error::Cancelled);
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use banger_archive::{Entry, EntryKind, Meta, Xattrs};
    use banger_core::Explain as _;

    use super::*;

    /// Links of which each leads to the one before by as long a way as there is, and files behind the last.
    fn winding() -> PackedEntries {
        let entry = |path: String, kind| Entry {
            path: path.into_bytes().into(),
            kind,
            meta: Meta {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
            },
            xattrs: Xattrs::default(),
        };
        let detour = "a/../".repeat(800);
        let link = |number: u32| {
            let target = format!("{detour}l{number}").into_bytes().into();
            entry(format!("l{}", number + 1), EntryKind::Symlink { target })
        };
        let directories = ["a", "l0"].map(|path| entry(path.into(), EntryKind::Directory));
        let nodes = (0..200_000).map(|n| entry(format!("l39/{n}"), EntryKind::Fifo));
        let links = (0..39).map(link);
        directories.into_iter().chain(links).chain(nodes).collect()
    }

    #[test]
    fn ways_that_take_hours_to_go_are_refused() {
        let merged = merge([&winding()], &CancellationToken::new());
        let Err(Ext4Error::Tree(error)) = merged else {
            panic!("{merged:?}");
        };
        assert_eq!(error.reason(), "LAYER_LINKS_TOO_LONG");
    }

    #[test]
    fn layers_that_take_long_to_merge_are_given_up_at_once() {
        let layers = [&winding()];
        let cancel = CancellationToken::new();
        let merged = std::thread::scope(|scope| {
            let merging = scope.spawn(|| merge(layers, &cancel));
            // The way to the first of the nodes alone has 60,000 names.
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!merging.is_finished());
            cancel.cancel();
            merging.join().unwrap()
        });
        assert!(matches!(merged, Err(Ext4Error::Cancelled)));
    }
}
