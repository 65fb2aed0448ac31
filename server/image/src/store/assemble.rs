//! Doing for an image's disk what can be done while layers still come, for each as soon as it and all below it are there:
//! it is put on the tree, and where another image's disk has its files, these are copied to their places.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use banger_core::operation::{Progress, StageKey};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::bring::{Bringing, ReadyLayer, WantedLayer, joined};
use super::flight::Board;
use crate::ext4::{Cursor, Ext4Error, Pipe, Runs, Source};
use crate::flatten::Tree;
use crate::tar::PackedEntries;
use crate::writeback::Flush;

/// The stage in which a layer's files are copied from another image's disk.
const COPY: &str = "copy";

/// What is done early for one image. Its tree takes memory as long as the slowest layer comes: few images have one at a
/// time, and the others' disks are made when all is there.
#[derive(Debug)]
pub(super) struct Assembling<'a> {
    bringing: &'a Bringing,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The lowest layer is not there yet.
    Waiting,
    Running(Running),
    /// There was no place.
    Left,
}

#[derive(Debug)]
struct Running {
    to_tree: Sender<Layer>,
    /// How many layers have been handed over.
    count: usize,
    tree: JoinHandle<Result<Merged, Ext4Error>>,
    /// Since the first layer that another disk has.
    copying: Option<(Sender<Copying>, Copies)>,
}

/// A layer for the tree.
struct Layer {
    entries: Arc<PackedEntries>,
    on_disk: Option<OnDisk>,
}

/// Where the files of a layer are, and where they go.
struct OnDisk {
    from: Arc<File>,
    start: Cursor,
    key: StageKey,
    to_copier: Sender<Copying>,
}

/// Files that are to be copied.
struct Copying {
    from: Arc<File>,
    runs: Runs,
    key: StageKey,
}

/// A tree, and its place among those that are made early: given back when the tree is gone.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) tree: Tree,
    pub(super) place: OwnedSemaphorePermit,
}

/// Files on their way from other disks.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Copies(Option<JoinHandle<Result<(), Ext4Error>>>);

impl Copies {
    /// Waits until nothing is copied any more.
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        match self.0.take() {
            Some(copying) => Ok(joined(copying).await??),
            None => Ok(()),
        }
    }
}

impl<'a> Assembling<'a> {
    /// Gives up once the bringing is cancelled.
    pub(super) const fn new(bringing: &'a Bringing) -> Self {
        Self {
            bringing,
            state: State::Waiting,
        }
    }

    /// Takes those that are ready, and all below them; of one whose files are copied the source becomes their place. Nobody
    /// waits for a place among the early.
    pub(super) fn take(&mut self, wanted: &[WantedLayer], layers: &mut [Option<ReadyLayer>]) {
        if matches!(self.state, State::Waiting) && layers.first().is_some_and(Option::is_some) {
            let early = Arc::clone(&self.bringing.store.inner.early);
            let place = early.try_acquire_owned();
            self.state = place.map_or(State::Left, |place| {
                State::Running(Running::begin(place, self.bringing))
            });
        }
        let State::Running(running) = &mut self.state else {
            return;
        };
        while let Some(Some(layer)) = layers.get_mut(running.count) {
            running.take(self.bringing, &wanted[running.count], layer);
        }
    }

    /// Waits for the tree, or for the end of what was given up. Copies may go on.
    pub(super) async fn finish(self) -> (Result<Option<Merged>, StoreError>, Copies) {
        let State::Running(running) = self.state else {
            return (Ok(None), Copies::default());
        };
        let Running {
            to_tree,
            tree,
            copying,
            ..
        } = running;
        drop(to_tree);
        let copies = copying.map(|(_, copies)| copies);
        let merged = joined(tree).await;
        let merged = merged.and_then(|merged| Ok(Some(merged?)));
        (merged, copies.unwrap_or_default())
    }
}

impl Running {
    fn begin(place: OwnedSemaphorePermit, bringing: &Bringing) -> Self {
        let (to_tree, layers) = channel::<Layer>();
        let cancel = bringing.cancel.clone();
        let work = move || {
            let layers = layers.into_iter().map(Layer::into_entries);
            let tree = merge(layers, &cancel)?;
            Ok(Merged { tree, place })
        };
        Self {
            to_tree,
            count: 0,
            tree: bringing.store.inner.tracker.spawn_blocking(work),
            copying: None,
        }
    }

    fn take(&mut self, bringing: &Bringing, wanted: &WantedLayer, layer: &mut ReadyLayer) {
        let start = bringing.line.start(self.count);
        let start = start.expect("all below are there");
        let from = match &layer.source {
            Source::Disk(from) => Some(Arc::clone(from)),
            Source::Archive(_) | Source::Placed => None,
        };
        let on_disk = from.map(|from| {
            layer.source = Source::Placed;
            let (to_copier, _) = self.copying.get_or_insert_with(|| copying(bringing));
            OnDisk {
                from,
                start,
                key: StageKey::item(COPY, wanted.descriptor.digest.short()),
                to_copier: to_copier.clone(),
            }
        });
        // One that could not be merged says so in the end.
        let _ = self.to_tree.send(Layer {
            entries: Arc::clone(&layer.entries),
            on_disk,
        });
        self.count += 1;
    }
}

impl Layer {
    /// Has its files copied, if another disk has them.
    fn into_entries(self) -> Arc<PackedEntries> {
        let Self { entries, on_disk } = self;
        if let Some(OnDisk {
            from,
            start,
            key,
            to_copier,
        }) = on_disk
        {
            let runs = Runs::of_layer(&entries, start);
            // One that failed says so in the end.
            let _ = to_copier.send(Copying { from, runs, key });
        }
        entries
    }
}

/// Copies in a thread what comes.
fn copying(bringing: &Bringing) -> (Sender<Copying>, Copies) {
    let (to_copier, layers) = channel();
    let (disk, flush) = (bringing.line.disk(), bringing.source.flush());
    let (board, cancel) = (Arc::clone(&bringing.board), bringing.cancel.clone());
    let work = move || {
        let copied = copy(&layers, (&disk, flush), &board, &cancel);
        if copied.is_err() {
            // Nobody should fetch what could not be used.
            cancel.cancel();
        }
        copied
    };
    let thread = bringing.store.inner.tracker.spawn_blocking(work);
    (to_copier, Copies(Some(thread)))
}

/// Copies layers' files until none comes any more. Blocks.
fn copy(
    layers: &Receiver<Copying>,
    (disk, flush): (&File, Flush),
    board: &Board,
    cancel: &CancellationToken,
) -> Result<(), Ext4Error> {
    // One layer can come twice.
    let mut totals: HashMap<StageKey, u64> = HashMap::new();
    Pipe::run(disk, flush, cancel, |pipe| {
        for Copying { from, runs, key } in layers {
            pipe.look()?;
            let total = totals.entry(key.clone()).or_default();
            *total += runs.content_bytes();
            if *total == 0 {
                continue;
            }
            board.start(&key, Some(*total));
            let copied = runs
                .copy(&from, (pipe, disk), &|bytes| board.advance(&key, bytes))
                .and_then(|()| pipe.flush());
            // What is given up because of something else is not where it failed.
            if matches!(copied, Ok(()) | Err(Ext4Error::Cancelled)) {
                board.finish(&key);
            }
            copied?;
        }
        Ok(())
    })
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
