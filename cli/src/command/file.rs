//! `banger file`: the files of a running VM.

use std::path::PathBuf;

use banger_sdk::types::Timestamp;
use banger_sdk::{Existing, Files, Source, WatchEvent};
use bytes::Bytes;
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use tokio::io::AsyncWriteExt;

use crate::context::Context;
use crate::failure::{Failure, signal_code};
use crate::interrupt::Interrupts;
use crate::place::{VmPath, complete_vm_path, vm_path};
use crate::view;

/// List, read, write, change and watch the files of a running VM
#[derive(Debug, Subcommand)]
pub(crate) enum File {
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "stat")]
    Inspect(Inspect),
    #[command(visible_alias = "cat")]
    Read(Read),
    Write(Write),
    Mkdir(Mkdir),
    #[command(visible_alias = "mv")]
    Move(Move),
    #[command(visible_alias = "ln")]
    Link(Link),
    #[command(visible_alias = "chmod")]
    Update(Update),
    #[command(visible_alias = "rm")]
    Remove(Remove),
    Watch(Watch),
}

impl File {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Read(read) => read.run(context).await,
            Self::Write(write) => write.run(context).await,
            Self::Mkdir(mkdir) => mkdir.run(context).await,
            Self::Move(rename) => rename.run(context).await,
            Self::Link(link) => link.run(context).await,
            Self::Update(update) => update.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
        }
    }
}

/// As whom files are used.
#[derive(Debug, Args)]
pub(crate) struct AsUser {
    /// As this user of the VM: NAME, UID, NAME:GROUP or UID:GID; by itself the one that commands get
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
}

impl AsUser {
    /// The files of a VM, used as this user.
    pub(crate) async fn files(&self, context: &Context, vm: &str) -> Result<Files, Failure> {
        let files = context.client().await?.files(vm);
        Ok(match &self.user {
            Some(user) => files.as_user(user),
            None => files,
        })
    }
}

/// Permission bits in octal.
fn mode(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok();
    bits.filter(|&bits| bits <= 0o7777)
        .ok_or_else(|| format!("`{text}` is no mode: write 644 or 0755"))
}

/// A point in time.
fn time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("`{text}` is no time: write 2026-01-31T12:00:00Z"))?;
    Ok(Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}

/// List what is in a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Each directory comes before what is in it, names in the order of their bytes. A path that is not absolute begins at \
the user's home.

Examples:
  banger file list web:/etc
  banger file list web: --depth 3
  banger file list web:/var/log --output json")]
pub(crate) struct List {
    /// The directory, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    directory: VmPath,
    /// Go down so many directories; 1 is what is in it
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=64))]
    depth: i32,
    #[command(flatten)]
    user: AsUser,
}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.directory.vm).await?;
        let list = files.list(self.directory.path, self.depth);
        context.printer().list(list, view::File::from).await
    }
}

/// Show all that is known of a file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger file inspect web:/etc/hosts
  banger file stat web:/bin --no-follow --output json")]
pub(crate) struct Inspect {
    /// The file, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    file: VmPath,
    /// Of a symbolic link, the link itself and not what it leads to
    #[arg(short = 'P', long)]
    no_follow: bool,
    #[command(flatten)]
    user: AsUser,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.file.vm).await?;
        let found = match self.no_follow {
            true => files.stat_link(self.file.path).await?,
            false => files.stat(self.file.path).await?,
        };
        context.printer().one(&view::File::from(found))
    }
}

/// Write a file's content to standard output
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger file read web:/etc/os-release
  banger file read web:/var/log/app.log --offset -4096
  banger file read web:/dev/shm/data --offset 1048576 --length 512 | xxd")]
pub(crate) struct Read {
    /// The file, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    file: VmPath,
    /// Begin at this byte; a negative one counts from the end
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    offset: i64,
    /// So many bytes at most
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..))]
    length: Option<i64>,
    #[command(flatten)]
    user: AsUser,
}

impl Read {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.file.vm).await?;
        let mut read = files.read(self.file.path).offset(self.offset);
        if let Some(length) = self.length {
            read = read.length(length);
        }
        let mut content = read.open().await?;
        let mut out = tokio::io::stdout();
        while let Some(chunk) = content.next().await? {
            out.write_all(&chunk).await.map_err(Failure::write)?;
        }
        out.flush().await.map_err(Failure::write)?;
        Ok(0)
    }
}

