//! Files of a guest, and the port to them: what somebody who uses a VM asks about its files.
//!
//! Every call is done with the rights of one of the guest's users; who that is, and what it may, is for the guest to
//! say. Names are bytes.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::FailureKind;
use crate::guest::{DownloadPieces, GuestError, TreeSource};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What is at a path of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// As it was asked for; in a list, relative to the directory that was listed.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Its length.
    pub size_bytes: u64,
    /// What it takes on the disk.
    pub allocated_bytes: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The owner's name; empty where there is none.
    pub user: String,
    /// The group's name; empty where there is none.
    pub group: String,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Names that the file has.
    pub link_count: u64,
    /// Where a symbolic link leads; empty for anything else.
    pub link_target: Vec<u8>,
    /// A directory that was to be listed and may not be.
    pub is_unreadable: bool,
}

/// A file of a guest, and as whom it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means the guest's default user.
    pub user: String,
    /// Absolute, or relative to the user's home.
    pub path: Vec<u8>,
}

/// Which part of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileRange {
    /// Of the first byte; negative counts from the end.
    pub offset: i64,
    /// How many bytes at most; absent means all.
    pub length: Option<u64>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Replaced at once when its content is whole.
    Replace,
    /// The same, and refused where something is already.
    Create,
    /// After what it has.
    Append,
    /// Into it.
    At {
        /// Where the first byte goes.
        offset: u64,
        /// The file ends after the last byte.
        truncate: bool,
    },
}

/// What a file becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWrite {
    /// How it is written.
    pub mode: WriteMode,
    /// What it gets beside its content.
    pub attributes: FileAttributes,
    /// Make the directories that are missing on the way.
    pub make_parents: bool,
}

/// Attributes of a file; what is absent stays, or is what a new file has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileAttributes {
    /// Permission bits with setuid, setgid and sticky.
    pub permissions: Option<u16>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means absent.
    pub owner: String,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: Option<(i64, u32)>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileListing {
    /// How far down: 1 means what is in the directory.
    pub depth: u32,
    /// The most entries.
    pub limit: u32,
    /// Only what comes after this path; empty means all.
    pub after: Vec<u8>,
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// To what it leads to.
    Follow,
    /// The link itself is meant.
    Keep,
}

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// A directory with all that is in it.
    pub recursive: bool,
    /// That there is nothing is no error.
    pub allow_missing: bool,
}

/// What a new name does where something has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacing {
    /// Takes its place.
    Allowed,
    /// Is refused.
    Refused,
}

/// What happens to watched files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// From now on changes are seen; always first.
    Started {
        /// Directories that are watched.
        directories: u32,
    },
    /// A change.
    Changed(FileChange),
    /// Changes were lost.
    Overflow,
    /// Still alive.
    Heartbeat,
}

/// A change of a watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// What happened.
    pub kind: ChangeKind,
    /// Relative to what is watched; empty for itself.
    pub path: Vec<u8>,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The same for both halves of a rename; 0 for anything else.
    pub rename: u32,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Its content changes.
    Modified,
    /// Whoever wrote it has closed it.
    Written,
    /// Its mode, owner, times or names changed.
    Attributes,
    /// It is gone.
    Removed,
    /// It has another path now.
    MovedFrom,
    /// It has this path now.
    MovedTo,
    /// What was watched itself is gone or elsewhere; the last event.
    RootGone,
}

/// Whose files a tree's become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeOwners {
    /// The user's that puts it.
    User,
    /// As the entries have them.
    Kept,
}

/// How much a tree had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeMoved {
    /// Entries.
    pub entries: u64,
    /// Bytes of contents, without holes.
    pub bytes: u64,
}

/// The content of a file on its way out of a guest.
pub type FileContent = BoxStream<'static, Result<Bytes, GuestError>>;
/// The content of a file on its way into a guest. Its end says that it is whole: a source that breaks off never ends.
pub type FileSource = BoxStream<'static, Bytes>;
/// What happens to watched files, up to an error or to [`ChangeKind::RootGone`].
pub type WatchEvents = BoxStream<'static, Result<WatchEvent, GuestError>>;

