//! Kernels and modules of a few bytes, as tests and fuzzers need them.

use std::io::Write as _;

/// Nothing here fails but for want of it.
const MEMORY: &str = "memory takes every byte";
pub(in crate::kernel) const BANNER: &[u8] = b"\0Linux version 6.1.0-42-test (x@y) #1\0";

/// A 64-bit ELF with one note segment.
pub(in crate::kernel) fn elf(note_kind: u32, machine: u16, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    let note = [
        &4u32.to_le_bytes()[..],
        &8u32.to_le_bytes(),
        &note_kind.to_le_bytes(),
        b"Xen\0",
        &[0; 8],
    ]
    .concat();
    bytes[64..68].copy_from_slice(&4u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&(note.len() as u64).to_le_bytes());
    bytes.extend(note);
    bytes.extend_from_slice(tail);
    bytes
}

/// A bzImage around `payload`.
pub(in crate::kernel) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 3 * 512 + 100];
    image[0x1f1] = 2;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x248..0x24c].copy_from_slice(&100u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).expect(MEMORY).to_le_bytes());
    image.extend_from_slice(payload);
    image
}

pub(in crate::kernel) fn with_length(mut payload: Vec<u8>, len: usize) -> Vec<u8> {
    payload.extend(u32::try_from(len).expect(MEMORY).to_le_bytes());
    payload
}

pub(in crate::kernel) fn payloads(kernel: &[u8]) -> Vec<Vec<u8>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(kernel).expect(MEMORY);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(kernel).expect(MEMORY);
    let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
    for block in kernel.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        lz4.extend(u32::try_from(block.len()).expect(MEMORY).to_le_bytes());
        lz4.extend(block);
    }
    vec![
        gzip.finish().expect(MEMORY),
        with_length(xz.finish().expect(MEMORY), kernel.len()),
        with_length(zstd::encode_all(kernel, 3).expect(MEMORY), kernel.len()),
        with_length(lz4, kernel.len()),
    ]
}

/// A module that says what it needs, in a real section.
pub(in crate::kernel) fn module(needs: &str) -> Vec<u8> {
    let info = format!("license=GPL\0depends={needs}\0").into_bytes();
    let names = b"\0.modinfo\0";
    let mut bytes = elf(0, 62, &info);
    let info_at = bytes.len() - info.len();
    let names_at = bytes.len();
    bytes.extend_from_slice(names);
    let sections = bytes.len() as u64;
    let mut section = |name: u32, at: usize, len: usize| {
        let mut header = [0u8; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
        bytes.extend(header);
    };
    section(1, info_at, info.len());
    section(0, names_at, names.len());
    bytes[40..48].copy_from_slice(&sections.to_le_bytes());
    bytes[60..62].copy_from_slice(&2u16.to_le_bytes());
    bytes[62..64].copy_from_slice(&1u16.to_le_bytes());
    bytes
}
