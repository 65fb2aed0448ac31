//! The bounds of everything that comes from outside: registries, archives, images, kernels.
//!
//! Each is far above what real images hold and far below what would hurt the host.

use std::time::Duration;

pub(crate) use banger_archive::limits::{NAME_BYTES_MAX, PATH_DEPTH_MAX};

/// Bytes of one manifest or index: the bound registries themselves use.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one image configuration.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a token answer or an error body of a registry.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Layers of one image. Overlay filesystems stop far earlier.
pub(crate) const LAYERS_MAX: usize = 512;
/// Entries of one index.
pub(crate) const INDEX_ENTRIES_MAX: usize = 1024;
/// Bytes of one blob as it is served.
pub(crate) const BLOB_BYTES_MAX: u64 = 64 << 30;
/// Bytes of one image's layers, decompressed.
pub(crate) const UNCOMPRESSED_BYTES_MAX: u64 = 256 << 30;
/// Decompressed bytes below which a layer's compression ratio is not looked at.
pub(crate) const RATIO_FREE_BYTES: u64 = 1 << 30;
/// The most a layer may grow on decompression once past [`RATIO_FREE_BYTES`].
pub(crate) const RATIO_MAX: u64 = 250;
/// Files and directories of an image's tree, those that no layer declares included.
pub(crate) const INODES_MAX: u32 = 2_000_000;
/// Symbolic links followed, inside the image's own tree, on the way to one entry: the kernel's limit.
pub(crate) const SYMLINK_HOPS_MAX: usize = 40;
/// Names in the targets of symbolic links that are followed on the ways to all entries of an image together: four for
/// each of as many files as there may be. One entry alone can stand for some ten thousand.
pub(crate) const NAMES_FOLLOWED_MAX: usize = 8_000_000;
/// Bytes of the record of an image's layers; an image with more has none, and its layers are read again.
pub(crate) const RECORD_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the table in it.
pub(crate) const RECORD_TABLE_BYTES_MAX: u64 = 1 << 20;
/// Records that are looked at for one layer.
pub(crate) const RECORDS_TRIED_MAX: usize = 8;
/// Layers of one image that are decompressed at the same time, on however many processors.
pub(crate) const LAYERS_DECOMPRESSED_MAX: usize = 3;
/// Bytes of a layer that are decompressed before it is known where they go: before the layers below have been read.
pub(crate) const AHEAD_BYTES_MAX: usize = 40 << 20;
/// Layers of all pulls together of which that many are. The others wait: that is slower, and takes no memory.
pub(crate) const LAYERS_AHEAD_MAX: usize = 2;
/// Layers that come from one registry at the same time, all pulls together: a registry that stalls holds up its own.
pub(crate) const LAYER_JOBS_OF_REGISTRY_MAX: usize = 8;
/// Layers of all pulls together that are fetched and decompressed at the same time.
pub(crate) const LAYER_JOBS_MAX: usize = 48;
/// Archives and bundles that are read at the same time.
pub(crate) const READING_JOBS_MAX: usize = 32;
/// Bytes of a zstd window that a decoder may always have: what zstd writes up to level 19, and what containers' tools do.
pub(crate) const WINDOW_BYTES_FREE: u64 = 8 << 20;
/// MiB that the larger windows of all layers, archives and images' bundles have together: one of a bundle, or two of
/// layers. What waits for them is slow; what does not wait would let an image decide how much memory the daemon takes.
pub(crate) const WINDOWS_MIB_MAX: u32 = 128;
/// Images whose tree is made, and to whose disks shared files are copied, while their layers come. Of the others both is done
/// when all is there.
pub(crate) const EARLY_MAX: usize = 4;
/// Base disks written at the same time, but for what is copied early.
pub(crate) const CONVERSIONS_MAX: usize = 2;
/// After this time what a pull did not wait for is synced: until then the disk and the processors are left to what comes
/// next. The kernel leaves what programs write alone for as long or longer.
pub(crate) const SYNC_DELAY: Duration = Duration::from_secs(3);
/// Chunks of a layer between the network and each of the two threads that consume it. A chunk has at
/// most a few hundred KiB, typically 16 KiB.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 16;
/// Tries of one request to a registry.
pub(crate) const TRIES_MAX: u32 = 4;
/// The wait before the second try; it doubles with each further one.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait before another try that nobody asked for.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest wait that a registry may ask for (Retry-After). Who asks for more is not waited for: the pull
/// fails at once and says when to come back. Registries' windows are a minute, or hours.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(90);
/// A transfer's speed is looked at once in this many stall time-outs of waiting for the registry.
pub(crate) const SLOW_WINDOW_STALLS: u32 = 2;
/// Bytes that must come in that time. With the default time-out this is about 1 KiB/s: the slowest modem is
/// faster, a registry that only wants to keep us waiting is not.
pub(crate) const SLOW_BYTES_MIN: u64 = 64 << 10;
/// Bytes of a kernel, compressed or not.
pub(crate) const KERNEL_BYTES_MAX: u64 = 512 << 20;
/// Kernels being brought in at the same time: each is in memory meanwhile.
pub(crate) const KERNEL_IMPORTS_MAX: usize = 1;
/// Bytes of a kernel's configuration, decompressed: a distribution's has a quarter of a megabyte.
pub(crate) const KERNEL_CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Zeroes after the last member of a kernel bundle: what archivers round up to, and some to spare.
pub(crate) const BUNDLE_PADDING_BYTES_MAX: u64 = 1 << 20;
/// Options of a kernel's configuration: a distribution's has some ten thousand.
pub(crate) const KERNEL_OPTIONS_MAX: usize = 100_000;
/// Bytes of one kernel module, decompressed.
pub(crate) const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a text file of a modules directory (`modules.dep`, `modules.builtin`).
pub(crate) const MODULE_INDEX_BYTES_MAX: u64 = 16 << 20;
/// Files of one modules directory.
pub(crate) const MODULE_FILES_MAX: usize = 50_000;
/// Bytes of one package with a kernel.
pub(crate) const PACKAGE_BYTES_MAX: u64 = 2 << 30;
