//! A disk that fails, for the directories that a test names: system calls on files there fail by chance, or stand
//! still.
//!
//! The calls of the C library that the standard library and SQLite make are defined here again, which a program may
//! do: the linker then takes these. Each makes the same system call as the one that it replaces, or fails before.
#![allow(unsafe_code, reason = "what replaces a function of C is one")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use libc::{SYS_fdatasync, SYS_fsync, SYS_ftruncate, SYS_mkdir, SYS_pread64, SYS_pwrite64};
use libc::{SYS_read, SYS_rename, SYS_write, mode_t, off_t, size_t, ssize_t};

/// Of so many calls, [`Trouble::chance`] go wrong.
const WHOLE: u64 = 1000;

/// What happens to the calls.
#[derive(Debug)]
enum Fault {
    /// So many of a thousand fail with this error.
    Fails { errno: c_int, chance: u64 },
    /// They wait.
    Holds,
}

/// Which calls are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// What makes, changes, renames or flushes files.
    Changes,
    /// What flushes files, and nothing else.
    Flushes,
    /// What reads files, too.
    All,
    /// What removes files and directories, and nothing else.
    Removals,
    /// What asks for a file's size and kind, and nothing else.
    Looks,
}

impl Calls {
    /// Whether a call of the kind `call` is meant.
    fn mean(self, call: Self) -> bool {
        match self {
            Self::All => matches!(call, Self::All | Self::Changes | Self::Flushes),
            Self::Changes => matches!(call, Self::Changes | Self::Flushes),
            Self::Flushes | Self::Removals | Self::Looks => self == call,
        }
    }
}

#[derive(Debug)]
struct Place {
    prefix: Vec<u8>,
    calls: Calls,
    fault: Fault,
    /// Of a generator of numbers that needs no lock.
    state: AtomicU64,
    /// How many calls went wrong, or wait.
    hit: AtomicUsize,
    is_over: Mutex<bool>,
    over: Condvar,
}

static PLACES: RwLock<Vec<Arc<Place>>> = RwLock::new(Vec::new());
/// How many there are: without any, a call costs one look.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Trouble with the files below a directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Trouble(Arc<Place>);

impl Trouble {
    /// Of a thousand calls, `chance` fail with `errno`.
    pub(crate) fn fails(below: &Path, calls: Calls, errno: c_int, chance: u64, seed: u64) -> Self {
        Self::begin(below, calls, Fault::Fails { errno, chance }, seed)
    }

    /// Every call that changes something waits.
    pub(crate) fn holds(below: &Path) -> Self {
        Self::begin(below, Calls::Changes, Fault::Holds, 1)
    }

    /// Every call that reads or changes something waits.
    pub(crate) fn holds_all(below: &Path) -> Self {
        Self::begin(below, Calls::All, Fault::Holds, 1)
    }

    /// Every call that removes something waits.
    pub(crate) fn holds_removals(below: &Path) -> Self {
        Self::begin(below, Calls::Removals, Fault::Holds, 1)
    }

    /// Every look at a file waits.
    pub(crate) fn holds_looks(below: &Path) -> Self {
        Self::begin(below, Calls::Looks, Fault::Holds, 1)
    }

    fn begin(below: &Path, calls: Calls, fault: Fault, seed: u64) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let place = Arc::new(Place {
            prefix: below.as_os_str().as_bytes().to_vec(),
            calls,
            fault,
            state: AtomicU64::new(seed | 1),
            hit: AtomicUsize::new(0),
            is_over: Mutex::new(false),
            over: Condvar::new(),
        });
        PLACES.write().unwrap().push(place.clone());
        COUNT.fetch_add(1, Ordering::SeqCst);
        Self(place)
    }

    /// How many calls went wrong, or wait.
    pub(crate) fn hit(&self) -> usize {
        self.0.hit.load(Ordering::SeqCst)
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| !Arc::ptr_eq(place, &self.0));
        COUNT.fetch_sub(1, Ordering::SeqCst);
        *self.0.is_over.lock().unwrap() = true;
        self.0.over.notify_all();
    }
}

