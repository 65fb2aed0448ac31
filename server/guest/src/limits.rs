//! The bounds on what a guest may say. What is beyond them breaks the protocol.

use std::time::Duration;

/// Longest message of a stream of events: the agent's largest frame is a quarter of it.
pub const EVENT_MAX_BYTES: usize = 1 << 20;
/// Longest message of a workspace: a repository with its shallow commits, or a piece with its envelope.
pub const WORKSPACE_MESSAGE_MAX_BYTES: usize = 4 << 20;
/// Longest message of a session's events: the first has the session, with its command and its environment.
pub const SESSION_EVENT_MAX_BYTES: usize = 8 << 20;
/// Longest other message: a list of sessions with their commands and environments.
pub const MESSAGE_MAX_BYTES: usize = 16 << 20;
/// Sessions in a list.
pub const SESSIONS_MAX: usize = 4096;
/// What a command with its environment, its directory and its user may come to, each word with its zero byte and its
/// pointer: what a session may have, with room.
pub const TEXT_MAX_BYTES: usize = 7 << 20;
/// Bytes of a version, a release or a boot id.
pub const LABEL_MAX_BYTES: usize = 128;
/// Steps of a boot.
pub const BOOT_STEPS_MAX: usize = 64;
/// Bytes of a guest's words that reach an error of ours.
pub const DETAIL_MAX_BYTES: usize = 256;
/// Bytes of the headers of an answer, which hold its reason.
pub const HEADERS_MAX_BYTES: u32 = 16 << 10;

/// Entries of a tree: more than any image of ours may have.
pub const TREE_ENTRIES_MAX: u64 = 4_000_000;
/// Bytes of all contents of a tree, whatever they are for.
pub const TREE_BYTES_MAX: u64 = 1 << 40;
/// Bytes of an entry's path or link, as Linux has it.
pub const PATH_MAX_BYTES: usize = 4096;
/// Extended attributes of an entry.
pub const XATTRS_MAX: usize = 64;
/// Bytes of all names and values of an entry's extended attributes.
pub const XATTRS_MAX_BYTES: usize = 128 << 10;
/// Names in a directory.
pub const NAMES_MAX: usize = 1 << 20;

/// Bytes of one file: more than any disk of ours has.
pub const FILE_BYTES_MAX: u64 = 1 << 50;
/// Bytes of the name of a user or group.
pub const OWNER_MAX_BYTES: usize = 256;
/// Directories of one watch: the agent's own bound is below.
pub const WATCHES_MAX: u32 = 1 << 20;

/// Bytes of memory or disk: more than any machine has.
pub const AMOUNT_MAX_BYTES: u64 = 1 << 50;
/// A guest's load: no more processes than there can be wait for a processor.
pub const LOAD_MAX: f64 = 4_194_304.0;
/// Processes of a guest: the kernel's own bound (`PID_MAX_LIMIT`).
pub const PROCESSES_MAX: u32 = 4_194_304;
/// A time since a guest's boot, or of all its processors together: a thousand processors for a century.
pub const TIME_MAX: Duration = Duration::from_secs(1000 * 100 * 366 * 86_400);
/// Interfaces of a guest.
pub const INTERFACES_MAX: usize = 64;
/// Sockets that a guest tells of.
pub const LISTENERS_MAX: usize = 1024;
/// Bytes of the name of a process or an interface, of which Linux has 15.
pub const NAME_MAX_BYTES: usize = 64;
/// Bytes of the title of a page.
pub const TITLE_MAX_BYTES: usize = 256;

/// Bytes of one call that a guest may send before they are read: what a reader that stops reading costs.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Bytes of all calls together: as many as HTTP/2 has, because a reader that stops must not stop the
/// others. How many calls there are is up to the host.
pub const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Largest HTTP/2 frame.
pub const FRAME_MAX_BYTES: u32 = 1 << 20;
/// Bytes of one call that wait for the channel.
pub const SEND_BUFFER_BYTES: usize = 512 << 10;
/// Standard input is sent in pieces of at most this size.
pub const STDIN_PIECE_BYTES: usize = 256 << 10;
