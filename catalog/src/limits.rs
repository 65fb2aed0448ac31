//! The bounds of everything that comes from outside.

/// Bytes of a `catalog.json`: 10,000 entries with full descriptions, in base64.
pub const CATALOG_BYTES_MAX: u64 = 32 << 20;
/// Bundles of one index, and kernels of one: what `banger catalog search` can still show at once.
pub const ENTRIES_MAX: usize = 10_000;
/// Signatures of one envelope: an old and a new key, and some to spare.
pub(crate) const SIGNATURES_MAX: usize = 16;
/// Bytes of a bundle's manifest: the bound that registries have for theirs.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an image's base disk, holes included.
pub const ROOTFS_BYTES_MAX: u64 = 256 << 30;
/// Bytes of a kernel, uncompressed.
pub const VMLINUX_BYTES_MAX: u64 = 512 << 20;
/// Bytes of one kernel module, uncompressed.
pub const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all modules of one kernel, uncompressed: a guest's are some ten MiB.
pub const MODULES_BYTES_MAX: u64 = 256 << 20;
/// Modules of one kernel bundle: a guest needs some twenty.
pub const MODULES_MAX: usize = 512;
/// Features of one kernel that a manifest tells of: banger asks for some thirty.
pub(crate) const FEATURES_MAX: usize = 256;
/// Bytes of a compressed bundle.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 30;
/// Characters of a description.
pub(crate) const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Bytes of one short text: a builder, a release, a platform's word.
pub(crate) const WORD_BYTES_MAX: usize = 256;
/// Bytes of one entry of an image's configuration.
pub(crate) const CONFIG_TEXT_BYTES_MAX: usize = 128 << 10;
/// Entries of each list of an image's configuration.
pub(crate) const CONFIG_ENTRIES_MAX: usize = 10_000;
/// Bytes of an artifact's path.
pub(crate) const PATH_BYTES_MAX: usize = 255;
/// Bytes of a bundle's name.
pub(crate) const NAME_BYTES_MAX: usize = 128;
/// Bytes of a bundle's version: that of a tag.
pub(crate) const VERSION_BYTES_MAX: usize = 128;
