//! The few things of an ELF file that matter here (System V ABI, "Object Files"; 64 bit, little endian).
//!
//! Every offset comes from the file and is checked; nothing is read outside it.

const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";
const MACHINE_X86_64: u16 = 62;
const SEGMENT_NOTE: u32 = 4;
/// The note with the 32-bit entry point (Xen, "PVH boot ABI"): `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;
/// Segments that are looked at for the entry: a kernel has about five, a file may claim 65,535.
const SEGMENTS_MAX: usize = 64;
/// Bytes of one segment's notes that are looked at: a kernel's notes have less than one KiB.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// An ELF file of this kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    /// Whether `bytes` begin like an ELF file of any kind.
    pub(super) fn is_elf(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC[..4])
    }

    /// A 64-bit file for x86-64; `None` for anything else.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let elf = Self { bytes };
        (bytes.starts_with(MAGIC) && elf.u16(18)? == MACHINE_X86_64).then_some(elf)
    }

    /// Whether it can be entered by the PVH protocol.
    pub(super) fn has_pvh_entry(self) -> bool {
        self.notes()
            .any(|note| self.is_pvh_note(note).unwrap_or(false))
    }

    /// A section's content.
    pub(super) fn section(self, wanted: &str) -> Option<&'a [u8]> {
        let names = self.section_header(usize::from(self.u16(62)?))?;
        let names = self.section_bytes(names)?;
        (0..usize::from(self.u16(60)?))
            .filter_map(|index| self.section_header(index))
            .find_map(|header| {
                let name = names.get(usize::try_from(self.u32(header)?).ok()?..)?;
                // Not to the name's end, which may be far, and the same for all.
                let rest = name.strip_prefix(wanted.as_bytes())?;
                if rest.first().is_some_and(|byte| *byte != 0) {
                    return None;
                }
                self.section_bytes(header)
            })
    }

    /// The segments with notes.
    fn notes(self) -> impl Iterator<Item = &'a [u8]> {
        let headers = self
            .u64(32)
            .and_then(|offset| usize::try_from(offset).ok())
            .unwrap_or(usize::MAX);
        let count = usize::from(self.u16(56).unwrap_or(0)).min(SEGMENTS_MAX);
        (0..count).filter_map(move |index| {
            let header = headers.checked_add(index * PROGRAM_HEADER_BYTES)?;
            if self.u32(header)? != SEGMENT_NOTE {
                return None;
            }
            let notes = self.range(self.u64(header + 8)?, self.u64(header + 32)?)?;
            Some(&notes[..notes.len().min(NOTE_BYTES_MAX)])
        })
    }

    /// Whether a run of notes holds the one with the entry.
    fn is_pvh_note(self, mut notes: &[u8]) -> Option<bool> {
        while !notes.is_empty() {
            let word =
                |at: usize| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
            let (name_len, value_len, kind) = (word(0)?, word(4)?, word(8)?);
            let (name_len, value_len) = (
                usize::try_from(name_len).ok()?,
                usize::try_from(value_len).ok()?,
            );
            let name = notes.get(12..12usize.checked_add(name_len)?)?;
            if kind == NOTE_PHYS32_ENTRY && name == NOTE_NAME {
                return Some(true);
            }
            let next = name_len
                .checked_next_multiple_of(4)?
                .checked_add(value_len.checked_next_multiple_of(4)?)?;
            notes = notes.get(12usize.checked_add(next)?..)?;
        }
        Some(false)
    }

    fn section_header(self, index: usize) -> Option<usize> {
        let offset = usize::try_from(self.u64(40)?)
            .ok()?
            .checked_add(index * SECTION_HEADER_BYTES)?;
        (offset.checked_add(SECTION_HEADER_BYTES)? <= self.bytes.len()).then_some(offset)
    }

    fn section_bytes(self, header: usize) -> Option<&'a [u8]> {
        self.range(self.u64(header + 24)?, self.u64(header + 32)?)
    }

    fn range(self, offset: u64, len: u64) -> Option<&'a [u8]> {
        let begin = usize::try_from(offset).ok()?;
        self.bytes
            .get(begin..begin.checked_add(usize::try_from(len).ok()?)?)
    }

    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(
            self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
        ))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    }

    fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(
            self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
        ))
    }
}
