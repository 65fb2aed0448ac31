//! One step in a VM: a command, files that are copied, a directory.

use std::io::Read as _;
use std::sync::Arc;

use banger_core::SessionId;
use banger_core::guest::{AttachTarget, GuestError, TreeSource};
use banger_core::session::{AttachOptions, Backpressure, Exit, SessionEvent, SessionSpec, Stream};
use banger_core::tree::{Naming, PathKind, TreeEntry, TreePiece, TreePlace};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::error::BuildError;
use super::fleet::{BuildVm, Fleet};
use super::log::{BuildLog, Origin};
use super::plan::{Action, Step};
use super::select::Selection;
use crate::error::AppError;

/// Pieces between a thread and the channel: a megabyte at most.
const PIECES_AHEAD: usize = 4;
/// Content is read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// How much of a failed command's output the error carries.
const TAIL_BYTES: usize = 2048;
/// A command is shortened to this for an error.
const COMMAND_CHARS: usize = 200;

/// Where a step is, for errors and the log.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) step: &'a Step,
    /// As in the operation's stages.
    pub(super) number: Arc<str>,
}

impl Place<'_> {
    pub(super) fn guest(&self, source: GuestError) -> AppError {
        let keyword = self.step.text.split_whitespace().next();
        AppError::from(BuildError::Guest {
            file: self.file.to_owned(),
            line: self.step.line,
            instruction: keyword.unwrap_or_default().to_owned(),
            source,
        })
    }
}

/// Runs a command and tells its output; anything but exit code 0 is a failure.
pub(super) async fn run(vm: &BuildVm, place: &Place<'_>, log: &BuildLog) -> Result<(), AppError> {
    let Action::Run {
        command,
        env,
        user,
        working_dir,
    } = &place.step.action
    else {
        return Ok(());
    };
    let id = SessionId::new();
    let spec = SessionSpec {
        command: command.clone(),
        env: env.clone(),
        // The image's own directory is made where it is missing.
        working_dir: match working_dir.as_str() {
            "" if vm.image_working_dir.is_empty() => String::new(),
            "" => "/".into(),
            dir if dir == vm.image_working_dir => String::new(),
            dir => dir.into(),
        },
        user: if user.is_empty() {
            "0".into()
        } else {
            user.clone()
        },
        terminal: None,
        stdin: false,
        timeout: None,
        ..SessionSpec::default()
    };
    let target = AttachTarget::Start {
        id,
        spec: Box::new(spec),
        remove_after_exit: false,
    };
    let options = AttachOptions {
        backpressure: Backpressure::HoldProcess,
        ..AttachOptions::default()
    };
    let input = stream::empty().boxed();
    let events = vm.guest.attach(target, options, input).await;
    let mut events = events.map_err(|error| place.guest(error))?;
    let mut tail = Vec::new();
    let exit = loop {
        match events.next().await {
            Some(Ok(SessionEvent::Output { stream, data, .. })) => {
                keep_tail(&mut tail, &data);
                let origin = match stream {
                    Stream::Stdout => Origin::Stdout,
                    Stream::Stderr => Origin::Stderr,
                };
                log.write(&place.number, origin, data);
            }
            Some(Ok(SessionEvent::Exited { exit, .. })) => break exit,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(place.guest(error)),
            None => return Err(place.guest(GuestError::Lost { during: "run" })),
        }
    };
    // What the command left running ends with it: a step is what it wrote.
    let ended = vm.guest.delete_session(id).await;
    ended.map_err(|error| place.guest(error))?;
    match exit {
        Exit::Code(0) => Ok(()),
        exit => Err(BuildError::StepFailed {
            file: place.file.to_owned(),
            line: place.step.line,
            command: place.step.text.chars().take(COMMAND_CHARS).collect(),
            ended: ended_with(exit),
            tail: text_of(&tail),
        }
        .into()),
    }
}

fn ended_with(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::OutOfMemory => "a kill: the VM ran out of memory (give it more with --memory)".into(),
        Exit::Deadline => "its deadline".into(),
        Exit::VmGone => "its VM".into(),
    }
}

fn keep_tail(tail: &mut Vec<u8>, data: &[u8]) {
    tail.extend_from_slice(data);
    let excess = tail.len().saturating_sub(TAIL_BYTES);
    tail.drain(..excess);
}

