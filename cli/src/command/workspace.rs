//! `banger workspace`: a repository into a VM, and what was done there back.

use std::io::Write;
use std::path::{Path, PathBuf};

use banger_sdk::Error;
use banger_sdk::workspaces::{
    ApplyOptions, Both, Cancel, Expected, Format, How, LocalRepository, Only, Place, Work,
    WorkspaceError, apply, apply_files, go_back, state_directory, write_tar,
};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;

use super::cp::Shower;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::value;
use crate::view;

/// Something was left behind, or is in conflict.
const EXIT_PROBLEM: u8 = 1;

/// Carry a git repository into a VM, and what was done there back
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A session of work:
  banger workspace prepare web .        the repository here is in the VM, at ~/NAME
  banger vm exec web -- …               whoever works there commits, or does not
  banger workspace status web           what an export would bring
  banger workspace export web           all of it is here, beneath refs/banger/web/
  git log banger/web/HEAD               look at it
  banger workspace apply web            make it part of your branch and working tree

An export never touches your branches, index or files. An apply refuses to overwrite anything that is not committed, and \
says how to go back.")]
pub(crate) enum Workspace {
    Prepare(Prepare),
    Status(Status),
    Export(Export),
    Apply(Apply),
}

impl Workspace {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Prepare(prepare) => prepare.run(context).await,
            Self::Status(status) => status.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::Apply(apply) => apply.run(context),
        }
    }
}

/// Which workspace.
#[derive(Debug, Args)]
struct Which {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// The repository or directory here
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// Where it is in the VM; by itself beneath the user's home, by the name of the directory here
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// As this user of the VM
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The directory as it is, without git, though it may lie in a repository
    #[arg(long)]
    plain: bool,
}

impl Which {
    async fn workspace(&self, context: &Context) -> Result<banger_sdk::Workspace, Failure> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => self.default_path()?,
        };
        let workspace = context.client().await?.workspace(&self.vm, path);
        Ok(match &self.user {
            Some(user) => workspace.as_user(user),
            None => workspace,
        })
    }

    /// The name of the directory that is carried.
    fn default_path(&self) -> Result<String, Failure> {
        let found = match self.plain {
            true => None,
            false => LocalRepository::find(&self.directory, &Cancel::default())
                .ok()
                .flatten(),
        };
        let top = match found {
            Some(repository) => repository.top().to_owned(),
            None => std::fs::canonicalize(&self.directory).map_err(|source| Error::Upload {
                path: self.directory.clone(),
                source,
            })?,
        };
        let name = top.file_name().and_then(|name| name.to_str());
        name.map(str::to_owned).ok_or_else(|| Failure::Usage {
            problem: "the directory's name cannot be one in the VM: give --path".to_owned(),
        })
    }

    /// The VM's name, which is part of references here.
    async fn vm_name(&self, context: &Context) -> Result<String, Failure> {
        let vm = context.client().await?.vms().get(&self.vm).await?;
        Ok(vm.spec.map_or(vm.id, |spec| spec.name))
    }
}

/// Carry a repository or directory into a VM
#[derive(Debug, Args)]
#[command(after_help = "\
The VM gets the same commits, the same branch checked out, and the same `git status`: what is staged, what is changed and \
what is untracked. Ignored files stay here unless a pattern of --include fits; remotes, credentials and hooks stay here \
always. Submodules go along, LFS files as pointers. Nothing is written to the repository here. A directory without git \
goes as it is; it needs no git in the VM.

What is in the VM already is replaced if nothing was done there since, or if all of it was exported to here; then only \
what is new is sent.

Examples:
  banger workspace prepare web
  banger workspace prepare web ~/src/app --path /srv/app --include .env
  banger workspace prepare web --revision v1.2 --depth 1")]
