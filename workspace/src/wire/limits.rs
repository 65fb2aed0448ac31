//! The bounds of a snapshot. Each side keeps them and no side trusts the other to.

/// Repositories of a workspace: its own, submodules, and others inside.
pub const REPOSITORIES_MAX: usize = 256;
/// References of all repositories together.
pub const REFS_MAX: usize = 200_000;
/// Entries of indexes that are not those of HEAD.
pub const INDEX_ENTRIES_MAX: usize = 1_000_000;
/// Entries of working trees.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Bytes of all names of a snapshot together.
pub const NAMES_MAX_BYTES: u64 = 256 << 20;
/// A path beneath the workspace: what the kernel takes.
pub const PATH_MAX_BYTES: usize = 4095;
/// A name within a path: what file systems take.
pub const NAME_MAX_BYTES: usize = 255;
/// Names within a path.
pub const DEPTH_MAX: usize = 256;
/// The name of a reference.
pub const REF_NAME_MAX_BYTES: usize = 1024;
/// Commits at the boundary of a shallow history.
pub const SHALLOW_MAX: usize = 50_000;
/// Commits that something unfinished is about.
pub const UNFINISHED_COMMITS_MAX: usize = 64;
/// Commits that the receiver has already, of all repositories together.
pub const KNOWN_COMMITS_MAX: usize = 100_000;
/// Notes of a snapshot.
pub const NOTES_MAX: usize = 1000;
/// The words of a note.
pub const NOTE_MAX_BYTES: usize = 1024;
/// A piece of a pack or of a content.
pub const DATA_MAX_BYTES: usize = 1 << 20;
/// Bytes of packs and contents of one snapshot.
pub const SNAPSHOT_MAX_BYTES: u64 = 64 << 30;
/// Encoded bytes of the names in one message; whoever sends begins a new one beyond it.
pub const MESSAGE_NAMES_BYTES: usize = 256 << 10;
/// Items in one message; whoever sends begins a new one beyond it.
pub const MESSAGE_ITEMS: usize = 4096;
/// Paths that a status tells of a repository.
pub const STATUS_PATHS_MAX: usize = 1000;
