//! Contents in fewer bytes, for the way over a network. Whoever judges a snapshot sees the bytes as they are: pieces are
//! decoded before, and a [`Judge`](super::Judge) refuses those that still are encoded.

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::fault::{Fault, at_most};
use super::limits::DATA_MAX_BYTES;
use super::{Content, Encoding, Part, Piece};

/// What is shorter is told as it is.
const WORTH_BYTES: usize = 256;
/// How much more room is made for a piece at a time.
const ROOM_BYTES: usize = 64 << 10;

/// Encodes contents as they go by, where that makes them smaller.
#[derive(Debug)]
pub struct Encoder {
    encoding: Encoding,
    /// The file of which a piece was not made smaller: the rest of it is not tried.
    dense: Option<u32>,
}

impl Encoder {
    /// One that encodes so.
    #[must_use]
    pub const fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            dense: None,
        }
    }

    /// Whether encoding this part may make it smaller; if not, it stays as it is.
    #[must_use]
    pub fn wants(&self, part: &Part) -> bool {
        let Some(Piece::Content(content)) = &part.part else {
            return false;
        };
        content.data.len() >= WORTH_BYTES && self.dense != Some(content.entry)
    }

    /// Encodes a part.
    pub fn encode(&mut self, part: &mut Part) {
        if !self.wants(part) {
            return;
        }
        let Some(Piece::Content(content)) = &mut part.part else {
            return;
        };
        let encoded = match self.encoding {
            Encoding::Zlib => deflated(&content.data),
            Encoding::Unspecified => None,
        };
        match encoded {
            Some(encoded) => {
                content.data = encoded;
                content.set_encoding(self.encoding);
            }
            None => self.dense = Some(content.entry),
        }
    }
}

