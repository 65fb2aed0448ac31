//! The stages of a Dockerfile, one after the other: what is kept is taken, what is not is run and kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use banger_core::image::Image;
use banger_core::operation::{Progress as _, StageKey};
use banger_core::tree::{Changes, DiskWrites, Naming, PathKind, TreePiece, TreePlace};
use banger_core::{Digest, chain};
use banger_image::{HistoryLine, ImageDescription, NewLayer, TreeArchive};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::Builder;
use super::cache::Held;
use super::error::BuildError;
use super::fleet::BuildVm;
use super::plan::{Action, Copy, CopyFrom, Settings, StagePlan, Step};
use super::recipe::{Base, Recipe};
use super::select::{Dest, Dress, Files, SelectError, Selection, Unpacking, Within, expand};
use super::step::{self, Place};
use crate::error::AppError;
use crate::tree::beneath;

/// Changed when the same step would make another disk.
const KEY_FORMAT: &str = "1";
/// Pieces between a guest and the thread that writes them.
const PIECES_AHEAD: usize = 16;

/// What a stage begins with on the disk below its own.
#[derive(Debug, Clone)]
struct Ground {
    image: Image,
    /// The image is the empty one, of which nothing is kept.
    is_scratch: bool,
}

/// A stage that is done.
#[derive(Debug, Clone)]
struct Done {
    ground: Ground,
    /// Of all that went into it.
    key: Digest,
    /// Under which its disk is kept; none where nothing was written.
    kept: Option<Digest>,
}

