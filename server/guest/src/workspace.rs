//! The calls about workspaces. Both directions are judged part by part: what a caller sends before the guest sees it,
//! and what the guest sends before anybody else does. Between this and a caller contents may be encoded, between this and
//! the guest they never are: it may be small, or translated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use banger_core::file::FilePlace;
use banger_core::guest::GuestError;
use banger_core::workspace::{
    ExportEvent, ExportEvents, GuestWorkspaces, Note, Part, PrepareEvent, PrepareEvents,
    PreparedWorkspace, Status as WorkspaceStatus, WorkspaceParts, WorkspacePreparation,
    WorkspaceProblem, WorkspaceView,
};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::export_workspace_response::Message as Exported;
use banger_proto::guest::v1::prepare_workspace_request::Message as Sent;
use banger_proto::guest::v1::prepare_workspace_response::Message as Told;
use banger_workspace::wire::encoding::Encoder;
use banger_workspace::wire::limits::{NOTES_MAX, PATH_MAX_BYTES};
use banger_workspace::wire::{
    Encoding, Fault, Judge, Needed, check_known, check_notes, check_status,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::time::timeout;
use tonic::Streaming;

use crate::coding::Coding;
use crate::convert::{offset, required, signed};
use crate::guest::{RemoteGuest, plain};
use crate::judge::{Asked, Call, bounded, broken, judge};
use crate::limits::{EVENT_MAX_BYTES, MESSAGE_MAX_BYTES, WORKSPACE_MESSAGE_MAX_BYTES};
use crate::link::Link;
use crate::pace::{Pace, Patience, paced};

/// Bytes of the digest of a state.
const STATE_BYTES: usize = 32;

fn by(during: &'static str, place: &FilePlace) -> Call {
    Call {
        asked: Some(Asked {
            user: place.user.clone(),
            program: String::new(),
            working_dir: String::new(),
        }),
        ..plain(during)
    }
}

fn place(place: &FilePlace) -> Option<proto::WorkspacePlace> {
    Some(proto::WorkspacePlace {
        user: place.user.clone(),
        path: Bytes::copy_from_slice(&place.path),
    })
}

/// The snapshot that a caller sends, as far as it came.
#[derive(Debug)]
struct Outgoing {
    judge: Judge,
    fault: Option<Fault>,
}

type Shared = Arc<Mutex<Outgoing>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Outgoing> {
    // A judge that panicked has let nothing through.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a caller's fault is to whoever asks.
fn malformed(fault: &Fault, place: &FilePlace) -> GuestError {
    GuestError::Workspace {
        problem: match fault {
            Fault::Cut => WorkspaceProblem::Cut,
            Fault::TooMany { .. } => WorkspaceProblem::TooLarge,
            _ => WorkspaceProblem::SnapshotInvalid,
        },
        path: bounded(&String::from_utf8_lossy(&place.path)),
        detail: bounded(&fault.to_string()),
    }
}

/// The parts that a guest may see, as it takes them: a snapshot with something wrong in it ends before that.
fn judged(
    parts: WorkspaceParts,
    coding: Coding,
    shared: Shared,
) -> impl futures::Stream<Item = proto::PrepareWorkspaceRequest> + Send {
    parts
        .then(move |part| {
            let coding = coding.clone();
            async move { coding.decoded(part).await }
        })
        .scan(shared, |shared, part| {
            let mut outgoing = locked(shared);
            let judged = part.and_then(|part| outgoing.judge.part(&part).map(|()| part));
            let allowed = match judged {
                Ok(part) => Some(part),
                Err(fault) => {
                    outgoing.fault = Some(fault);
                    None
                }
            };
            std::future::ready(allowed)
        })
        .map(|part| request(Sent::Part(part)))
}

fn request(message: Sent) -> proto::PrepareWorkspaceRequest {
    proto::PrepareWorkspaceRequest {
        message: Some(message),
    }
}

/// A preparation as it goes on.
struct Preparing {
    messages: Streaming<proto::PrepareWorkspaceResponse>,
    shared: Shared,
    place: FilePlace,
    silence: Duration,
    link: Arc<Link>,
    known: usize,
    has_known: bool,
    next_needed: u32,
    progress: u64,
}

impl Preparing {
    /// The next event; none at the end.
    async fn next(&mut self) -> Result<Option<PrepareEvent>, GuestError> {
        let call = by("prepare_workspace", &self.place);
        let (during, limit) = (call.during, self.silence);
        let message = match timeout(limit, self.messages.message()).await {
            Ok(Ok(message)) => message,
            Ok(Err(_)) if self.link.has_ended() => return Err(GuestError::Lost { during }),
            Ok(Err(status)) => {
                // The guest sees only that a snapshot with something wrong in it ends.
                let fault = locked(&self.shared).fault.take();
                return Err(match fault {
                    Some(fault) => malformed(&fault, &self.place),
                    None => judge(&status, &call),
                });
            }
            Err(_) => return Err(GuestError::Deadline { during, limit }),
        };
        match message {
            None => Err(broken("a preparation ended by itself")),
            Some(message) => self.event(message).map(Some),
        }
    }

    fn event(
        &mut self,
        message: proto::PrepareWorkspaceResponse,
    ) -> Result<PrepareEvent, GuestError> {
        match message.message {
            Some(Told::Known(mut known)) if !self.has_known => {
                self.known =
                    check_known(&known, self.known).map_err(|fault| broken(fault.to_string()))?;
                self.has_known = known.is_last;
                // It is this side that decodes.
                known.encodings = vec![Encoding::Zlib.into()];
                Ok(PrepareEvent::Known(known))
            }
            Some(Told::Needed(needed)) => {
                self.check_needed(&needed)?;
                Ok(PrepareEvent::Needed(needed))
            }
            Some(Told::ProgressBytes(bytes)) => {
                let bytes = offset(bytes, "progress")?;
                if bytes < self.progress {
                    return Err(broken("progress goes backwards"));
                }
                self.progress = bytes;
                Ok(PrepareEvent::Progress(bytes))
            }
            Some(Told::Prepared(prepared)) => {
                if locked(&self.shared).judge.end().is_err() {
                    return Err(broken("a workspace is there before all of it came"));
                }
                Ok(PrepareEvent::Prepared(check_prepared(prepared)?))
            }
            Some(Told::Heartbeat(_)) => Ok(PrepareEvent::Heartbeat),
            Some(Told::Known(_)) | None => {
                Err(broken("a message of a preparation is out of order"))
            }
        }
    }

    fn check_needed(&mut self, needed: &Needed) -> Result<(), GuestError> {
        let outgoing = locked(&self.shared);
        if !outgoing.judge.has_manifest() {
            return Err(broken("contents are wanted before the manifest is whole"));
        }
        for &entry in &needed.entries {
            if entry < self.next_needed || !outgoing.judge.is_file(entry as usize) {
                return Err(broken("a content is wanted that is none"));
            }
            self.next_needed = entry + 1;
        }
        Ok(())
    }
}

fn check_prepared(prepared: proto::PreparedWorkspace) -> Result<PreparedWorkspace, GuestError> {
    let path = prepared.path.to_vec();
    let is_path = path.first() == Some(&b'/') && path.len() <= PATH_MAX_BYTES && !path.contains(&0);
    if !is_path || prepared.state.len() != STATE_BYTES {
        return Err(broken("a workspace has no path or no state"));
    }
    Ok(PreparedWorkspace {
        path,
        state: prepared.state,
        notes: notes(prepared.notes)?,
    })
}

/// A guest's notes, whose words are bounded and without control characters.
fn notes(notes: Vec<Note>) -> Result<Vec<Note>, GuestError> {
    check_notes(&notes, NOTES_MAX).map_err(|fault| broken(fault.to_string()))?;
    Ok(notes.into_iter().map(harmless).collect())
}

fn harmless(mut note: Note) -> Note {
    note.detail = bounded(&note.detail);
    note
}

/// An export as it goes on.
struct Exporting {
    messages: Streaming<proto::ExportWorkspaceResponse>,
    judge: Judge,
    coding: Coding,
    /// None where contents are told as they are.
    encoder: Option<Encoder>,
    place: FilePlace,
    silence: Duration,
    link: Arc<Link>,
}

impl Exporting {
    async fn next(&mut self) -> Result<Option<ExportEvent>, GuestError> {
        let call = by("export_workspace", &self.place);
        let (during, limit) = (call.during, self.silence);
        let message = match timeout(limit, self.messages.message()).await {
            Ok(Ok(message)) => message,
            Ok(Err(_)) if self.link.has_ended() => return Err(GuestError::Lost { during }),
            Ok(Err(status)) => return Err(judge(&status, &call)),
            Err(_) => return Err(GuestError::Deadline { during, limit }),
        };
        let Some(message) = message else {
            let end = self.judge.end();
            return end
                .map(|()| None)
                .map_err(|fault| broken(fault.to_string()));
        };
        match message.message {
            Some(Exported::Part(part)) => {
                let judged = self.judge.part(&part);
                judged.map_err(|fault| broken(format!("the snapshot: {fault}")))?;
                let part = with_harmless_note(part);
                let part = self.coding.encoded(&mut self.encoder, part).await;
                let part = part.ok_or(GuestError::Lost { during })?;
                Ok(Some(ExportEvent::Part(part)))
            }
            Some(Exported::Heartbeat(_)) => Ok(Some(ExportEvent::Heartbeat)),
            None => Err(broken("a message of an export is empty")),
        }
    }
}

fn with_harmless_note(mut part: Part) -> Part {
    use banger_workspace::wire::Piece;
    if let Some(Piece::Note(note)) = part.part.take_if(|piece| matches!(piece, Piece::Note(_))) {
        part.part = Some(Piece::Note(harmless(note)));
    }
    part
}

impl RemoteGuest {
    /// What notices a guest that takes nothing: it looks at a tree that is there before it answers, and makes all of it
    /// before it says that it has.
    fn workspace_patience(&self) -> Patience {
        Patience {
            taking: self.deadlines.put,
            answering: self.deadlines.put,
        }
    }
}

#[async_trait]
impl GuestWorkspaces for RemoteGuest {
    async fn prepare_workspace(
        &self,
        preparation: &WorkspacePreparation,
        parts: WorkspaceParts,
    ) -> Result<PrepareEvents, GuestError> {
        let start = proto::PrepareWorkspaceStart {
            place: place(&preparation.place),
            overwrite: preparation.overwrite,
            replaceable_states: preparation.replaceable_states.clone(),
            author_name: preparation.author_name.clone(),
            author_email: preparation.author_email.clone(),
        };
        let shared: Shared = Arc::new(Mutex::new(Outgoing {
            judge: Judge::default(),
            fault: None,
        }));
        let first = stream::iter([request(Sent::Start(start))]);
        let sent = first.chain(judged(parts, self.coding.clone(), Arc::clone(&shared)));
        let (sent, pace) = paced(sent, self.workspace_patience());
        let mut client = self.workspaces(EVENT_MAX_BYTES);
        let answer = client.prepare_workspace(sent);
        let call = by("prepare_workspace", &preparation.place);
        let messages = self.answer(call, Some(self.deadlines.call), answer).await?;
        let preparing = Preparing {
            messages,
            shared,
            place: preparation.place.clone(),
            silence: self.deadlines.silence,
            link: Arc::clone(&self.link),
            known: 0,
            has_known: false,
            next_needed: 0,
            progress: 0,
        };
        Ok(events(preparing, pace))
    }

    async fn export_workspace(&self, view: &WorkspaceView) -> Result<ExportEvents, GuestError> {
        let request = proto::ExportWorkspaceRequest {
            place: place(&view.place),
            base: Some(view.base.clone()),
            had_git: view.had_git,
            max_bytes: signed(view.max_bytes),
        };
        let mut client = self.workspaces(WORKSPACE_MESSAGE_MAX_BYTES);
        let answer = client.export_workspace(request);
        let call = by("export_workspace", &view.place);
        let messages = self.answer(call, Some(self.deadlines.call), answer).await?;
        let exporting = Exporting {
            messages,
            judge: match view.max_bytes {
                0 => Judge::default(),
                limit => Judge::new(limit),
            },
            coding: self.coding.clone(),
            encoder: view.encoding.map(Encoder::new),
            place: view.place.clone(),
            silence: self.deadlines.silence,
            link: Arc::clone(&self.link),
        };
        let events = stream::unfold(Some(exporting), async |state| {
            let mut exporting = state?;
            match exporting.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(exporting))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(events.boxed())
    }

    async fn workspace_status(&self, view: &WorkspaceView) -> Result<WorkspaceStatus, GuestError> {
        let request = proto::GetWorkspaceStatusRequest {
            place: place(&view.place),
            base: Some(view.base.clone()),
            had_git: view.had_git,
        };
        let mut client = self.workspaces(MESSAGE_MAX_BYTES);
        let answer = client.get_workspace_status(request);
        let call = by("get_workspace_status", &view.place);
        let answer = self.answer(call, Some(self.deadlines.put), answer).await?;
        let mut status = required(answer.status, "the status")?;
        check_status(&status).map_err(|fault| broken(fault.to_string()))?;
        status.notes = notes(status.notes)?;
        Ok(status)
    }
}

/// The events of a preparation, up to its end. What is dropped gives it up.
fn events(preparing: Preparing, pace: Pace) -> PrepareEvents {
    let hold = preparing.link.hold();
    let lost = Box::pin(pace.lost("prepare_workspace", hold));
    let state = Some((preparing, lost));
    stream::unfold(state, async |state| {
        let (mut preparing, mut lost) = state?;
        let next = tokio::select! {
            // cancel-safe: what is lost is lost with the call
            next = preparing.next() => next,
            // cancel-safe: holds no state
            error = &mut lost => Err(error),
        };
        match next {
            Ok(None) => None,
            Ok(Some(event)) => {
                let is_last = matches!(event, PrepareEvent::Prepared(_));
                Some((Ok(event), (!is_last).then_some((preparing, lost))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