/// The part of a guest's port that is about its users' files. Dropping a call that changes something leaves it done,
/// not done, or, where it has several steps, done in part.
#[async_trait]
pub trait GuestFiles: Send + Sync + 'static {
    /// The file as it is, and the content of a part of it.
    async fn read_file(
        &self,
        place: &FilePlace,
        range: FileRange,
    ) -> Result<(FileInfo, FileContent), GuestError>;

    /// Writes a file.
    async fn write_file(
        &self,
        place: &FilePlace,
        write: &FileWrite,
        source: FileSource,
    ) -> Result<FileInfo, GuestError>;

    /// What is at a path.
    async fn stat_file(&self, place: &FilePlace, links: Links) -> Result<FileInfo, GuestError>;

    /// What is in a directory, each directory before what is in it, and whether more follows.
    async fn list_files(
        &self,
        place: &FilePlace,
        listing: &FileListing,
    ) -> Result<(Vec<FileInfo>, bool), GuestError>;

    /// Makes a directory; with `parents` all that are missing on the way, and one that is there is no error.
    async fn make_directory(
        &self,
        place: &FilePlace,
        permissions: Option<u16>,
        parents: bool,
    ) -> Result<FileInfo, GuestError>;

    /// Removes a file or directory; how many names were removed.
    async fn remove_file(&self, place: &FilePlace, removal: Removal) -> Result<u64, GuestError>;

    /// Gives a file another path.
    async fn rename_file(
        &self,
        from: &FilePlace,
        to: &[u8],
        replacing: Replacing,
    ) -> Result<FileInfo, GuestError>;

    /// Changes a file's attributes.
    async fn set_file_attributes(
        &self,
        place: &FilePlace,
        links: Links,
        attributes: &FileAttributes,
    ) -> Result<FileInfo, GuestError>;

    /// Makes a symbolic link.
    async fn make_symlink(
        &self,
        place: &FilePlace,
        target: &[u8],
        replacing: Replacing,
    ) -> Result<FileInfo, GuestError>;

    /// Tells what changes, from the answer on.
    async fn watch_files(
        &self,
        place: &FilePlace,
        recursive: bool,
    ) -> Result<WatchEvents, GuestError>;

    /// Puts a tree, whose first names are the last of `place` if `names_entry` and no directory is there.
    async fn upload_files(
        &self,
        place: &FilePlace,
        names_entry: bool,
        owners: TreeOwners,
        source: TreeSource,
    ) -> Result<TreeMoved, GuestError>;

    /// What is at a path, with all that is beneath it; the first entry has an empty path.
    async fn download_files(&self, place: &FilePlace) -> Result<DownloadPieces, GuestError>;
}

/// What a guest says that is wrong about a file. The words are the agent's reasons too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// Nothing is there.
    NotFound,
    /// Something is there.
    Exists,
    /// The user may not.
    AccessDenied,
    /// A directory where there must be none.
    IsDirectory,
    /// No directory where there must be one.
    NotDirectory,
    /// A device, pipe or socket where there must be a file.
    NotRegular,
    /// A directory that is not empty.
    NotEmpty,
    /// Symbolic links that lead nowhere but on.
    LinkLoop,
    /// The guest's disk is full, or the user's part of it.
    NoSpace,
    /// The file system is mounted for reading only.
    ReadOnly,
    /// A name or path is longer than Linux has them.
    NameTooLong,
    /// Something uses it, such as a mount.
    Busy,
    /// The new path is on another file system.
    OtherFileSystem,
    /// The file system cannot do it.
    Unsupported,
    /// Larger than the file system can have it.
    TooLarge,
    /// It changed while it was read.
    Changed,
    /// Directories lie in each other deeper than is gone.
    TooDeep,
    /// More directories than can be watched.
    TooManyWatches,
    /// Anything else.
    Other,
}

