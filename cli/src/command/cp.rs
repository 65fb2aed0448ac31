//! `banger cp`: files into a VM and out of it.

use std::path::{Path, PathBuf};

use banger_sdk::types::file_info::Kind;
use banger_sdk::{Download, Error, Files, PackedTree, Source, Unpack, UnpackLimits, types};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::file::AsUser;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output;
use crate::place::{Place, VmPath, complete_place, place};
use crate::progress::Progress;
use crate::value;
use crate::view::{Copied, Omissions, shown};

/// Where a download leaves out what its archive does not have.
const LEFT_IN_VM: &str = "left out in the VM";

/// Copy files into a VM, or out of it
#[derive(Debug, Args)]
#[command(after_help = "\
One of the two is VM:PATH; a path that is not absolute begins at the user's home. As with cp, what is copied goes into a \
directory that is there, and otherwise gets that name; `DIR/.` is what is in a directory. Directories that are missing \
on the way in a VM are made. A link that is named is followed, those below are kept; a device or a pipe that is named is read or written \
as it is. A file here whose name has a colon \
is written ./NAME.

Modes, times, links, hard links, extended attributes and holes are kept; files that come in are the user's, and files \
that come out are yours, without setuid, devices and pipes. What does not come, or not as it is in the VM, is told: sockets, \
what is mounted below, what goes or becomes shorter meanwhile. A file appears under its name when it is whole, and nothing \
is written outside of DEST, whatever the VM sends.

With - a file is read from standard input or written to standard output; with -r that is a tar archive.

Examples:
  banger cp app.conf web:/etc/app/
  banger cp -r ./src web:work
  banger cp -r web:/var/log ./logs
  pg_dump db | banger cp - web:/srv/dump.sql
  banger cp -r web:/srv/data - | zstd > data.tar.zst")]
pub(crate) struct Cp {
    /// What to copy: VM:PATH, a path here, or - for standard input
    #[arg(value_name = "SOURCE", value_parser = place, add = ArgValueCompleter::new(complete_place))]
    source: Place,
    /// Where to: VM:PATH, a path here, or - for standard output
    #[arg(value_name = "DEST", value_parser = place, add = ArgValueCompleter::new(complete_place))]
    dest: Place,
    /// A directory with all that is in it
    #[arg(short, long)]
    recursive: bool,
    /// Files that come in keep their owners, by number, which only root of the VM may do
    #[arg(long)]
    keep_owners: bool,
    /// Write into the file that is there instead of replacing it; needs no right to its directory
    #[arg(long, conflicts_with_all = ["recursive", "keep_owners"])]
    in_place: bool,
    /// Refuse more than this to come out of the VM, holes included
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    max_size: Option<i64>,
    #[command(flatten)]
    user: AsUser,
}

