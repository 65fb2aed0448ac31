//! The bounds of what an archive may say. Each is far above what real ones hold and far below what would hurt.

/// Bytes of one PAX header or GNU long name.
pub const TAR_EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Length of one file, holes included: ext4 with 4 KiB blocks holds 16 TiB, this is what is sensible.
pub const FILE_BYTES_MAX: u64 = 4 << 40;
/// Entries of one archive, or of all layers of an image together.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Bytes of names, link targets and extended attributes of the same.
pub const TEXT_BYTES_MAX: u64 = 192 << 20;
/// Bytes of the extended attributes of one file: an ext4 block less its header and end mark.
pub const XATTR_BYTES_MAX: usize = 4096 - 32 - 4;
/// Bytes of one name, as ext4 has it.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of one path, as Linux has it (`PATH_MAX` without its NUL).
pub const PATH_BYTES_MAX: usize = 4095;
/// Directories above an entry.
pub const PATH_DEPTH_MAX: usize = 512;
/// Pieces of one sparse file.
pub const SPARSE_PIECES_MAX: usize = 262_144;