impl Place {
    /// The error of a call, if it is to fail.
    fn strike(&self) -> Option<c_int> {
        match self.fault {
            Fault::Fails { errno, chance } => {
                let fails = self.next() % WHOLE < chance;
                self.hit.fetch_add(usize::from(fails), Ordering::SeqCst);
                fails.then_some(errno)
            }
            Fault::Holds => {
                self.hit.fetch_add(1, Ordering::SeqCst);
                let mut is_over = self.is_over.lock().unwrap();
                while !*is_over {
                    is_over = self.over.wait(is_over).unwrap();
                }
                None
            }
        }
    }

    /// Splitmix64.
    fn next(&self) -> u64 {
        let mut z = self
            .state
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What is to happen to a call on `path`.
fn judge(path: &[u8], call: Calls) -> Option<c_int> {
    let place = PLACES.read().ok()?.iter().find_map(|place| {
        let is_meant = path.starts_with(&place.prefix) && place.calls.mean(call);
        is_meant.then(|| place.clone())
    });
    place?.strike()
}

/// Whether a call on an open file is to fail; `errno` is set then.
fn fails_on(file: c_int, call: Calls) -> bool {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let link = format!("/proc/self/fd/{file}\0");
    let mut path = [0_u8; 4096];
    // SAFETY: the link's name ends with a zero, and the buffer is as long as is said.
    let length = unsafe {
        libc::syscall(
            libc::SYS_readlink,
            link.as_ptr(),
            path.as_mut_ptr(),
            path.len(),
        )
    };
    let Some(path) = usize::try_from(length).ok().and_then(|end| path.get(..end)) else {
        return false;
    };
    set(judge(path, call))
}

/// Whether a call on a path is to fail; `errno` is set then.
///
/// # Safety
/// `path` must be a string of C.
unsafe fn fails_at(path: *const c_char, call: Calls) -> bool {
    if COUNT.load(Ordering::Relaxed) == 0 || path.is_null() {
        return false;
    }
    // SAFETY: the caller gives a string of C.
    let path = unsafe { CStr::from_ptr(path) };
    set(judge(path.to_bytes(), call))
}

fn set(error: Option<c_int>) -> bool {
    if let Some(errno) = error {
        // SAFETY: the C library gives a thread its own.
        unsafe { *libc::__errno_location() = errno };
    }
    error.is_some()
}

/// Defines functions of the C library that work on an open file.
macro_rules! on_file {
    ($($name:ident ($($argument:ident: $kind:ty),*) -> $result:ty = $call:ident, $calls:ident;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(file: c_int $(, $argument: $kind)*) -> $result {
            if fails_on(file, Calls::$calls) {
                return -1;
            }
            // SAFETY: what the caller gave is given on to the system call that the C library makes with it.
            let done = unsafe { libc::syscall($call, file $(, $argument)*) };
            <$result>::try_from(done).unwrap_or(-1)
        }
    )*};
}

on_file! {
    write(data: *const c_void, length: size_t) -> ssize_t = SYS_write, Changes;
    read(data: *mut c_void, length: size_t) -> ssize_t = SYS_read, All;
    pwrite(data: *const c_void, length: size_t, at: off_t) -> ssize_t = SYS_pwrite64, Changes;
    pwrite64(data: *const c_void, length: size_t, at: off_t) -> ssize_t = SYS_pwrite64, Changes;
    pread(data: *mut c_void, length: size_t, at: off_t) -> ssize_t = SYS_pread64, All;
    pread64(data: *mut c_void, length: size_t, at: off_t) -> ssize_t = SYS_pread64, All;
    ftruncate(length: off_t) -> c_int = SYS_ftruncate, Changes;
    ftruncate64(length: off_t) -> c_int = SYS_ftruncate, Changes;
    fsync() -> c_int = SYS_fsync, Flushes;
    fdatasync() -> c_int = SYS_fdatasync, Flushes;
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller gives a string of C.
    if unsafe { fails_at(path, Calls::Changes) } {
        return -1;
    }
    // SAFETY: as in the C library.
    let done = unsafe { libc::syscall(SYS_mkdir, path, mode) };
    c_int::try_from(done).unwrap_or(-1)
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller gives strings of C.
    if unsafe { fails_at(to, Calls::Changes) } {
        return -1;
    }
    // SAFETY: as in the C library.
    let done = unsafe { libc::syscall(SYS_rename, from, to) };
    c_int::try_from(done).unwrap_or(-1)
}

#[unsafe(no_mangle)]
extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller gives a string of C.
    if unsafe { fails_at(path, Calls::Removals) } {
        return -1;
    }
    // SAFETY: as in the C library.
    let done = unsafe { libc::syscall(libc::SYS_unlink, path) };
    c_int::try_from(done).unwrap_or(-1)
}

#[unsafe(no_mangle)]
extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: the caller gives a string of C.
    if unsafe { fails_at(path, Calls::Removals) } {
        return -1;
    }
    // SAFETY: as in the C library.
    let done = unsafe { libc::syscall(libc::SYS_rmdir, path) };
    c_int::try_from(done).unwrap_or(-1)
}