pub(crate) struct Prepare {
    #[command(flatten)]
    which: Which,
    /// The tree of this commit, tag or branch, without what is not committed
    #[arg(short, long, value_name = "REVISION")]
    revision: Option<String>,
    /// Only this many commits back
    #[arg(long, value_name = "COMMITS", value_parser = clap::value_parser!(u32).range(1..))]
    depth: Option<u32>,
    /// Only this branch, not all branches and tags; again for more
    #[arg(long, value_name = "BRANCH")]
    branch: Vec<String>,
    /// Ignored files that fit this pattern too, such as .env or 'target/**'; again for more
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Replace what is there, whatever was done in it
    #[arg(long)]
    overwrite: bool,
}

impl Prepare {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut signals = Interrupts::new()?;
        let workspace = self.which.workspace(context).await?;
        let shower = Shower::new(context, "prepare", None);
        let mut prepare = workspace
            .prepare(&self.which.directory)
            .progress(shower.callback());
        if let Some(revision) = self.revision {
            prepare = prepare.revision(revision);
        }
        if let Some(depth) = self.depth {
            prepare = prepare.depth(depth);
        }
        for branch in self.branch {
            prepare = prepare.branch(branch);
        }
        for pattern in self.include {
            prepare = prepare.include(pattern);
        }
        if self.which.plain {
            prepare = prepare.plain();
        }
        if self.overwrite {
            prepare = prepare.overwrite();
        }
        let prepared = tokio::select! {
            // dropped when it loses: the VM keeps what was there
            prepared = prepare => prepared.map_err(Failure::from),
            // cancel-safe
            signal = signals.end() => Err(Failure::CopyInterrupted { signal }),
        };
        shower.clear();
        let shown = view::PreparedWorkspace::new(&self.which.vm, &prepared?);
        context.printer().one(&shown)?;
        Ok(match shown.has_loss() {
            true => EXIT_PROBLEM,
            false => 0,
        })
    }
}

/// Show how a workspace differs from what was prepared
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is brought. The counts are those that an export would bring: what earlier ones brought is not counted again. \
Files that were changed both there and here since the workspace was prepared are told: an apply may meet conflicts in them.

Examples:
  banger workspace status web
  banger workspace status web --since main
  banger workspace status web --output json")]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
    /// Compare with this commit, tag or branch of the repository here
    #[arg(long, value_name = "COMMIT", conflicts_with = "plain")]
    since: Option<String>,
}

impl Status {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let workspace = self.which.workspace(context).await?;
        let here = &self.which.directory;
        let (status, expected) = match (self.since, self.which.plain) {
            (Some(since), _) => workspace.status_since(here, since).await?,
            (None, true) => (workspace.status().await?, Expected::default()),
            (None, false) => workspace.status_beside(here).await?,
        };
        let shown = view::WorkspaceStatus::new(&self.which.vm, &status.status, expected);
        context.printer().one(&shown)
    }
}

/// A form of what was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The commits, as a git bundle
    Bundle,
    /// All changes, as one patch for `git apply`
    Patch,
    /// The files that are not as before, as a tar archive
    Tar,
    /// Which files were changed, and how much
    Diffstat,
}

/// A part of what was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    All,
    Commits,
    Staged,
    Unstaged,
    Untracked,
}

impl From<Part> for Only {
    fn from(part: Part) -> Self {
        match part {
            Part::All => Self::All,
            Part::Commits => Self::Commits,
            Part::Staged => Self::Staged,
            Part::Unstaged => Self::Unstaged,
            Part::Untracked => Self::Untracked,
        }
    }
}

/// Bring what was done in a VM's workspace
#[derive(Debug, Args)]
#[command(after_help = "\
Every commit on every branch, what is staged, what is changed and what is untracked comes, whatever was done in the VM. \
It is checked, and lies then beneath refs/banger/VM/: HEAD, heads/…, tags/…, stash/…, state/index, state/worktree (a \
stash), state/tree (all files). Your branches, index and files stay as they are. What could not be brought is listed, and \
the exit code is 1.

With --format it is also written to standard output, or to the file of --to.

With --since all comes that a commit of the repository here does not lead to, whatever came before: also of a repository \
that was cloned in the VM and never prepared.

Examples:
  banger workspace export web && git log -p banger/web/HEAD
  banger workspace export web --format diffstat
  banger workspace export web --format patch --to work.patch
  banger workspace export web ~/src/app --path /srv/app --since origin/main
  banger workspace export web --format tar --only untracked | tar t")]
