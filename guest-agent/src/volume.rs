//! Volumes: disks beside the two of the VM itself, mounted where the host says. And growth: a file system
//! becomes as large as its disk, while it is in use.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_proto::guest::v1::{GrowDiskRequest, VolumeMount};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount_remount};

use crate::agent::{Agent, Machine};
use crate::boot::{Kernel, disk_of, mounted, wait_for_size};
use crate::refusal::{Refusal, describe};
use crate::session::users::Users;
use crate::sys;

/// A volume is another VM's work: programs on it give nobody more rights, and its devices are none.
const FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOATIME);
/// The directory that every ext4 has.
const LOST_FOUND: &str = "lost+found";
/// The serial number of the VM's own writable disk.
const UPPER: &str = "upper";
/// Less than this at the end of a disk may not be enough for a block group: it is left.
const GROWTH_MIN_BYTES: u64 = 4 << 20;

/// The mounted volumes, in the order in which they were mounted.
#[derive(Debug, Default)]
pub struct Volumes(Mutex<Vec<Volume>>);

#[derive(Debug, Clone)]
struct Volume {
    serial: String,
    read_only: bool,
    /// The name of its device.
    device: String,
    /// The top of its file system, whatever is mounted over it later.
    top: Arc<OwnedFd>,
}

impl Volumes {
    fn lock(&self) -> MutexGuard<'_, Vec<Volume>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, serial: &str) -> Option<Volume> {
        self.lock()
            .iter()
            .find(|volume| volume.serial == serial)
            .cloned()
    }

    /// Marks those that can be written as clean, the last mounted first. For the end of the machine.
    pub(crate) fn settle(&self) {
        for volume in self.lock().iter().rev().filter(|volume| !volume.read_only) {
            let path = format!("/proc/self/fd/{}", volume.top.as_raw_fd());
            if let Err(error) = mount_remount(&path, MountFlags::RDONLY, "") {
                eprintln!("banger-agent: {} stays writable: {error}", volume.serial);
            }
        }
    }
}

/// Mounts what is not mounted yet of `wanted`; `user` gets the empty ones.
pub(crate) async fn mount(
    agent: &Agent,
    wanted: &[VolumeMount],
    user: &str,
) -> Result<(), Refusal> {
    let todo: Vec<VolumeMount> = in_order(wanted)
        .into_iter()
        .filter(|volume| agent.volumes.find(&volume.serial).is_none())
        .collect();
    if todo.is_empty() || agent.machine == Machine::Foreign {
        return Ok(());
    }
    let kernel = mounted()
        .ok_or_else(|| Refusal::invalid("there is no disk"))?
        .kernel;
    // Of no user of that name the sessions tell.
    let identity = Users::read(&agent.root).resolve(user).ok();
    let owner = identity.map_or((0, 0), |identity| (identity.uid, identity.gid));
    let work = move || {
        let mount = |volume: &VolumeMount| mount_one(&kernel, volume, owner);
        todo.iter().map(mount).collect::<Vec<_>>()
    };
    for mounted in blocking(work).await? {
        agent.volumes.lock().push(mounted?);
    }
    Ok(())
}

/// Parents before what lies in them.
fn in_order(wanted: &[VolumeMount]) -> Vec<VolumeMount> {
    let mut ordered = wanted.to_vec();
    ordered.sort_by(|a, b| Path::new(&a.path).cmp(Path::new(&b.path)));
    ordered
}