/// Write a file from standard input, or from a text
#[derive(Debug, Args)]
#[command(after_help = "\
By itself a file is replaced at once when its content is whole, or not at all; it keeps its owner and permissions.

Examples:
  echo nameserver 1.1.1.1 | banger file write web:/etc/resolv.conf --in-place
  banger file write web:app/config.json --content '{\"debug\": true}' --parents
  date | banger file write web:/var/log/visits --append")]
pub(crate) struct Write {
    /// The file, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    file: VmPath,
    /// Write this text instead of standard input
    #[arg(long, value_name = "TEXT")]
    content: Option<String>,
    /// Write what this file here has
    #[arg(long, value_name = "FILE", conflicts_with = "content")]
    from: Option<PathBuf>,
    /// Only if nothing is there
    #[arg(long, group = "how")]
    if_absent: bool,
    /// After what the file has
    #[arg(long, group = "how")]
    append: bool,
    /// Into the file that is there; needs no right to its directory, and is not done at once
    #[arg(long, group = "how")]
    in_place: bool,
    /// Into the file, from this byte on
    #[arg(long, value_name = "BYTES", group = "how", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Make the directories that are missing on the way
    #[arg(short, long)]
    parents: bool,
    /// With these permissions, in octal
    #[arg(short, long, value_name = "MODE", value_parser = mode)]
    mode: Option<u32>,
    /// Owned by NAME, UID, NAME:GROUP or UID:GID
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    #[command(flatten)]
    user: AsUser,
}

impl Write {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.file.vm).await?;
        let mut write = files.write(self.file.path);
        write = match (self.if_absent, self.append, self.in_place, self.offset) {
            (true, ..) => write.if_absent(),
            (_, true, ..) => write.append(),
            (_, _, true, _) => write.in_place(),
            (_, _, _, Some(offset)) => write.at(offset),
            _ => write,
        };
        if let Some(bits) = self.mode {
            write = write.permissions(bits);
        }
        if let Some(owner) = self.owner {
            write = write.owner(owner);
        }
        if self.parents {
            write = write.make_parents();
        }
        let written = match (self.content, self.from) {
            (Some(text), _) => write.bytes(Bytes::from(text)).await?,
            (None, Some(path)) => write.from(path).await?,
            (None, None) => write.from(Source::reader(std::io::stdin())).await?,
        };
        context.printer().changed(&view::File::from(written))
    }
}

/// Make a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger file mkdir web:/srv/data
  banger file mkdir --parents --mode 700 web:work/a/b")]
pub(crate) struct Mkdir {
    /// The directory, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    directory: VmPath,
    /// Make those that are missing on the way; one that is there already is no error
    #[arg(short, long)]
    parents: bool,
    /// With these permissions, in octal
    #[arg(short, long, value_name = "MODE", value_parser = mode)]
    mode: Option<u32>,
    #[command(flatten)]
    user: AsUser,
}

impl Mkdir {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.directory.vm).await?;
        let mut make = files.make_directory(self.directory.path);
        if self.parents {
            make = make.parents();
        }
        if let Some(bits) = self.mode {
            make = make.permissions(bits);
        }
        context.printer().changed(&view::File::from(make.await?))
    }
}

/// Give a file another path in the same VM
#[derive(Debug, Args)]
#[command(after_help = "\
The new path is the file's own, not that of a directory to put it into, and lies on the same file system.

Examples:
  banger file move web:/srv/new web:/srv/current
  banger file mv --no-replace web:a web:b")]
pub(crate) struct Move {
    /// The file, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    file: VmPath,
    /// Its new path, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    new: VmPath,
    /// Refuse where something has the new path
    #[arg(long)]
    no_replace: bool,
    #[command(flatten)]
    user: AsUser,
}

impl Move {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.file.vm != self.new.vm {
            return Err(Failure::Usage {
                problem: "both paths must be in one VM: copy between VMs with `banger cp`".into(),
            });
        }
        let existing = match self.no_replace {
            true => Existing::Keep,
            false => Existing::Replace,
        };
        let files = self.user.files(context, &self.file.vm).await?;
        let renamed = files
            .rename(self.file.path, self.new.path, existing)
            .await?;
        context.printer().changed(&view::File::from(renamed))
    }
}