pub(crate) struct Export {
    #[command(flatten)]
    which: Which,
    /// Write it in this form too
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// Write this part only
    #[arg(long, value_enum, default_value = "all", requires = "format")]
    only: Part,
    /// Write it to this file instead of standard output
    #[arg(long, value_name = "FILE", requires = "format", value_hint = ValueHint::FilePath)]
    to: Option<PathBuf>,
    /// All that this commit, tag or branch of the repository here does not lead to
    #[arg(long, value_name = "COMMIT", conflicts_with = "plain")]
    since: Option<String>,
    /// Refuse more than this to come
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    max_size: Option<i64>,
}

impl Export {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut signals = Interrupts::new()?;
        let workspace = self.which.workspace(context).await?;
        let vm = self.which.vm_name(context).await?;
        let shower = Shower::new(context, "export", None);
        let mut export = workspace
            .export(&self.which.directory)
            .progress(shower.callback());
        if self.which.plain {
            export = export.plain();
        }
        if let Some(since) = &self.since {
            export = export.since(since);
        }
        if let Some(mib) = self.max_size.and_then(|mib| u64::try_from(mib).ok()) {
            export = export.limits(banger_sdk::workspaces::Limits {
                bytes: mib.saturating_mul(1 << 20),
                ..banger_sdk::workspaces::Limits::default()
            });
        }
        let landed = tokio::select! {
            // dropped when it loses: nothing of it is in the repository then
            landed = export => landed.map_err(Failure::from),
            // cancel-safe
            signal = signals.end() => Err(Failure::CopyInterrupted { signal }),
        };
        shower.clear();
        let landed = landed?;
        let shown = view::Exported::new(&vm, &landed);
        let mut unwritten = Vec::new();
        match (self.format, landed.repositories.first()) {
            (Some(form), Some(top)) => {
                self.write(form, &top.store, &vm)?;
                unwritten = shown.inside_with_work();
            }
            _ => drop(context.printer().one(&shown)?),
        }
        for line in &unwritten {
            eprintln!("banger: not written: {line}");
        }
        for line in shown.losses() {
            eprintln!("banger: not brought: {line}");
        }
        Ok(match landed.has_loss() || !unwritten.is_empty() {
            true => EXIT_PROBLEM,
            false => 0,
        })
    }

    fn write(&self, form: Form, store: &Path, vm: &str) -> Result<(), Failure> {
        let store = banger_sdk::workspaces::Store::open(store).map_err(Error::from)?;
        let work = Work::of(&store, vm).map_err(Error::from)?;
        match &self.to {
            None => render(&work, form, self.only.into(), &mut std::io::stdout().lock()),
            Some(path) => {
                let failed = |source| Failure::WriteFile {
                    path: path.clone(),
                    source,
                };
                let mut file = std::fs::File::create(path).map_err(failed)?;
                render(&work, form, self.only.into(), &mut file)?;
                file.flush().map_err(failed)
            }
        }
    }
}

fn render(work: &Work<'_>, form: Form, only: Only, to: &mut dyn Write) -> Result<(), Failure> {
    let format = match form {
        Form::Tar => return Ok(write_tar(work, only, to)?),
        Form::Bundle => Format::Bundle,
        Form::Patch => Format::Patch,
        Form::Diffstat => Format::Diffstat,
    };
    Ok(work.write(format, only, to).map_err(Error::from)?)
}

/// Make what was exported part of your branch and working tree
#[derive(Debug, Args)]
#[command(after_help = "\
By itself the branch here only moves forward; where both sides have commits, say how they become one. What was not \
committed in the VM is then staged and changed here as it was there. Files with uncommitted work, and files that git does \
not track, are never overwritten: the apply is refused before anything is changed. No hook, filter or merge driver runs.

The state before is kept: the commands that lead back are printed. Conflicts are left as git leaves them, to be resolved \
or undone; the exit code is 1 then.

A directory without git gets the files that were changed in the VM and not here, and loses those that were removed there. \
Where a file was changed on both sides, each otherwise, nothing is applied unless --mine or --theirs says whose it is to be.

