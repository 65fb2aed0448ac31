//! What a connection may cost. A client that goes beyond is refused, or disconnected where the protocol has no refusal.

use std::time::Duration;

/// How long it may take to tell a client that it is too late.
pub(crate) const FAREWELL_WITHIN: Duration = Duration::from_secs(5);
/// Keys that may be tried: an agent may hold many.
pub(crate) const AUTH_TRIES: usize = 32;
/// How long the guest has to tell of the user who logs in.
pub(crate) const USER_KNOWN_WITHIN: Duration = Duration::from_secs(20);
/// After this long without a byte from the client it is asked for a sign of life,
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(300);
/// and after this many questions without an answer it is gone. Whether the call that carries it lives is known sooner.
pub(crate) const KEEPALIVES_MAX: usize = 12;
/// Channels of a connection at once.
pub(crate) const CHANNELS_MAX: usize = 128;
/// Bytes of a channel that a client may have under way.
pub(crate) const WINDOW: u32 = 256 << 10;
/// From so many bytes on that wait in a channel the connection is slowed,
pub(crate) const BACKLOG_SLOWED: usize = 1 << 20;
/// for each packet by this much, and as much again for each of those steps.
pub(crate) const BACKLOG_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that wait in all channels of a connection; with more, nothing is read of it,
pub(crate) const BACKLOG_MAX: usize = 32 << 20;
/// and if nothing is taken for so long, it is disconnected.
pub(crate) const BACKLOG_WITHIN: Duration = Duration::from_secs(600);
/// Channels of a connection in all its life: the protocol's library keeps a little of each.
pub(crate) const CHANNELS_EVER_MAX: usize = 65_536;
/// The largest packet that a client may send.
pub(crate) const PACKET_MAX: u32 = 32 << 10;
/// Messages to the client that wait for the network.
pub(crate) const MESSAGES_WAITING: usize = 16;
/// Bytes of output that are sent to the client before the guest is asked for more.
pub(crate) const PIECE: usize = 64 << 10;
/// Variables that a client may set for a channel.
pub(crate) const ENV_MAX: usize = 64;
/// Bytes of their names and values.
pub(crate) const ENV_MAX_BYTES: usize = 64 << 10;
/// The longest command.
pub(crate) const COMMAND_MAX_BYTES: usize = 128 << 10;
/// Signals of a channel that wait to be sent.
pub(crate) const SIGNALS_WAITING: usize = 16;
/// How long a process has to end by itself after its client has gone, before it is killed.
pub(crate) const HANGUP_GRACE: Duration = Duration::from_secs(5);
/// How much of the guest's `/etc/passwd` is read.
pub(crate) const PASSWD_MAX_BYTES: u64 = 1 << 20;
/// The longest name of a user, as Linux has it.
pub(crate) const USER_MAX_BYTES: usize = 256;
/// The largest packet of SFTP.
pub(crate) const SFTP_PACKET_MAX: u32 = (256 << 10) + 1024;
/// The most bytes of a file in one packet.
pub(crate) const SFTP_DATA_MAX: u32 = 255 << 10;
/// Open files and directories of an SFTP channel.
pub(crate) const SFTP_HANDLES_MAX: usize = 64;
/// Names in one packet.
pub(crate) const SFTP_NAMES: usize = 128;
/// Names that are asked of the guest at once.
pub(crate) const SFTP_LISTED: u32 = 1024;
