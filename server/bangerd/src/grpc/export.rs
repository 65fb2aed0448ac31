//! Streams of exports: `start`, chunks, `end`.

use banger_app::export::{Export, ExportPart};
use banger_proto::v1;
use bytes::Bytes;
use futures::stream;

use super::convert::field::int;
use super::refused;
use super::stream::{Answers, Drain, served};

/// The messages of a stream that is an export.
pub(crate) trait ExportMessage: Sized + Send + 'static {
    /// What comes.
    fn start(start: v1::ExportStart) -> Self;

    /// The next bytes.
    fn chunk(bytes: Bytes) -> Self;

    /// All of it has come.
    fn end(end: v1::ExportEnd) -> Self;

    /// Nothing yet.
    fn heartbeat() -> Self;
}

/// The parts of an export. A caller that hangs up ends it, and so does the daemon when its grace is over.
pub(crate) fn parts<T: ExportMessage>(export: Export, drain: &Drain) -> Answers<T> {
    let all = stream::unfold(export, |mut export| async {
        let part = export.next().await?;
        Some((part.map(message).map_err(refused), export))
    });
    served(all, drain.over.clone(), T::heartbeat)
}

fn message<T: ExportMessage>(part: ExportPart) -> T {
    match part {
        ExportPart::Start(head) => T::start(v1::ExportStart {
            content_bytes: int(head.content_bytes),
            name: head.name,
            version: head.version,
            manifest: head.manifest.into(),
        }),
        ExportPart::Chunk(bytes) => T::chunk(bytes),
        ExportPart::End { size_bytes, digest } => T::end(v1::ExportEnd {
            size_bytes: int(size_bytes),
            sha256: digest.hex(),
        }),
    }
}
