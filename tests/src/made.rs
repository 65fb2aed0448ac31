//! A kernel that no VM boots, and that is imported in a moment: what its readers ask for, and noise.

use std::fs;
use std::path::{Path, PathBuf};

/// A module that guests are given where a kernel has it, and what it needs.
const MODULES: [(&str, &str); 2] = [("virtio", ""), ("virtio_blk", "virtio")];
const MACHINE_X86_64: u16 = 62;
const SEGMENT_NOTE: u32 = 4;
/// The entry that a VMM starts a kernel by, as a note of the kernel tells it (Xen, "PVH boot ABI").
const NOTE_PHYS32_ENTRY: u32 = 18;
const HEADERS_BYTES: u64 = 64 + 56;

/// The files of one.
#[derive(Debug, Clone)]
pub struct MadeKernel {
    /// Uncompressed, with a PVH entry.
    pub vmlinux: PathBuf,
    /// As `/lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl MadeKernel {
    /// Writes one whose `vmlinux` has `noise` in it.
    #[must_use]
    pub fn write(directory: &Path, noise: &[u8]) -> Self {
        let made = Self {
            vmlinux: directory.join("vmlinux"),
            modules: directory.join("modules"),
        };
        let banner = b"\0Linux version 6.1.0-made (x@y) #1\0";
        fs::write(&made.vmlinux, elf(&[banner, noise].concat())).unwrap();
        fs::create_dir_all(&made.modules).unwrap();
        for (name, needs) in MODULES {
            fs::write(made.modules.join(format!("{name}.ko")), module(needs)).unwrap();
        }
        made
    }
}

/// A 64-bit ELF file of one segment, the note with the entry, and of what follows it.
fn elf(rest: &[u8]) -> Vec<u8> {
    let entry = [
        &4_u32.to_le_bytes()[..],
        &8_u32.to_le_bytes(),
        &NOTE_PHYS32_ENTRY.to_le_bytes(),
        b"Xen\0",
        &[0; 8],
    ]
    .concat();
    let mut bytes = [0; 120];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"\x7fELF\x02\x01\x01");
    put(18, &MACHINE_X86_64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &SEGMENT_NOTE.to_le_bytes());
    put(72, &HEADERS_BYTES.to_le_bytes());
    put(96, &(entry.len() as u64).to_le_bytes());
    [&bytes[..], &entry, rest].concat()
}

/// A module that says what it needs in its section `.modinfo`.
fn module(needs: &str) -> Vec<u8> {
    let info = format!("license=GPL\0depends={needs}\0").into_bytes();
    let names = b"\0.modinfo\0";
    let mut bytes = elf(&info);
    let names_at = bytes.len();
    let info_at = names_at - info.len();
    bytes.extend_from_slice(names);
    let sections_at = bytes.len() as u64;
    for (name, at, length) in [(1_u32, info_at, info.len()), (0, names_at, names.len())] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
        bytes.extend(header);
    }
    bytes[40..48].copy_from_slice(&sections_at.to_le_bytes());
    bytes[60..62].copy_from_slice(&2_u16.to_le_bytes());
    bytes[62..64].copy_from_slice(&1_u16.to_le_bytes());
    bytes
}