/// A build of a Dockerfile under way.
pub(super) struct Stages<'a> {
    builder: &'a Builder,
    recipe: &'a Recipe,
    context: Arc<Files>,
    images: HashMap<String, Image>,
    plans: BTreeMap<usize, StagePlan>,
    done: HashMap<usize, Done>,
    /// What later stages copy, by where from and what.
    given: HashMap<(CopyOrigin, Vec<String>), Arc<Files>>,
    /// The kept disks that this build still needs.
    held: Vec<Held>,
    /// Steps in all, and the next one's number.
    total: usize,
    next: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum CopyOrigin {
    Stage(usize),
    Image(String),
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        builder: &'a Builder,
        recipe: &'a Recipe,
        context: Arc<Files>,
        images: HashMap<String, Image>,
    ) -> Result<Self, AppError> {
        let mut plans: BTreeMap<usize, StagePlan> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for &number in &recipe.needed {
            let base = match &recipe.stages[number].base {
                Base::Scratch => Settings::scratch(),
                Base::Stage(base) => plans[base].settings.clone(),
                Base::Image(reference) => Settings {
                    config: images[reference].config.clone(),
                    ..Settings::default()
                },
            };
            let plan = StagePlan::new(recipe, number, base, &mut used)?;
            plans.insert(number, plan);
        }
        let globals = |name: &&String| !used.contains(*name) && !recipe.globals.contains_key(*name);
        for name in recipe.build_args.keys().filter(globals) {
            builder.say(&format!(
                "warning: no ARG declares the build argument {name}"
            ));
        }
        let total = plans.values().map(|plan| plan.steps.len()).sum();
        Ok(Self {
            builder,
            recipe,
            context,
            images,
            plans,
            done: HashMap::new(),
            given: HashMap::new(),
            held: Vec::new(),
            total,
            next: 1,
        })
    }

    /// Builds every stage that is needed, and makes an image of the last.
    pub(super) async fn build(mut self) -> Result<Image, AppError> {
        let target = self.recipe.target;
        for &number in self
            .recipe
            .needed
            .iter()
            .filter(|&&number| number != target)
        {
            if let Some(vm) = self.stage(number).await? {
                self.give(number, &vm).await?;
                self.builder.fleet.end(vm).await?;
            }
        }
        let vm = self.stage(target).await?;
        self.finish(target, vm).await
    }

    /// Runs what is not kept of a stage. The VM is given back where one was needed.
    async fn stage(&mut self, number: usize) -> Result<Option<BuildVm>, AppError> {
        let (ground, base_key, base_kept) = self.begin(number).await?;
        let steps = self.plans[&number].steps.clone();
        let keys = self.keys(base_key, &steps).await?;
        let cache = &self.builder.cache;
        // Before it is asked which are there.
        let held: Vec<Held> = keys.iter().map(|key| cache.hold(*key)).collect();
        let is_kept = |key: &Digest| !self.builder.no_cache && cache.has(*key);
        let kept = keys.iter().rposition(is_kept);
        // What lies between is not asked for again.
        let is_needed = |at: usize| Some(at) == kept || at + 1 == keys.len();
        let held = held.into_iter().enumerate();
        self.held
            .extend(held.filter_map(|(at, held)| is_needed(at).then_some(held)));
        for (at, step) in steps
            .iter()
            .enumerate()
            .take(kept.map_or(0, |kept| kept + 1))
        {
            let number = self.number(at);
            self.builder
                .log
                .say(&number, &format!("CACHED {}", step.text));
        }
        let mut done = Done {
            key: keys.last().copied().unwrap_or(base_key),
            kept: keys.last().copied().or(base_kept),
            ground,
        };
        let mut vm = None;
        let first = kept.map_or(0, |kept| kept + 1);
        if first < steps.len() {
            let disk = match kept.map(|kept| keys[kept]).or(base_kept) {
                Some(key) => Some(self.builder.disk(key).await?),
                None => None,
            };
            let booted = self.boot(&done.ground.image, disk).await?;
            for at in first..steps.len() {
                self.step(&booted, at, &steps[at]).await?;
                let is_last = at + 1 == steps.len();
                if is_last || !matches!(steps[at].action, Action::Workdir { .. }) {
                    self.keep(&booted, keys[at]).await?;
                }
            }
            vm = Some(booted);
        }
        self.next += steps.len();
        if steps.is_empty() {
            done.kept = base_kept;
        }
        self.done.insert(number, done);
        Ok(vm)
    }

    fn number(&self, at: usize) -> Arc<str> {
        format!("{}/{}", self.next + at, self.total).into()
    }

    async fn boot(&self, image: &Image, disk: Option<PathBuf>) -> Result<BuildVm, AppError> {
        let key = StageKey::new("boot");
        self.builder.task.start(&key, None);
        let vm = self.builder.fleet.boot(image, disk).await?;
        self.builder.task.finish(&key);
        Ok(vm)
    }

    async fn begin(&self, number: usize) -> Result<(Ground, Digest, Option<Digest>), AppError> {
        let machine = self.builder.fleet.key();
        let key = |base: String| Digest::of(format!("{KEY_FORMAT} {machine} {base}").as_bytes());
        match &self.recipe.stages[number].base {
            Base::Stage(base) => {
                let done = &self.done[base];
                Ok((done.ground.clone(), done.key, done.kept))
            }
            Base::Image(reference) => {
                let image = self.images[reference].clone();
                let key = key(image.digest.to_string());
                let is_scratch = false;
                Ok((Ground { image, is_scratch }, key, None))
            }
            Base::Scratch => {
                let image = self.builder.images.empty(&self.builder.task).await?;
                let is_scratch = true;
                Ok((Ground { image, is_scratch }, key("scratch".into()), None))
            }
        }
    }

    /// The key of each step: of the one before it, its own text, and what it copies.
    async fn keys(&self, base: Digest, steps: &[Step]) -> Result<Vec<Digest>, AppError> {
        let mut key = base;
        let mut keys = Vec::new();
        for step in steps {
            let action = serde_json::to_string(&step.action).unwrap_or_default();
            let mut whole = format!("{key} {action}");
            if let Action::Copy(copy) = &step.action {
                let from = match &copy.from {
                    CopyFrom::Inline(_) => String::new(),
                    CopyFrom::Stage(number) => self.done[number].key.to_string(),
                    CopyFrom::Image(reference) => self.images[reference].digest.to_string(),
                    CopyFrom::Context => self.context_digest(step, copy).await?,
                };
                whole = format!("{whole} {from}");
            }
            key = Digest::of(whole.as_bytes());
            keys.push(key);
        }
        Ok(keys)
    }

    async fn context_digest(&self, step: &Step, copy: &Copy) -> Result<String, AppError> {
        // Owners by name are known in the guest only, and their names are part of the step's text.
        let dress = Dress {
            owner: Some((0, 0)),
            mode: copy.mode,
        };
        let selection = self.select(&self.context, step, copy, dress).await?;
        let cancel = self.builder.task.cancelled().child_token();
        let _dropped = cancel.clone().drop_guard();
        let digest = self.builder.blocking(move || selection.digest(&cancel));
        let digest = digest.await?;
        let digest = digest.map_err(|error| BuildError::Context {
            detail: error.to_string(),
        })?;
        Ok(Digest::from_sha256(digest).to_string())
    }

    async fn select(
        &self,
        files: &Arc<Files>,
        step: &Step,
        copy: &Copy,
        dress: Dress,
    ) -> Result<Selection, AppError> {
        let missing = |source: &str| BuildError::SourceMissing {
            file: self.recipe.file.clone(),
            line: step.line,
            instruction: copy.keyword.into(),
            source_path: source.into(),
            place: match &copy.from {
                CopyFrom::Stage(number) => format!("stage {number}"),
                CopyFrom::Image(image) => format!("image {image}"),
                _ => "the context".into(),
            },
        };
        let mut paths = Vec::new();
        for source in &copy.sources {
            let found = expand(source, Within::Files(files)).await?;
            if found.is_empty() {
                return Err(missing(source).into());
            }
            paths.extend(found);
        }
        let dest = if copy.dest.ends_with('/') {
            Dest::Directory
        } else {
            Dest::Name
        };
        if paths.len() > 1 && dest == Dest::Name {
            return Err(BuildError::Syntax {
                file: self.recipe.file.clone(),
                line: step.line,
                problem: format!(
                    "{}: its sources match several files, so its destination must end with `/`",
                    copy.keyword
                ),
            }
            .into());
        }
        // It ends with the build, whose time may be over before.
        let cancel = self.builder.task.cancelled().child_token();
        let _dropped = cancel.clone().drop_guard();
        let tmp = self.builder.tmp.clone();
        let unpack = (copy.keyword == "ADD").then_some(Unpacking { tmp, cancel });
        let files = files.clone();
        let select = move || files.select(&paths, dest, dress, unpack.as_ref());
        self.builder.blocking(select).await?.map_err(|error| match error {
            SelectError::Missing(path) => missing(&path).into(),
            SelectError::Image(error) => AppError::from(error),
            SelectError::Compression(path, format) => BuildError::Unsupported {
                file: self.recipe.file.clone(),
                line: step.line,
                instruction: copy.keyword.into(),
                problem: format!("of `{path}`, an archive compressed with {format}, is not supported: use gzip or zstd, or COPY it"),
            }
            .into(),
        })
    }

    async fn step(&mut self, vm: &BuildVm, at: usize, step: &Step) -> Result<(), AppError> {
        let number = self.number(at);
        let file = self.recipe.file.clone();
        let place = Place {
            file: &file,
            step,
            number: number.clone(),
        };
        self.builder.log.say(&number, &step.text);
        let key = StageKey::item("step", &*number);
        self.builder.task.start(&key, None);
        match &step.action {
            Action::Run { .. } => step::run(vm, &place, &self.builder.log).await?,
            Action::Workdir { .. } => step::workdir(vm, &place).await?,
            Action::Copy(copy) => self.copy(vm, &place, copy).await?,
        }
        self.builder.task.finish(&key);
        Ok(())
    }

    async fn copy(&mut self, vm: &BuildVm, place: &Place<'_>, copy: &Copy) -> Result<(), AppError> {
        let given = match &copy.owner {
            Some(owner) => Some(step::owner(vm, place, owner).await?),
            None => None,
        };
        let is_own = !matches!(copy.from, CopyFrom::Stage(_) | CopyFrom::Image(_));
        let dress = Dress {
            // Another stage's files keep their owners; a context's are its sender's own.
            owner: given.or(is_own.then_some((0, 0))),
            mode: copy.mode,
        };
        let mut to = TreePlace {
            path: copy.dest.clone().into_bytes(),
            naming: Naming::Entry,
            owner: given.unwrap_or((0, 0)),
        };
        let selection = match &copy.from {
            CopyFrom::Inline(text) => {
                return step::put_inline(vm, place, &to, Selection::inline(text, dress)).await;
            }
            CopyFrom::Context => self.select(&self.context, place.step, copy, dress).await?,
            CopyFrom::Stage(number) => {
                let origin = CopyOrigin::Stage(*number);
                let files = self.given(origin, place, copy).await?;
                self.select(&files, place.step, copy, dress).await?
            }
            CopyFrom::Image(reference) => {
                let origin = CopyOrigin::Image(reference.clone());
                let files = self.given(origin, place, copy).await?;
                self.select(&files, place.step, copy, dress).await?
            }
        };
        to.naming = selection.naming;
        step::put(&self.builder.fleet, vm, place, &to, selection).await
    }

    /// Holds the disk still and keeps a copy of it.
    async fn keep(&self, vm: &BuildVm, key: Digest) -> Result<(), AppError> {
        let hold = |writes| async move {
            let held = vm.guest.set_disk_writes(writes).await;
            held.map_err(AppError::from)
        };
        hold(DiskWrites::Hold).await?;
        let (cache, disk) = (self.builder.cache.clone(), self.builder.upper(vm.id));
        let kept = self.builder.blocking(move || cache.keep(key, &disk)).await;
        hold(DiskWrites::Release).await?;
        Ok(kept??)
    }

    /// Takes from a stage's VM what later stages copy from it, while it is there.
    async fn give(&mut self, number: usize, vm: &BuildVm) -> Result<(), AppError> {
        let origin = CopyOrigin::Stage(number);
        let wanted: Vec<(Step, Copy)> = self
            .plans
            .values()
            .flat_map(|plan| &plan.steps)
            .filter_map(|step| match &step.action {
                Action::Copy(copy) if copy.from == CopyFrom::Stage(number) => {
                    Some((step.clone(), copy.clone()))
                }
                _ => None,
            })
            .collect();
        for (step, copy) in wanted {
            let key = (origin.clone(), copy.sources.clone());
            if !self.given.contains_key(&key) {
                let file = self.recipe.file.clone();
                let place = Place {
                    file: &file,
                    step: &step,
                    number: "".into(),
                };
                let files = self.fetch(vm, &place, &copy).await?;
                self.given.insert(key, Arc::new(files));
            }
        }
        Ok(())
    }

    /// What is copied from another stage or image; a VM of it is booted where it was not kept.
    async fn given(
        &mut self,
        origin: CopyOrigin,
        place: &Place<'_>,
        copy: &Copy,
    ) -> Result<Arc<Files>, AppError> {
        let key = (origin, copy.sources.clone());
        if let Some(files) = self.given.get(&key) {
            return Ok(files.clone());
        }
        let (image, disk) = match &key.0 {
            CopyOrigin::Image(reference) => (self.images[reference].clone(), None),
            CopyOrigin::Stage(number) => {
                let done = self.done[number].clone();
                let disk = match done.kept {
                    Some(kept) => Some(self.builder.disk(kept).await?),
                    None => None,
                };
                (done.ground.image, disk)
            }
        };
        let vm = self.boot(&image, disk).await?;
        let files = Arc::new(self.fetch(&vm, place, copy).await?);
        self.builder.fleet.end(vm).await?;
        self.given.insert(key, files.clone());
        Ok(files)
    }

    /// Brings what a COPY names out of a VM, as an archive.
    async fn fetch(&self, vm: &BuildVm, place: &Place<'_>, copy: &Copy) -> Result<Files, AppError> {
        let mut paths = BTreeSet::new();
        for source in &copy.sources {
            paths.extend(expand(source, Within::Guest(vm, place)).await?);
        }
        let (pieces, mut receiver) = mpsc::channel::<TreePiece>(PIECES_AHEAD);
        let tmp = self.builder.tmp.clone();
        let writing = self.builder.fleet.tasks.spawn_blocking(move || {
            let failed = |source| BuildError::Io {
                step: "write what a stage gives in",
                path: tmp.clone(),
                source,
            };
            let file = tempfile::tempfile_in(&tmp).map_err(failed)?;
            let mut tar = banger_image::TarWriter::new(std::io::BufWriter::new(file));
            while let Some(piece) = receiver.blocking_recv() {
                match piece {
                    TreePiece::Entry(entry) => tar.entry(&entry),
                    TreePiece::Data(data) => tar.data(&data),
                }
                .map_err(failed)?;
            }
            let file = tar.finish().map_err(failed)?;
            file.into_inner()
                .map_err(|error| failed(error.into_error()))
        });
        let mut found = Ok(());
        for path in &paths {
            // What is missing is told by the selection, which knows how it was written.
            if step::list(vm, place, path).await? == PathKind::Missing {
                continue;
            }
            found = match vm.guest.get_tree(format!("/{path}").as_bytes()).await {
                Ok(tree) => pass(beneath(path.as_bytes(), tree), &pieces).await,
                Err(error) => Err(error),
            };
            if found.is_err() {
                break;
            }
        }
        drop(pieces);
        let file = writing.await.map_err(|_| AppError::Interrupted)?;
        found.map_err(|error| place.guest(error))?;
        let file = file?;
        let name = PathBuf::from("what a stage gives");
        let archive = self
            .builder
            .blocking(move || TreeArchive::open(file, &name))
            .await??;
        Ok(Files::new(archive))
    }

    /// Makes an image of the last stage.
    async fn finish(self, number: usize, vm: Option<BuildVm>) -> Result<Image, AppError> {
        let done = self.done[&number].clone();
        let settings = &self.plans[&number].settings;
        let description = describe(settings);
        let told = format!("{} {description:?}", done.key);
        let result = Digest::of(told.as_bytes());
        if vm.is_none()
            && !self.builder.no_cache
            && let Some(image) = self.builder.known(result).await?
        {
            self.builder.say("CACHED the image");
            return Ok(image);
        }
        let files = self.builder.images.files();
        let has_layers = !done.ground.is_scratch && files.has_layers(done.ground.image.digest)?;
        let is_whole = !done.ground.is_scratch && !has_layers;
        let vm = match (vm, done.kept) {
            (Some(vm), _) => Some(vm),
            (None, Some(kept)) => {
                let disk = self.builder.disk(kept).await?;
                Some(self.boot(&done.ground.image, Some(disk)).await?)
            }
            (None, None) if is_whole => Some(self.boot(&done.ground.image, None).await?),
            (None, None) => None,
        };
        let layer = match vm {
            Some(vm) => {
                let changes = if is_whole {
                    Changes::Everything
                } else {
                    Changes::SinceImage
                };
                let layer = self.layer(&vm, changes).await?;
                self.builder.fleet.end(vm).await?;
                (!layer.is_empty()).then_some(layer)
            }
            None => None,
        };
        let base = has_layers.then_some(done.ground.image.digest);
        let mut description = description;
        if layer.is_none() {
            // Nothing came of the steps: none of them stands for a layer.
            description
                .history
                .iter_mut()
                .for_each(|line| line.empty_layer = true);
        }
        let kernel = done.ground.image.kernel.clone();
        let image = self
            .builder
            .assemble(base, layer, &description, kernel)
            .await?;
        self.builder.cache.set_result(result, image.digest);
        Ok(image)
    }

    /// Writes what a VM's disk has as a layer.
    async fn layer(&self, vm: &BuildVm, changes: Changes) -> Result<NewLayer, AppError> {
        let key = StageKey::new("layer");
        self.builder.task.start(&key, None);
        let mut writer = self.builder.images.files().layer_writer()?;
        let (pieces, mut receiver) = mpsc::channel::<TreePiece>(PIECES_AHEAD);
        let writing = self.builder.fleet.tasks.spawn_blocking(move || {
            while let Some(piece) = receiver.blocking_recv() {
                writer.piece(&piece)?;
            }
            writer.finish()
        });
        let passed = match vm.guest.get_changes(changes).await {
            Ok(tree) => pass(tree, &pieces).await,
            Err(error) => Err(error),
        };
        drop(pieces);
        let layer = writing.await.map_err(|_| AppError::Interrupted)?;
        passed?;
        self.builder.task.finish(&key);
        Ok(layer?)
    }
}

/// Hands pieces to a thread, until the tree's end or the thread's.
async fn pass(
    mut tree: banger_core::guest::TreePieces,
    pieces: &mpsc::Sender<TreePiece>,
) -> Result<(), banger_core::guest::GuestError> {
    while let Some(piece) = tree.next().await {
        let piece =
            piece.inspect_err(|error| tracing::debug!(error = chain(error), "a tree broke off"))?;
        if pieces.send(piece).await.is_err() {
            break; // The thread has failed, and says why.
        }
    }
    Ok(())
}

/// What the image says of itself: all that changed files is one layer, which the last such line stands for.
fn describe(settings: &Settings) -> ImageDescription {
    let last = settings.history.iter().rposition(|line| line.changes);
    let lines = settings.history.iter().enumerate();
    ImageDescription {
        config: settings.config.clone(),
        volumes: settings.volumes.clone(),
        history: lines
            .map(|(at, line)| HistoryLine {
                created_by: line.text.clone(),
                empty_layer: Some(at) != last,
            })
            .collect(),
    }
}