impl FileProblem {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::NotFound,
        Self::Exists,
        Self::AccessDenied,
        Self::IsDirectory,
        Self::NotDirectory,
        Self::NotRegular,
        Self::NotEmpty,
        Self::LinkLoop,
        Self::NoSpace,
        Self::ReadOnly,
        Self::NameTooLong,
        Self::Busy,
        Self::OtherFileSystem,
        Self::Unsupported,
        Self::TooLarge,
        Self::Changed,
        Self::TooDeep,
        Self::TooManyWatches,
        Self::Other,
    ];

    /// The stable word for it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FILE_NOT_FOUND",
            Self::Exists => "FILE_EXISTS",
            Self::AccessDenied => "FILE_ACCESS_DENIED",
            Self::IsDirectory => "FILE_IS_DIRECTORY",
            Self::NotDirectory => "FILE_NOT_DIRECTORY",
            Self::NotRegular => "FILE_NOT_REGULAR",
            Self::NotEmpty => "DIRECTORY_NOT_EMPTY",
            Self::LinkLoop => "FILE_LINK_LOOP",
            Self::NoSpace => "VM_DISK_FULL",
            Self::ReadOnly => "FILE_READ_ONLY",
            Self::NameTooLong => "FILE_NAME_TOO_LONG",
            Self::Busy => "FILE_BUSY",
            Self::OtherFileSystem => "FILE_OTHER_FILE_SYSTEM",
            Self::Unsupported => "FILE_UNSUPPORTED",
            Self::TooLarge => "FILE_TOO_LARGE",
            Self::Changed => "FILE_CHANGED",
            Self::TooDeep => "DIRECTORY_TOO_DEEP",
            Self::TooManyWatches => "TOO_MANY_WATCHES",
            Self::Other => "GUEST_FILE",
        }
    }

    /// The problem with this word.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|problem| problem.reason() == reason)
    }

    /// What kind of failure it is, of the file at `path`.
    #[must_use]
    pub fn kind(self, path: &str) -> FailureKind {
        let (resource, name) = ("file".to_owned(), path.to_owned());
        match self {
            Self::NotFound => FailureKind::NotFound { resource, name },
            Self::Exists => FailureKind::AlreadyExists { resource, name },
            Self::NameTooLong | Self::TooLarge => FailureKind::InvalidArgument {
                field: "path".into(),
            },
            Self::NoSpace => FailureKind::ResourceExhausted {
                subject: "guest/disk".into(),
            },
            Self::TooManyWatches => FailureKind::ResourceExhausted {
                subject: "guest/watches".into(),
            },
            _ => FailureKind::FailedPrecondition {
                subject: "guest/files".into(),
            },
        }
    }

    /// What helps.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotFound => {
                "Give a path that exists in the VM; `banger file list` shows what is there."
            }
            Self::Exists => "Give another path, or allow that it is replaced.",
            Self::AccessDenied => {
                "Do it as a user that may (--user root), or change the file's mode or owner."
            }
            Self::IsDirectory => {
                "It is a directory: give the path of a file, or ask for the whole tree (-r)."
            }
            Self::NotDirectory => "A part of the path is no directory: give one that is.",
            Self::NotRegular => {
                "Only regular files have content to read or write: devices, pipes and sockets do not."
            }
            Self::NotEmpty => {
                "Empty the directory first, or remove it with all that is in it (-r)."
            }
            Self::LinkLoop => "Mend the symbolic links on the path.",
            Self::NoSpace => {
                "Free space in the VM, or give it a larger disk (banger vm update --disk)."
            }
            Self::ReadOnly => "It is mounted for reading only in the VM: write elsewhere.",
            Self::NameTooLong => "Give a path of at most 4095 bytes, with names of at most 255.",
            Self::Busy => "Something in the VM uses it, such as a mount: end that first.",
            Self::OtherFileSystem => {
                "Copy it and remove the old one: a rename stays on one file system."
            }
            Self::Unsupported => {
                "The file system there cannot do it: use another directory of the VM."
            }
            Self::TooLarge => "The file system there has no files of this size.",
            Self::Changed => "Ask again when nothing in the VM changes it.",
            Self::TooDeep => {
                "Directories lie in each other more than 512 deep: work on a part of the tree."
            }
            Self::TooManyWatches => {
                "Watch fewer directories, or raise fs.inotify.max_user_watches in the VM."
            }
            Self::Other => {
                "Look at the path in the VM: what is there, and whether its disk is full."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_word_of_its_own() {
        for problem in FileProblem::ALL {
            assert_eq!(FileProblem::from_reason(problem.reason()), Some(problem));
        }
        assert_eq!(FileProblem::from_reason("GUEST_SAYS_SO"), None);
    }
}