/// Decodes a part; one that is not encoded stays as it is.
///
/// # Errors
/// If it is not what its encoding says, or more than a piece may have. No more than that is ever in memory.
pub fn decode(part: &mut Part) -> Result<(), Fault> {
    match &mut part.part {
        Some(Piece::Content(content)) if is_encoded(content) => {
            content.data = decoded(content)?;
            content.set_encoding(Encoding::Unspecified);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a part must be decoded.
#[must_use]
pub const fn needs_decoding(part: &Part) -> bool {
    match &part.part {
        Some(Piece::Content(content)) => is_encoded(content),
        _ => false,
    }
}

/// Also where the encoding is none that is known.
const fn is_encoded(content: &Content) -> bool {
    content.encoding != Encoding::Unspecified as i32
}

fn decoded(content: &Content) -> Result<Bytes, Fault> {
    at_most("bytes in a piece", content.data.len(), DATA_MAX_BYTES)?;
    match Encoding::try_from(content.encoding) {
        Ok(Encoding::Zlib) => inflated(&content.data),
        Ok(Encoding::Unspecified) | Err(_) => Err(Fault::Field {
            what: "content has an encoding that is not known",
        }),
    }
}

/// None where it does not become smaller.
fn deflated(data: &[u8]) -> Option<Bytes> {
    let mut stream = Compress::new(Compression::fast(), true);
    let mut encoded = Vec::with_capacity(data.len() - 1);
    let status = stream.compress_vec(data, &mut encoded, FlushCompress::Finish);
    encoded.shrink_to_fit();
    matches!(status, Ok(Status::StreamEnd)).then(|| encoded.into())
}

fn inflated(data: &[u8]) -> Result<Bytes, Fault> {
    let damaged = |what| Fault::Field { what };
    let mut stream = Decompress::new(true);
    let mut plain = Vec::new();
    let mut taken = 0;
    loop {
        if plain.len() == plain.capacity() {
            // One more than there may be, so that the end is seen of what is as long as it may be.
            let room = (DATA_MAX_BYTES + 1 - plain.len()).min(plain.len().max(ROOM_BYTES));
            plain.reserve_exact(room);
        }
        let status = stream
            .decompress_vec(&data[taken..], &mut plain, FlushDecompress::None)
            .map_err(|_| damaged("an encoded piece is damaged"))?;
        at_most("bytes in a piece", plain.len(), DATA_MAX_BYTES)?;
        taken = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        match status {
            Status::StreamEnd if taken == data.len() => return Ok(plain.into()),
            Status::StreamEnd => return Err(damaged("something follows an encoded piece")),
            // There was room for more.
            Status::Ok | Status::BufError if plain.len() < plain.capacity() => {
                return Err(damaged("an encoded piece was cut"));
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::wire::{chosen, part};

    fn content(data: impl Into<Bytes>, encoding: i32) -> Part {
        part(Piece::Content(Content {
            entry: 3,
            data: data.into(),
            encoding,
            ..Content::default()
        }))
    }

    fn data_of(part: &Part) -> &Bytes {
        match &part.part {
            Some(Piece::Content(content)) => &content.data,
            _ => panic!("a part is no content"),
        }
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn tried(data: impl Into<Bytes>, encoding: i32) -> Result<Bytes, String> {
        let mut part = content(data, encoding);
        decode(&mut part).map_err(|fault| fault.to_string())?;
        assert!(!needs_decoding(&part));
        Ok(data_of(&part).clone())
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut chosen = fastrand::Rng::with_seed(7);
        std::iter::repeat_with(|| chosen.u8(..))
            .take(length)
            .collect()
    }

    #[test]
    fn what_is_encoded_becomes_what_it_was() {
        for length in [
            WORTH_BYTES,
            1000,
            ROOM_BYTES,
            ROOM_BYTES + 1,
            DATA_MAX_BYTES - 1,
            DATA_MAX_BYTES,
        ] {
            let plain: Vec<u8> = b"some words of a file\n"
                .iter()
                .copied()
                .cycle()
                .take(length)
                .collect();
            let mut part = content(plain.clone(), 0);
            Encoder::new(Encoding::Zlib).encode(&mut part);
            assert!(needs_decoding(&part));
            assert!(data_of(&part).len() < length / 2);
            decode(&mut part).unwrap();
            assert_eq!(data_of(&part)[..], plain);
            assert!(!needs_decoding(&part));
        }
        // As others encode it.
        assert_eq!(tried(zlib(b""), 1).unwrap(), Bytes::new());
        let dense = noise(DATA_MAX_BYTES - 1000);
        assert_eq!(tried(zlib(&dense), 1).unwrap()[..], dense);
    }

    #[test]
    fn what_does_not_become_smaller_stays_and_the_rest_of_the_file_too() {
        let mut encoder = Encoder::new(Encoding::Zlib);
        let short = content(vec![0; WORTH_BYTES - 1], 0);
        let mut same = short.clone();
        encoder.encode(&mut same);
        assert_eq!(same, short);
        let dense = content(noise(10_000), 0);
        let mut same = dense.clone();
        encoder.encode(&mut same);
        assert_eq!(same, dense);
        assert!(!encoder.wants(&content(vec![0; 10_000], 0)));
        let mut other = content(vec![0; 10_000], 0);
        if let Some(Piece::Content(content)) = &mut other.part {
            content.entry += 1;
        }
        encoder.encode(&mut other);
        assert!(needs_decoding(&other));
    }

    #[test]
    fn an_encoding_is_one_that_both_sides_know() {
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[0, 2, -1]), None);
        assert_eq!(chosen(&[2, 1]), Some(Encoding::Zlib));
    }

    #[test]
    fn what_lies_is_refused_and_takes_no_room() {
        let text = b"some words of a file\n".repeat(100);
        let whole = zlib(&text);
        let bomb = zlib(&vec![0; 64 << 20]);
        let one_more = zlib(&vec![0; DATA_MAX_BYTES + 1]);
        for (name, data, encoding, expected) in [
            ("a bomb", bomb, 1, "more than 1048576 bytes in a piece"),
            (
                "one more",
                one_more,
                1,
                "more than 1048576 bytes in a piece",
            ),
            ("nothing", Vec::new(), 1, "was cut"),
            ("half", whole[..whole.len() / 2].to_vec(), 1, "was cut"),
            (
                "no checksum",
                whole[..whole.len() - 4].to_vec(),
                1,
                "was cut",
            ),
            ("garbage", vec![0xff; 1000], 1, "damaged"),
            ("plain", text.clone(), 1, "damaged"),
            ("more", [&whole[..], b"x"].concat(), 1, "follows"),
            ("two", [&whole[..], &whole].concat(), 1, "follows"),
            ("unknown", whole.clone(), 2, "not known"),
            ("negative", whole.clone(), -1, "not known"),
        ] {
            let refused = tried(data, encoding).unwrap_err();
            assert!(refused.contains(expected), "{name}: {refused}");
        }
        let mut wrong = whole.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(tried(wrong, 1).unwrap_err().contains("damaged"));
        let long = noise(DATA_MAX_BYTES + 1);
        assert!(tried(long, 1).unwrap_err().contains("more than"));
        // With a dictionary that nobody has.
        let mut with = Compress::new(Compression::fast(), true);
        let mut encoded = Vec::with_capacity(10_000);
        with.set_dictionary(&text).unwrap();
        with.compress_vec(&text, &mut encoded, FlushCompress::Finish)
            .unwrap();
        assert!(tried(encoded, 1).unwrap_err().contains("damaged"));
    }
}
