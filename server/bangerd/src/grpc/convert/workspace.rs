//! Workspaces, both ways. Their parts are the same on each hop, and are judged on the way to the guest and from it.

use banger_app::workspace::{Preparation, View};
use banger_core::file::FilePlace;
use banger_core::workspace::{Base, ExportEvent, PrepareEvent};
use banger_proto::v1;
use banger_proto::v1::export_workspace_response::Message as Exported;
use banger_proto::v1::prepare_workspace_response::Message as Prepared;
use banger_workspace::wire::{check_base, chosen};

use super::field::{int, named, natural};
use super::file;
use crate::grpc::request::RequestError;

/// Bytes of a name or an address on commits.
const AUTHOR_MAX: usize = 1024;
/// Bytes of a state's digest.
const STATE_BYTES: usize = 32;

/// Slashes at the end of a path say nothing, and a workspace is found by its path.
pub(crate) fn tidy(path: &mut Vec<u8>) {
    while path.len() > 1 && path.last() == Some(&b'/') {
        path.pop();
    }
}

/// Where a workspace is carried to, and how.
pub(crate) fn preparation(start: v1::PrepareWorkspaceStart) -> Result<Preparation, RequestError> {
    let mut place = file::place("start.path", &start.path, start.user)?;
    tidy(&mut place.path);
    if !matches!(start.replaces_state.len(), 0 | STATE_BYTES) {
        return Err(RequestError::invalid(
            "start.replaces_state",
            "is no digest of a state",
        ));
    }
    Ok(Preparation {
        vm: named("start.vm", &start.vm)?.to_owned(),
        place,
        overwrite: start.overwrite,
        replaces_state: start.replaces_state,
        author_name: author("start.author_name", start.author_name)?,
        author_email: author("start.author_email", start.author_email)?,
        request_id: request_id(&start.request_id)?,
    })
}

fn author(field: &'static str, text: String) -> Result<String, RequestError> {
    let is_fit =
        text.len() <= AUTHOR_MAX && !text.contains(|c: char| c.is_control() || "<>".contains(c));
    match is_fit {
        true => Ok(text),
        false => Err(RequestError::invalid(field, "cannot stand on a commit")),
    }
}

fn request_id(id: &str) -> Result<String, RequestError> {
    if id.is_empty() {
        return Ok(String::new());
    }
    let uuid = uuid::Uuid::try_parse(id).ok().filter(|_| id.len() == 36);
    let uuid = uuid.ok_or_else(|| RequestError::invalid("start.request_id", "is not a UUID"))?;
    Ok(uuid.hyphenated().to_string())
}

/// What of a workspace is wanted.
pub(crate) fn view(
    vm: &str,
    place: FilePlace,
    base: Option<Base>,
    max_bytes: i64,
    accepted_encodings: &[i32],
) -> Result<View, RequestError> {
    if let Some(base) = &base {
        check_base(base).map_err(|fault| RequestError::invalid("base", fault.to_string()))?;
    }
    Ok(View {
        vm: named("vm", vm)?.to_owned(),
        place,
        base,
        max_bytes: natural("max_bytes", max_bytes)?,
        encoding: chosen(accepted_encodings),
    })
}

/// What the caller of a preparation is told.
pub(crate) fn prepared(event: PrepareEvent) -> v1::PrepareWorkspaceResponse {
    v1::PrepareWorkspaceResponse {
        message: Some(match event {
            PrepareEvent::Known(known) => Prepared::Known(known),
            PrepareEvent::Needed(needed) => Prepared::Needed(needed),
            PrepareEvent::Progress(bytes) => Prepared::ProgressBytes(int(bytes)),
            PrepareEvent::Prepared(prepared) => Prepared::Prepared(v1::PreparedWorkspace {
                path: String::from_utf8_lossy(&prepared.path).into_owned(),
                state: prepared.state,
                notes: prepared.notes,
            }),
            PrepareEvent::Heartbeat => Prepared::Heartbeat(v1::Heartbeat {}),
        }),
    }
}

/// What the caller of an export is told.
pub(crate) fn exported(event: ExportEvent) -> v1::ExportWorkspaceResponse {
    v1::ExportWorkspaceResponse {
        message: Some(match event {
            ExportEvent::Part(part) => Exported::Part(part),
            ExportEvent::Heartbeat => Exported::Heartbeat(v1::Heartbeat {}),
        }),
    }
}