/// Make a symbolic link
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger file link web:/srv/current releases/7
  banger file ln --replace web:/srv/current releases/8")]
pub(crate) struct Link {
    /// The link, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    link: VmPath,
    /// Where it leads, as it is to stand in it
    target: String,
    /// Take the place of a file or link that is there
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    user: AsUser,
}

impl Link {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let existing = match self.replace {
            true => Existing::Replace,
            false => Existing::Keep,
        };
        let files = self.user.files(context, &self.link.vm).await?;
        let made = files.symlink(self.link.path, self.target, existing).await?;
        context.printer().changed(&view::File::from(made))
    }
}

/// Change a file's permissions, owner or time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger file update web:/srv/run.sh --mode 755
  banger file update web:/srv/data --owner app:app --user root
  banger file update web:/srv/data --mtime 2026-01-31T12:00:00Z")]
pub(crate) struct Update {
    /// The file, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    file: VmPath,
    /// Permissions, in octal
    #[arg(short, long, value_name = "MODE", value_parser = mode, required_unless_present_any = ["owner", "mtime"])]
    mode: Option<u32>,
    /// NAME, UID, NAME:GROUP or UID:GID
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// The time of its last change
    #[arg(long, value_name = "TIME", value_parser = time)]
    mtime: Option<Timestamp>,
    /// Of a symbolic link itself, and not of what it leads to
    #[arg(short = 'P', long)]
    no_follow: bool,
    #[command(flatten)]
    user: AsUser,
}

impl Update {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.file.vm).await?;
        let mut set = files.set_attributes(self.file.path);
        if let Some(bits) = self.mode {
            set = set.permissions(bits);
        }
        if let Some(owner) = self.owner {
            set = set.owner(owner);
        }
        if let Some(time) = self.mtime {
            set = set.mtime(time);
        }
        if self.no_follow {
            set = set.no_follow();
        }
        context.printer().changed(&view::File::from(set.await?))
    }
}

/// Remove files, or directories with all that is in them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger file remove web:/tmp/x
  banger file rm -r web:/srv/old web:/srv/older")]
pub(crate) struct Remove {
    /// The files, as VM:PATH
    #[arg(required = true, value_name = "FILE", value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    files: Vec<VmPath>,
    /// Directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// That there is nothing is no error
    #[arg(short = 'f', long)]
    allow_missing: bool,
    #[command(flatten)]
    user: AsUser,
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        for file in self.files {
            let files = self.user.files(context, &file.vm).await?;
            let mut remove = files.remove(&file.path);
            if self.recursive {
                remove = remove.recursive();
            }
            if self.allow_missing {
                remove = remove.allow_missing();
            }
            remove.await?;
            context.printer().removed(&file.to_string())?;
        }
        Ok(0)
    }
}

/// Show what changes in a directory, or of a file, until you end it
#[derive(Debug, Args)]
#[command(after_help = "\
The first line says that changes are seen from now on. `overflow` says that some were lost, because there were too many: \
look anew then. It ends by itself when what is watched is gone.

Examples:
  banger file watch web:/srv/app --recursive
  banger file watch web:/var/log/app.log --output json")]
pub(crate) struct Watch {
    /// A directory or a file, as VM:PATH
    #[arg(value_parser = vm_path, add = ArgValueCompleter::new(complete_vm_path))]
    path: VmPath,
    /// The directories below it too, those that are made later included
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    user: AsUser,
}

impl Watch {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let files = self.user.files(context, &self.path.vm).await?;
        let mut watch = files.watch(self.path.path);
        if self.recursive {
            watch = watch.recursive();
        }
        let mut signals = Interrupts::new()?;
        let mut watcher = watch.open().await?;
        let printer = context.printer();
        loop {
            let event = tokio::select! {
                // cancel-safe: no event is lost
                event = watcher.next() => event?,
                // cancel-safe
                signal = signals.end() => return Ok(signal_code(signal)),
            };
            match event {
                None => return Ok(0),
                Some(WatchEvent::Started { .. }) => printer.item(&view::FileChange::started())?,
                Some(WatchEvent::Changed(event)) => {
                    printer.item(&view::FileChange::from(event))?;
                }
                Some(WatchEvent::Overflow) => printer.item(&view::FileChange::overflow())?,
            }
        }
    }
}
