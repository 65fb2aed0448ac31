//! A snapshot on the wire: its parts, what is allowed in them, and in which order they come.
//!
//! The parts are the messages of the contract themselves. They mean the same on each hop and in both directions, so a
//! second set of types would only be converted to and fro. Whoever receives a snapshot has a [`Judge`] look at each
//! part before it is used or passed on; names are checked by [`path`], once for all.

mod check;
#[cfg(feature = "encoding")]
pub mod encoding;
mod fault;
mod judge;
pub mod limits;
pub mod path;

pub use banger_proto::workspace::v1::content::Encoding;
pub use banger_proto::workspace::v1::entry::Kind as EntryKind;
pub use banger_proto::workspace::v1::note::Kind as NoteKind;
pub use banger_proto::workspace::v1::part::Part as Piece;
pub use banger_proto::workspace::v1::r#ref::Kind as RefKind;
pub use banger_proto::workspace::v1::repository::{Kind as RepositoryKind, ObjectFormat};
pub use banger_proto::workspace::v1::unfinished::Kind as UnfinishedKind;
pub use banger_proto::workspace::v1::*;

pub use check::{check_base, check_known, check_notes, check_status};
pub use fault::Fault;
pub use judge::Judge;

/// Of the encodings of contents that the other side takes, the one to use; none where it takes them only as they are.
#[must_use]
pub fn chosen(accepted: &[i32]) -> Option<Encoding> {
    let is_accepted = |encoding: &Encoding| accepted.contains(&i32::from(*encoding));
    Some(Encoding::Zlib).filter(is_accepted)
}

/// A base in the form in which it is kept.
#[must_use]
pub fn kept(base: &Base) -> Vec<u8> {
    prost::Message::encode_to_vec(base)
}

/// The base that was kept in this form.
///
/// # Errors
/// If it is none.
pub fn kept_base(bytes: &[u8]) -> Result<Base, Fault> {
    let base: Base = prost::Message::decode(bytes).map_err(|_| Fault::Field {
        what: "what was kept is no base",
    })?;
    check_base(&base)?;
    Ok(base)
}

/// A part with this piece.
#[must_use]
pub fn part(piece: Piece) -> Part {
    Part { part: Some(piece) }
}