impl Cp {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let signals = Interrupts::new()?;
        match (&self.source, &self.dest) {
            (Place::Vm(from), Place::Here(to)) => self.out(context, from, to, signals).await,
            (Place::Vm(from), Place::Stream) => self.out_to_stream(context, from, signals).await,
            (Place::Here(from), Place::Vm(to)) => {
                self.bring(context, Some(from), to, signals).await
            }
            (Place::Stream, Place::Vm(to)) => self.bring(context, None, to, signals).await,
            (Place::Vm(_), Place::Vm(_)) => Err(Failure::Usage {
                problem: "both are in VMs: copy by `banger cp -r A:PATH - | banger cp -r - B:PATH`"
                    .into(),
            }),
            _ => Err(Failure::Usage {
                problem: "neither is in a VM: one of them must be VM:PATH".into(),
            }),
        }
    }

    /// Into a VM, from a file here or from standard input.
    async fn bring(
        &self,
        context: &Context,
        from: Option<&PathBuf>,
        to: &VmPath,
        mut signals: Interrupts,
    ) -> Result<u8, Failure> {
        let is_directory = match from {
            Some(path) => is_directory(path)?,
            None => self.recursive,
        };
        if is_directory && !self.recursive {
            return Err(not_recursive(
                &from.map_or_else(String::new, |path| path.display().to_string()),
            ));
        }
        let files = self.user.files(context, &to.vm).await?;
        if to.path.ends_with('/') {
            must_be_directory(&files, &to.path).await?;
        }
        let shower = Shower::new(context, "upload", from.and_then(|path| size(path)));
        let progress = shower.callback();
        let copying = async {
            match from {
                Some(path) if !self.in_place && (self.recursive || !is_special(path)) => {
                    self.upload(&files, packed(path), to, progress).await
                }
                None if self.recursive => {
                    let archive = PackedTree::archive(std::io::stdin());
                    self.upload(&files, archive, to, progress).await
                }
                from => {
                    let source =
                        from.map_or_else(|| Source::reader(std::io::stdin()), Source::from);
                    self.write(&files, source, to, progress).await
                }
            }
        };
        let copied = tokio::select! {
            // dropped when it loses, and with it the call
            copied = copying => copied,
            // cancel-safe
            signal = signals.end() => Err(Failure::CopyInterrupted { signal }),
        };
        shower.clear();
        let (entries, bytes, omissions) = copied?;
        note(context, &omissions, "left out here");
        let source = from.map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        told(
            context,
            Copied {
                source,
                destination: to.to_string(),
                entries,
                bytes,
                skipped: 0,
                omissions,
            },
        )
    }

    async fn upload(
        &self,
        files: &Files,
        tree: PackedTree,
        to: &VmPath,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<(u64, u64, Omissions), Failure> {
        let mut upload = files.upload(tree, &to.path).progress(progress);
        if self.keep_owners {
            upload = upload.keep_owners();
        }
        let moved = upload.await?;
        let number = |count: i64| u64::try_from(count).unwrap_or_default();
        let omissions = moved.omissions.as_ref().map(Omissions::from);
        let (entries, bytes) = (number(moved.entry_count), number(moved.content_bytes));
        Ok((entries, bytes, omissions.unwrap_or_default()))
    }

    async fn write(
        &self,
        files: &Files,
        source: Source,
        to: &VmPath,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<(u64, u64, Omissions), Failure> {
        let mut write = files.write(&to.path).make_parents().progress(progress);
        if self.in_place {
            write = write.in_place();
        }
        let written = write.from(source).await?;
        let bytes = u64::try_from(written.size_bytes).unwrap_or_default();
        Ok((1, bytes, Omissions::default()))
    }

    /// Out of a VM, to a path here.
    async fn out(
        &self,
        context: &Context,
        from: &VmPath,
        to: &Path,
        mut signals: Interrupts,
    ) -> Result<u8, Failure> {
        let files = self.user.files(context, &from.vm).await?;
        let found = files.stat(&from.path).await?;
        let is_directory = found.kind() == Kind::Directory;
        if is_directory && !self.recursive {
            return Err(not_recursive(&from.to_string()));
        }
        if !is_directory && is_special(to) {
            return self.out_to_special(context, from, to, signals).await;
        }
        let total = (!is_directory).then_some(found.size_bytes);
        let shower = Shower::new(context, "download", total);
        let (stop, stopped) = oneshot::channel::<()>();
        let download = files
            .download(&from.path)
            .progress(shower.callback())
            .stop_when(async move {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            });
        let copied = self.unpack(download, from, to, &mut signals, stop).await;
        shower.clear();
        let copied = copied?;
        if copied.skipped > 0 && !context.quiet {
            let names: Vec<String> = copied
                .skipped_names
                .iter()
                .map(|name| shown(name))
                .collect();
            eprintln!(
                "banger: left out {} devices and pipes: {}",
                copied.skipped,
                names.join(", ")
            );
        }
        let omissions = Omissions::from(&copied.omissions);
        note(context, &omissions, LEFT_IN_VM);
        told(
            context,
            Copied {
                source: from.to_string(),
                destination: to.display().to_string(),
                entries: copied.entries,
                bytes: copied.bytes,
                skipped: copied.skipped,
                omissions,
            },
        )
    }

    /// Unpacks to the end; a signal ends it when no unfinished file is left.
    async fn unpack(
        &self,
        download: Download,
        from: &VmPath,
        to: &Path,
        signals: &mut Interrupts,
        stop: oneshot::Sender<()>,
    ) -> Result<banger_sdk::Unpacked, Failure> {
        let unpack = Unpack {
            contents: from.path.ends_with("/.") || from.path == ".",
            file_only: !self.recursive,
            limits: self.limits(),
        };
        let mut work = std::pin::pin!(download.unpack(to, unpack));
        let signal = tokio::select! {
            // the future stays pinned: nothing is lost when the other arm wins
            done = &mut work => return Ok(done?),
            // cancel-safe
            signal = signals.end() => signal,
        };
        // It has ended already, or is about to.
        let _ = stop.send(());
        match work.await {
            Ok(done) => Ok(done),
            Err(Error::GivenUp) => Err(Failure::CopyInterrupted { signal }),
            Err(error) => Err(error.into()),
        }
    }

    fn limits(&self) -> UnpackLimits {
        let default = UnpackLimits::default();
        let bytes = self.max_size.and_then(|mib| u64::try_from(mib).ok());
        UnpackLimits {
            bytes: bytes.map_or(default.bytes, |mib| mib.saturating_mul(1 << 20)),
            ..default
        }
    }

    /// Out of a VM, into a device or a pipe that is here: neither is replaced.
    async fn out_to_special(
        &self,
        context: &Context,
        from: &VmPath,
        to: &Path,
        mut signals: Interrupts,
    ) -> Result<u8, Failure> {
        let failed = |source| Error::Unpack {
            path: to.to_owned(),
            source,
        };
        let files = self.user.files(context, &from.vm).await?;
        let shower = Shower::new(context, "download", None);
        let copying = async {
            let mut out = File::options().write(true).open(to).await.map_err(failed)?;
            let mut progress = shower.callback();
            let mut bytes = 0;
            let mut content = files.read(&from.path).open().await?;
            while let Some(chunk) = content.next().await? {
                out.write_all(&chunk).await.map_err(failed)?;
                bytes += chunk.len() as u64;
                progress(bytes);
            }
            out.flush().await.map_err(failed)?;
            Ok::<_, Failure>(bytes)
        };
        let copied = tokio::select! {
            // dropped when it loses, and with it the call
            copied = copying => copied,
            // cancel-safe
            signal = signals.end() => Err(Failure::CopyInterrupted { signal }),
        };
        shower.clear();
        let copied = Copied {
            source: from.to_string(),
            destination: to.display().to_string(),
            entries: 1,
            bytes: copied?,
            skipped: 0,
            omissions: Omissions::default(),
        };
        told(context, copied)
    }

    /// Out of a VM, to standard output: a file as it is, a directory as a tar archive.
    async fn out_to_stream(
        &self,
        context: &Context,
        from: &VmPath,
        mut signals: Interrupts,
    ) -> Result<u8, Failure> {
        let files = self.user.files(context, &from.vm).await?;
        let shower = Shower::new(context, "download", None);
        let copying = async {
            let mut out = tokio::io::stdout();
            let mut progress = shower.callback();
            let mut bytes = 0;
            let mut omissions = Omissions::default();
            if self.recursive {
                let mut archive = files.download(&from.path).open().await?;
                while let Some(chunk) = archive.next().await? {
                    out.write_all(&chunk).await.map_err(Failure::write)?;
                    progress(archive.received_bytes());
                }
                let lacking = archive.moved().and_then(|moved| moved.omissions.as_ref());
                omissions = lacking.map(Omissions::from).unwrap_or_default();
            } else {
                let mut content = files.read(&from.path).open().await?;
                while let Some(chunk) = content.next().await? {
                    out.write_all(&chunk).await.map_err(Failure::write)?;
                    bytes += chunk.len() as u64;
                    progress(bytes);
                }
            }
            out.flush().await.map_err(Failure::write)?;
            Ok::<_, Failure>(omissions)
        };
        let copied = tokio::select! {
            // dropped when it loses, and with it the call
            copied = copying => copied,
            // cancel-safe
            signal = signals.end() => Err(Failure::CopyInterrupted { signal }),
        };
        shower.clear();
        note(context, &copied?, LEFT_IN_VM);
        Ok(0)
    }
}

/// Whether a path here is a directory; a link is what it leads to.
fn is_directory(path: &Path) -> Result<bool, Failure> {
    let metadata = path.metadata().map_err(|source| Error::Upload {
        path: path.to_owned(),
        source,
    })?;
    Ok(metadata.is_dir())
}

/// Whether a path here, or what a link there leads to, is a device, a pipe or a socket.
fn is_special(path: &Path) -> bool {
    let metadata = path.metadata();
    metadata.is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// The length of a file here.
fn size(path: &Path) -> Option<i64> {
    let metadata = path.metadata().ok()?;
    let length = metadata.is_file().then_some(metadata.len())?;
    i64::try_from(length).ok()
}

/// What is at a path here; of `DIR/.`, what is in it.
fn packed(path: &Path) -> PackedTree {
    let text = path.as_os_str().as_encoded_bytes();
    match text == b"." || text.ends_with(b"/.") {
        true => PackedTree::content_of(path),
        false => PackedTree::named(path),
    }
}

fn not_recursive(path: &str) -> Failure {
    Failure::Usage {
        problem: format!("`{path}` is a directory: copy it with -r"),
    }
}

/// A destination that ends in a slash is a directory that is there.
async fn must_be_directory(files: &Files, path: &str) -> Result<(), Failure> {
    match files.stat(path).await?.kind() {
        Kind::Directory => Ok(()),
        _ => Err(Failure::Usage {
            problem: format!("`{path}` in the VM is no directory"),
        }),
    }
}

/// Tells people what was not copied, or not as it is.
fn note(context: &Context, omissions: &Omissions, place: &str) {
    if let Some(note) = omissions.note().filter(|_| !context.quiet) {
        eprintln!("banger: {place}, or not copied as it is: {note}");
    }
}

/// Tells programs what was copied; people see that it is there.
fn told(context: &Context, copied: Copied) -> Result<u8, Failure> {
    if context.printer().is_json() {
        output::json(&copied)?;
    }
    Ok(0)
}

/// Shows how a copy goes.
pub(super) struct Shower {
    progress: Progress,
    stage: types::Stage,
}

impl Shower {
    pub(super) fn new(context: &Context, name: &str, total_bytes: Option<i64>) -> Self {
        let now = jiff::Timestamp::now();
        Self {
            progress: context.progress(),
            stage: types::Stage {
                name: name.to_owned(),
                start_time: Some(types::Timestamp {
                    seconds: now.as_second(),
                    nanos: 0,
                }),
                total_bytes,
                ..types::Stage::default()
            },
        }
    }

    pub(super) fn callback(&self) -> impl FnMut(u64) + Send + use<> {
        let (progress, mut stage) = (self.progress.clone(), self.stage.clone());
        move |bytes| {
            // Headers come on top of what a file has.
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            stage.done_bytes = stage.total_bytes.map_or(bytes, |total| bytes.min(total));
            progress.stage(&stage);
        }
    }

    pub(super) fn clear(&self) {
        self.progress.clear();
    }
}
