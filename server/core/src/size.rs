//! Limits of a VM's shape, checked once, where a request becomes a spec.

use std::time::Duration;

/// The fewest and the most vCPUs a VM may have.
pub const VCPU_COUNT: std::ops::RangeInclusive<u32> = 1..=64;
/// The least and the most memory a VM may have, MiB. Below the least a distribution's kernel does not boot.
pub const MEMORY_MIB: std::ops::RangeInclusive<u64> = 96..=1_048_576;
/// The least and the most writable disk a VM may have, MiB.
pub const DISK_MIB: std::ops::RangeInclusive<u64> = 64..=4_194_304;
/// The vCPUs of a VM for which the caller named none.
pub const DEFAULT_VCPU_COUNT: u32 = 1;
/// The memory of a VM for which the caller named none, MiB.
pub const DEFAULT_MEMORY_MIB: u64 = 512;
/// The writable disk of a VM for which the caller named none, MiB. Sparse: it takes what is written.
pub const DEFAULT_DISK_MIB: u64 = 8192;
/// The shortest and the longest time after which a VM may stop or delete itself.
pub const LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 24 * 3600);
/// The most labels on one resource.
pub const LABELS_MAX: usize = 64;
/// The most bytes in a label's key, and in its value.
pub const LABEL_BYTES_MAX: usize = 255;
/// The most bytes of the command of an image, and of the environment of a VM or an image.
pub const COMMAND_BYTES_MAX: usize = 3 << 19;
/// The most arguments of the command of an image, and the most variables of the environment of a VM or an image.
pub const COMMAND_ITEMS_MAX: usize = 16_384;
/// The most that a session's command and its environment may come to, as [`counted`]: what a guest's kernel takes of a
/// process whose stack has no limit (`fs/exec.c`, three quarters of `_STK_LIM`). What it takes of this one, by its own
/// stack's limit, the guest's kernel says itself.
pub const ARGUMENTS_BYTES_MAX: usize = 6 << 20;
/// What a word costs beside its bytes: its zero byte and its pointer.
const WORD_COST: usize = 1 + size_of::<u64>();

/// What the kernel counts of `words`, of which each is a number of bytes.
pub fn counted(words: impl Iterator<Item = usize>) -> usize {
    words.fold(0, |sum, bytes| {
        sum.saturating_add(bytes).saturating_add(WORD_COST)
    })
}
