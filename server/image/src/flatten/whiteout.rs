//! The names by which a layer says what of the layers below it hides.

/// What an entry's name says beside naming it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// An ordinary entry.
    None,
    /// Hides this name of the same directory.
    Whiteout(&'a str),
    /// Hides everything the directory has from below.
    Opaque,
    /// Bookkeeping of AUFS, which means nothing any more.
    Ignored,
    /// A whiteout of nothing, of `.` or of `..`.
    Invalid,
}

const PREFIX: &str = ".wh.";
const META_PREFIX: &str = ".wh..wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What the last component of `path` says.
pub(super) fn mark(path: &str) -> Mark<'_> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name == OPAQUE {
        return Mark::Opaque;
    }
    if name.starts_with(META_PREFIX)
        || parent
            .split('/')
            .any(|component| component.starts_with(META_PREFIX))
    {
        return Mark::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Mark::None,
        Some("" | "." | "..") => Mark::Invalid,
        Some(hidden) => Mark::Whiteout(hidden),
    }
}