/// The last output as text, from the first whole line on, control characters left out.
pub(super) fn text_of(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    let text = match text.split_once('\n') {
        Some((_, rest)) if tail.len() >= TAIL_BYTES => rest,
        _ => &text,
    };
    let is_shown = |c: &char| *c == '\n' || *c == '\t' || !c.is_control();
    text.chars()
        .filter(is_shown)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Makes a directory that WORKDIR names.
pub(super) async fn workdir(vm: &BuildVm, place: &Place<'_>) -> Result<(), AppError> {
    let Action::Workdir { path, user } = &place.step.action else {
        return Ok(());
    };
    let owner = owner(vm, place, user).await?;
    let put = TreePlace {
        path: path.clone().into_bytes(),
        naming: Naming::Directory,
        owner,
    };
    let put = vm.guest.put_tree(&put, stream::empty().boxed()).await;
    put.map_err(|error| place.guest(error))
}

/// The ids of a user of the VM; numbers need no asking.
pub(super) async fn owner(
    vm: &BuildVm,
    place: &Place<'_>,
    user: &str,
) -> Result<(u32, u32), AppError> {
    let (name, group) = user.split_once(':').unwrap_or((user, user));
    if let (Ok(uid), Ok(gid)) = (name.parse(), group.parse()) {
        return Ok((uid, gid));
    }
    let resolved = vm.guest.resolve_user(user).await;
    resolved.map_err(|error| place.guest(error))
}

/// Puts what was selected.
pub(super) async fn put(
    fleet: &Fleet,
    vm: &BuildVm,
    place: &Place<'_>,
    to: &TreePlace,
    selection: Selection,
) -> Result<(), AppError> {
    let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
    let (failed, failure) = oneshot::channel();
    let (done, is_done) = oneshot::channel::<()>();
    fleet
        .tasks
        .spawn_blocking(move || match read_all(&selection, &pieces) {
            Ok(()) => {
                // The receiver is gone only when the call has ended.
                let _ = done.send(());
            }
            Err(error) => {
                let _ = failed.send(error);
            }
        });
    // Only what is whole has an end.
    let end = stream::once(async move {
        if is_done.await.is_err() {
            std::future::pending::<()>().await;
        }
        None
    });
    let source: TreeSource = ReceiverStream::new(receiver)
        .map(Some)
        .chain(end)
        .filter_map(|piece| async move { piece })
        .boxed();
    tokio::select! {
        biased; // why reading failed says more than that the stream broke off
        // cancel-safe: the other arm returns
        Ok(error) = failure => Err(BuildError::Context { detail: error.to_string() }.into()),
        // cancel-safe: dropping the call is how it is given up
        put = vm.guest.put_tree(to, source) => put.map_err(|error| place.guest(error)),
    }
}

fn read_all(selection: &Selection, pieces: &mpsc::Sender<TreePiece>) -> std::io::Result<()> {
    let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    for item in &selection.items {
        let entry = TreePiece::Entry(Box::new(item.entry.clone()));
        pieces.blocking_send(entry).map_err(gone)?;
        let Some((archive, number)) = &item.content else {
            continue;
        };
        let mut content = archive.content(*number);
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = content.read(&mut piece)?;
            if read == 0 {
                break;
            }
            piece.truncate(read);
            pieces
                .blocking_send(TreePiece::Data(piece.into()))
                .map_err(gone)?;
        }
    }
    Ok(())
}

/// Puts one file of the Dockerfile's own.
pub(super) async fn put_inline(
    vm: &BuildVm,
    place: &Place<'_>,
    to: &TreePlace,
    file: (TreeEntry, Vec<u8>),
) -> Result<(), AppError> {
    let mut pieces = vec![TreePiece::Entry(Box::new(file.0))];
    pieces.extend((!file.1.is_empty()).then(|| TreePiece::Data(Bytes::from(file.1))));
    let put = vm.guest.put_tree(to, stream::iter(pieces).boxed()).await;
    put.map_err(|error| place.guest(error))
}

/// What a path of a VM is.
pub(super) async fn list(
    vm: &BuildVm,
    place: &Place<'_>,
    path: &str,
) -> Result<PathKind, BuildError> {
    let listed = vm.guest.list_directory(format!("/{path}").as_bytes()).await;
    listed.map_err(|source| BuildError::Guest {
        file: place.file.to_owned(),
        line: place.step.line,
        instruction: "COPY".into(),
        source,
    })
}