/// Of what is removed by its place in an open directory, that directory is looked at.
#[unsafe(no_mangle)]
extern "C" fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    let fails = match directory {
        // SAFETY: the caller gives a string of C.
        libc::AT_FDCWD => unsafe { fails_at(path, Calls::Removals) },
        open => fails_on(open, Calls::Removals),
    };
    if fails {
        return -1;
    }
    // SAFETY: as in the C library.
    let done = unsafe { libc::syscall(libc::SYS_unlinkat, directory, path, flags) };
    c_int::try_from(done).unwrap_or(-1)
}

/// Of what is looked at by its place in an open directory, that directory is looked at; an open file has no path here.
#[unsafe(no_mangle)]
extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    found: *mut c_void,
) -> c_int {
    let fails = match directory {
        // SAFETY: the caller gives a string of C.
        libc::AT_FDCWD => unsafe { fails_at(path, Calls::Looks) },
        open => fails_on(open, Calls::Looks),
    };
    if fails {
        return -1;
    }
    // SAFETY: as in the C library.
    let done = unsafe { libc::syscall(libc::SYS_statx, directory, path, flags, mask, found) };
    c_int::try_from(done).unwrap_or(-1)
}

#[test]
fn files_of_a_troubled_directory_fail_and_others_do_not() {
    let (troubled, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |dir: &Path| std::fs::write(dir.join("a"), "b");
    write(troubled.path()).unwrap();
    let trouble = Trouble::fails(troubled.path(), Calls::Changes, libc::EIO, WHOLE, 1);
    let failed = write(troubled.path()).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    write(other.path()).unwrap();
    let made = std::fs::create_dir(troubled.path().join("d")).unwrap_err();
    assert_eq!(made.raw_os_error(), Some(libc::EIO));
    let read = std::fs::read(troubled.path().join("a"));
    assert!(read.is_ok(), "only changes fail");
    assert_eq!(trouble.hit(), 2);
    drop(trouble);
    write(troubled.path()).unwrap();
    let trouble = Trouble::fails(troubled.path(), Calls::All, libc::EIO, WHOLE, 1);
    std::fs::read(troubled.path().join("a")).unwrap_err();
    drop(trouble);
    std::fs::create_dir_all(troubled.path().join("tree/deep")).unwrap();
    let trouble = Trouble::fails(troubled.path(), Calls::Removals, libc::EIO, WHOLE, 1);
    write(troubled.path()).unwrap();
    std::fs::remove_file(troubled.path().join("a")).unwrap_err();
    std::fs::remove_dir_all(troubled.path().join("tree")).unwrap_err();
    assert!(trouble.hit() >= 2, "{}", trouble.hit());
    drop(trouble);
    let trouble = Trouble::fails(troubled.path(), Calls::Looks, libc::EIO, WHOLE, 1);
    std::fs::metadata(troubled.path().join("a")).unwrap_err();
    drop(trouble);
    std::fs::metadata(troubled.path().join("a")).unwrap();
    std::fs::remove_dir_all(troubled.path().join("tree")).unwrap();
    std::fs::remove_file(troubled.path().join("a")).unwrap();
}

#[test]
fn files_of_a_directory_that_stands_still_go_on_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Trouble::holds(dir.path());
    let path = dir.path().join("a");
    let writer = std::thread::spawn(move || std::fs::write(path, "b"));
    while trouble.hit() == 0 {
        std::thread::yield_now();
    }
    assert!(!writer.is_finished());
    drop(trouble);
    writer.join().unwrap().unwrap();
}