Examples:
  banger workspace apply web
  banger workspace apply web --merge
  banger workspace apply web --patch && git diff --cached
  banger workspace apply web ~/data --theirs")]
pub(crate) struct Apply {
    /// The VM's name
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// The repository or directory here
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// Merge, where there are commits here that the VM has not
    #[arg(long, conflicts_with_all = ["rebase", "patch"])]
    merge: bool,
    /// Make the VM's commits anew upon those here
    #[arg(long, conflicts_with = "patch")]
    rebase: bool,
    /// Stage all changes, without the commits
    #[arg(long)]
    patch: bool,
    /// Leave out what was not committed in the VM
    #[arg(long)]
    commits_only: bool,
    /// To the branch that is checked out here, though the VM had another checked out
    #[arg(long)]
    onto_current: bool,
    /// The directory as it is, without git, though it may lie in a repository
    #[arg(long, conflicts_with_all = ["merge", "rebase", "patch", "commits_only", "onto_current"])]
    plain: bool,
    /// Of a directory without git: files that were changed on both sides stay as they are here
    #[arg(long, conflicts_with = "theirs")]
    mine: bool,
    /// Of a directory without git: files that were changed on both sides become as they are in the VM
    #[arg(long)]
    theirs: bool,
    /// Of a directory without git: put back what was there before the apply of this time
    #[arg(long, value_name = "TIME")]
    back: Option<String>,
}

impl Apply {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let found = match self.plain {
            true => None,
            false => {
                LocalRepository::find(&self.directory, &Cancel::default()).map_err(Error::from)?
            }
        };
        match found {
            Some(repository) => self.commits(&repository, context),
            None => self.files(context),
        }
    }

    /// To a repository.
    fn commits(&self, repository: &LocalRepository, context: &Context) -> Result<u8, Failure> {
        if self.mine || self.theirs || self.back.is_some() {
            return Err(Failure::Usage {
                problem: "--mine, --theirs and --back are for directories without git: in a repository git merges, and \
                          the commands that lead back are git's"
                    .to_owned(),
            });
        }
        let options = ApplyOptions {
            how: match (self.merge, self.rebase, self.patch) {
                (true, ..) => How::Merge,
                (_, true, _) => How::Rebase,
                (.., true) => How::Patch,
                _ => How::FastForward,
            },
            commits_only: self.commits_only,
            onto_current: self.onto_current,
        };
        let applied = apply(repository, &self.vm, options);
        let applied = applied.map_err(|error| told(error, context))?;
        context
            .printer()
            .one(&view::Applied::new(&self.vm, &applied))?;
        Ok(match applied.conflicts.is_empty() {
            true => 0,
            false => EXIT_PROBLEM,
        })
    }

    /// To a directory without git.
    fn files(&self, context: &Context) -> Result<u8, Failure> {
        if self.merge || self.rebase || self.patch || self.commits_only || self.onto_current {
            let path = self.directory.clone();
            return Err(Error::from(WorkspaceError::NoRepository { path }).into());
        }
        let state = state_directory();
        let place = Place::find(&self.directory, &state, self.plain, &Cancel::default());
        let place = place.map_err(Error::from)?;
        let both = match (self.mine, self.theirs) {
            (true, _) => Both::Mine,
            (_, true) => Both::Theirs,
            _ => Both::Refused,
        };
        let applied = match &self.back {
            Some(time) => go_back(&place, &self.vm, time, both),
            None => apply_files(&place, &self.vm, both),
        };
        let applied = applied.map_err(|error| told(error, context))?;
        let shown = view::AppliedFiles::new(&self.vm, place.top(), &applied);
        context.printer().one(&shown)?;
        Ok(match applied.moved.is_empty() && applied.left.is_empty() {
            true => 0,
            false => EXIT_PROBLEM,
        })
    }
}

/// Tells what is in the way.
fn told(error: WorkspaceError, context: &Context) -> Failure {
    if !context.quiet {
        for path in error.paths() {
            eprintln!("banger: in the way: {path}");
        }
    }
    Error::from(error).into()
}