fn mount_one(kernel: &Kernel, volume: &VolumeMount, owner: (u32, u32)) -> Result<Volume, Refusal> {
    let VolumeMount {
        serial,
        path,
        read_only,
    } = volume;
    let failed = |step: &str, error: io::Error| {
        Refusal::setup(&format!("{step} {serial} at `{path}`"), describe(&error))
    };
    let device = disk_of(kernel, serial).map_err(|error| failed("waiting for", error))?;
    let place = Place::make(Path::new(path), owner)
        .map_err(|error| failed("making the directory for", error))?;
    let (flags, source) = (access(*read_only), format!("/dev/{device}"));
    rustix::mount::mount(&source, path.as_str(), "ext4", flags, Some(c""))
        .map_err(|error| failed("mounting", error.into()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(path.as_str(), flags, Mode::empty())
        .map_err(|error| failed("opening", error.into()))?;
    if !read_only {
        // A volume that stays small, or its maker's, is better than none.
        if let Err(error) = grow(&device, &top) {
            eprintln!("banger-agent: {serial} does not grow: {error}");
        }
        if let Err(error) = place.give(Path::new(path)) {
            eprintln!("banger-agent: {serial} stays its maker's: {error}");
        }
    }
    Ok(Volume {
        serial: serial.clone(),
        read_only: *read_only,
        device,
        top: Arc::new(top),
    })
}

fn access(read_only: bool) -> MountFlags {
    match read_only {
        true => FLAGS | MountFlags::RDONLY,
        false => FLAGS,
    }
}

/// Whose a mount point is, and what it may: what an empty volume there takes over.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Place {
    /// The directory at `path`, or a new one of `owner`.
    fn make(path: &Path, owner: (u32, u32)) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => Ok(Self {
                uid: there.uid(),
                gid: there.gid(),
                mode: there.mode() & 0o7777,
            }),
            Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path)?;
                let (uid, gid) = owner;
                Ok(Self {
                    uid,
                    gid,
                    mode: 0o755,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Gives it a volume that nobody has used.
    fn give(&self, top: &Path) -> io::Result<()> {
        let there = fs::metadata(top)?;
        if (there.uid(), there.gid()) != (0, 0) || !is_unused(top)? {
            return Ok(());
        }
        std::os::unix::fs::chown(top, Some(self.uid), Some(self.gid))?;
        fs::set_permissions(top, fs::Permissions::from_mode(self.mode))
    }
}

/// Whether a volume holds nothing but what it was made with.
fn is_unused(top: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(top)? {
        if entry?.file_name() != LOST_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the file system on a disk as large as the disk, once the disk is as large as the host says.
pub(crate) async fn grow_disk(agent: &Agent, request: GrowDiskRequest) -> Result<(), Refusal> {
    agent.ready().await?;
    let wanted =
        u64::try_from(request.size_bytes).map_err(|_| Refusal::invalid("the size is negative"))?;
    let disks = mounted().ok_or_else(|| Refusal::invalid("there is no disk"))?;
    let serial = request.serial;
    let (top, device) = match agent.volumes.find(&serial) {
        Some(volume) => (volume.top, volume.device),
        None if serial == UPPER => (disks.upper, disks.upper_device),
        None => return Err(Refusal::invalid("no disk has that serial number")),
    };
    let kernel = disks.kernel;
    blocking(move || {
        wait_for_size(&kernel, &device, wanted)
            .map_err(|error| Refusal::setup("waiting for the disk to grow", describe(&error)))?;
        grow(&device, &top)
            .map_err(|error| Refusal::setup("growing the file system", describe(&error)))
    })
    .await?
}

/// Makes a mounted file system as large as its disk.
fn grow(device: &str, top: &OwnedFd) -> io::Result<()> {
    let disk = File::open(format!("/dev/{device}"))?;
    let mut superblock = [0; SUPERBLOCK_BYTES];
    disk.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
    let has = Extent::of(&superblock).ok_or(io::ErrorKind::InvalidData)?;
    let disk_bytes = rustix::fs::seek(&disk, rustix::fs::SeekFrom::End(0))?;
    match has.grown(disk_bytes) {
        Some(blocks) => sys::resize(top.as_fd(), blocks),
        None => Ok(()),
    }
}

/// Where ext4 keeps its superblock; see the kernel's Documentation/filesystems/ext4/super.rst.
const SUPERBLOCK_AT: u64 = 1024;
/// As much of it as is read.
const SUPERBLOCK_BYTES: usize = 1024;

/// How large a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    blocks: u64,
    block_bytes: u64,
}

impl Extent {
    /// What a superblock says; none where it is no superblock.
    fn of(superblock: &[u8; SUPERBLOCK_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = superblock[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        let is_ext4 = superblock[0x38..0x3a] == [0x53, 0xef];
        let has_64_bits = word(0x60) & 0x80 != 0;
        let high = if has_64_bits { word(0x150) } else { 0 };
        let shift = word(0x18);
        (is_ext4 && shift <= 6).then(|| Self {
            blocks: u64::from(high) << 32 | u64::from(word(0x4)),
            block_bytes: 1024 << shift,
        })
    }

    /// How many blocks it has on a disk of this size; none where it has them already.
    fn grown(self, disk_bytes: u64) -> Option<u64> {
        let blocks = disk_bytes / self.block_bytes;
        let gained = blocks.saturating_sub(self.blocks) * self.block_bytes;
        (gained >= GROWTH_MIN_BYTES).then_some(blocks)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refusal::invalid("the agent's thread panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(path: &str) -> VolumeMount {
        VolumeMount {
            path: path.into(),
            ..VolumeMount::default()
        }
    }

    #[test]
    fn parents_are_mounted_before_what_lies_in_them() {
        let wanted = [
            volume("/data/a"),
            volume("/data-b"),
            volume("/data"),
            volume("/a/b/c"),
        ];
        let paths: Vec<String> = in_order(&wanted)
            .into_iter()
            .map(|volume| volume.path)
            .collect();
        assert_eq!(paths, ["/a/b/c", "/data", "/data/a", "/data-b"]);
    }

    /// A superblock of `blocks` blocks of 4096 bytes.
    fn superblock(blocks: u64, has_64_bits: bool) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[0x4..0x8]
            .copy_from_slice(&u32::try_from(blocks & 0xffff_ffff).unwrap().to_le_bytes());
        bytes[0x18] = 2;
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        if has_64_bits {
            bytes[0x60] = 0x80;
        }
        bytes[0x150..0x154].copy_from_slice(&u32::try_from(blocks >> 32).unwrap().to_le_bytes());
        bytes
    }

    #[test]
    fn a_file_system_grows_to_its_disk_and_not_beyond() {
        let has = Extent::of(&superblock(262_144, false)).unwrap();
        assert_eq!(has.grown(1 << 30), None);
        assert_eq!(has.grown((1 << 30) + GROWTH_MIN_BYTES - 1), None);
        assert_eq!(has.grown(3 << 30), Some(786_432));
        assert_eq!(has.grown(1 << 20), None, "it never shrinks");
    }

    #[test]
    fn the_high_half_counts_only_where_it_is_one() {
        let large = (1 << 32) + 5;
        assert_eq!(Extent::of(&superblock(large, true)).unwrap().blocks, large);
        assert_eq!(Extent::of(&superblock(large, false)).unwrap().blocks, 5);
    }

    #[test]
    fn what_is_no_superblock_is_none() {
        assert_eq!(Extent::of(&[0; SUPERBLOCK_BYTES]), None);
        let mut bytes = superblock(1, false);
        bytes[0x18..0x1c].copy_from_slice(&[0xff; 4]);
        assert_eq!(Extent::of(&bytes), None);
    }

    #[test]
    fn a_mount_point_that_is_missing_is_made_for_the_user() {
        let dir = std::env::temp_dir().join(format!("banger-volume-{}", std::process::id()));
        let path = dir.join("a/b");
        let place = Place::make(&path, (7, 8)).unwrap();
        let expected = Place {
            uid: 7,
            gid: 8,
            mode: 0o755,
        };
        assert_eq!(place, expected);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        let there = Place::make(&path, (7, 8)).unwrap();
        assert_eq!(there.mode, 0o1777, "one that is there keeps what it has");
        fs::write(dir.join("file"), "").unwrap();
        assert!(Place::make(&dir.join("file"), (7, 8)).is_err());
        assert!(is_unused(&path).unwrap());
        fs::create_dir(path.join(LOST_FOUND)).unwrap();
        assert!(is_unused(&path).unwrap());
        fs::write(path.join("x"), "").unwrap();
        assert!(!is_unused(&path).unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }
}
