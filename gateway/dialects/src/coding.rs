//! HTTP content codings, undone as the bytes pass: gzip, deflate (zlib and raw), br, zstd, also stacked.
//!
//! Every decoder is capped twice: in what it may give in all, and in its ratio to what it took. A body over a cap
//! is an error of the reader, not of the traffic: the coded bytes are what is forwarded and kept.

use std::io::{self, Write};

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc};
use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer};

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 1950, or the bare RFC 1951 that some senders mean by it.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

/// The most codings that are undone one behind the other.
pub const MAX_STACKED: usize = 4;

/// Why coded bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// A coding that is none of ours, or too many of them.
    #[error(
        "content-encoding `{0}` is not known: wanted gzip, deflate, br, zstd or identity, at most {MAX_STACKED} stacked"
    )]
    Unknown(String),
    /// The decoded bytes are more than allowed.
    #[error("decoded body is over the limit of {limit} bytes")]
    TooLarge {
        /// The bytes allowed: the whole limit, or what the ratio allows for the bytes taken so far.
        limit: u64,
    },
    /// Not bytes of that coding.
    #[error("the body is not valid {0}")]
    Corrupt(&'static str),
    /// The bytes end too early.
    #[error("the {0} body ends too early")]
    Truncated(&'static str),
}

/// How much a decoder may give.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Decoded bytes in all.
    pub bytes: u64,
    /// Decoded bytes for each coded byte; the first 64 KiB are free.
    pub ratio: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { bytes: 64 << 20, ratio: 1000 }
    }
}

/// Decoded bytes that the ratio does not count: short bodies of one repeated byte are no attack.
const FREE_BYTES: u64 = 64 << 10;

/// The codings of a body in the order in which they were applied; empty for a plain body.
///
/// # Errors
/// [`CodingError::Unknown`] with the whole header's text, shortened to 64 characters.
pub fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, CodingError> {
    let mut found = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| CodingError::Unknown("not text".into()))?;
        for name in text.split(',') {
            let coding = match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                _ => return Err(CodingError::Unknown(text.chars().take(64).collect())),
            };
            found.push(coding);
            if found.len() > MAX_STACKED {
                return Err(CodingError::Unknown(text.chars().take(64).collect()));
            }
        }
    }
    Ok(found)
}

/// Undoes a body's codings as it passes.
pub struct Decoder {
    stages: Vec<Stage>,
    caps: Caps,
    taken: u64,
    given: u64,
    failed: Option<CodingError>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("stages", &self.stages.len()).field("given", &self.given).finish()
    }
}

impl Decoder {
    /// A decoder of `codings`, in the order in which they were applied.
    pub fn new(codings: &[Coding], caps: Caps) -> Self {
        let stages = codings.iter().rev().map(|coding| Stage::new(*coding)).collect();
        Self { stages, caps, taken: 0, given: 0, failed: None }
    }

    /// True where there is nothing to undo.
    pub fn is_identity(&self) -> bool {
        self.stages.is_empty()
    }

    /// Takes coded bytes and gives decoded ones to `sink`, in pieces.
    ///
    /// # Errors
    /// Once failed, every later call fails alike; what was given before stands.
    pub fn feed(&mut self, coded: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), CodingError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // Small steps, so that what one step can blow up to stays small too.
        for step in coded.chunks(4 << 10) {
            if let Err(error) = self.step(step, sink) {
                self.failed = Some(error.clone());
                self.stages.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    fn step(&mut self, coded: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), CodingError> {
        self.taken += coded.len() as u64;
        if self.stages.is_empty() {
            self.given += coded.len() as u64;
            if self.given > self.caps.bytes {
                return Err(CodingError::TooLarge { limit: self.caps.bytes });
            }
            sink(coded);
            return Ok(());
        }
        // The cap holds for each stage alone: an inner stage that grows is stopped as the outer one is.
        let limit =
            self.caps.bytes.min(self.taken.saturating_mul(self.caps.ratio).saturating_add(FREE_BYTES));
        let mut bytes = coded.to_vec();
        for stage in &mut self.stages {
            let room = limit.saturating_sub(stage.given);
            let mut out = Vec::new();
            stage.decode(&bytes, &mut out, room).map_err(|e| e.into_error(stage.coding, limit))?;
            stage.given += out.len() as u64;
            bytes = out;
        }
        self.given += bytes.len() as u64;
        if !bytes.is_empty() {
            sink(&bytes);
        }
        Ok(())
    }

    /// The coded bytes have ended.
    ///
    /// # Errors
    /// [`CodingError::Truncated`] where a coding is unfinished; an empty body is whole in any coding.
    pub fn finish(&mut self) -> Result<(), CodingError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.taken == 0 {
            return Ok(());
        }
        for stage in &mut self.stages {
            if !stage.finished() {
                return Err(CodingError::Truncated(name(stage.coding)));
            }
        }
        Ok(())
    }
}

/// Undoes the codings of a body at hand.
///
/// # Errors
/// As [`Decoder::feed`] and [`Decoder::finish`].
pub fn decode_all(codings: &[Coding], body: &[u8], caps: Caps) -> Result<Vec<u8>, CodingError> {
    let mut decoder = Decoder::new(codings, caps);
    let mut out = Vec::new();
    decoder.feed(body, &mut |piece| out.extend_from_slice(piece))?;
    decoder.finish()?;
    Ok(out)
}

fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Gzip => "gzip",
        Coding::Deflate => "deflate",
        Coding::Brotli => "br",
        Coding::Zstd => "zstd",
    }
}

struct Stage {
    coding: Coding,
    given: u64,
    state: State,
}

enum State {
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// Fewer than the two bytes that tell zlib from raw deflate.
    Undecided(Vec<u8>),
    /// With whether its end was seen.
    Deflate(Decompress, bool),
    Brotli(Box<BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<brotli::HuffmanCode>>>, bool),
    Zstd(ZstdDecoder<'static>, bool),
    Failed,
}

enum Fault {
    Full,
    Corrupt,
}

impl Fault {
    fn into_error(self, coding: Coding, limit: u64) -> CodingError {
        match self {
            Self::Full => CodingError::TooLarge { limit },
            Self::Corrupt => CodingError::Corrupt(name(coding)),
        }
    }
}

/// Where the gzip decoder writes: refuses what is over the room of the moment.
#[derive(Default)]
struct Sink {
    out: Vec<u8>,
    room: u64,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.out.len() + bytes.len()) as u64 > self.room {
            self.full = true;
            return Err(io::Error::other("over the cap"));
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gzip_step(
    decoder: &mut MultiGzDecoder<Sink>,
    bytes: &[u8],
    out: &mut Vec<u8>,
    room: u64,
) -> Result<(), Fault> {
    decoder.get_mut().room = room;
    let written = decoder.write_all(bytes).and_then(|()| decoder.flush());
    let sink = decoder.get_mut();
    out.append(&mut sink.out);
    match written {
        Ok(()) => Ok(()),
        Err(_) if sink.full => Err(Fault::Full),
        Err(_) => Err(Fault::Corrupt),
    }
}

fn deflate_step(
    decoder: &mut Decompress,
    ended: &mut bool,
    bytes: &[u8],
    out: &mut Vec<u8>,
    room: u64,
) -> Result<(), Fault> {
    let (mut taken, mut filled) = (0, 0);
    loop {
        if *ended {
            out.truncate(filled);
            return if taken == bytes.len() { Ok(()) } else { Err(Fault::Corrupt) };
        }
        let length = grow(out, filled, bytes.len(), room)?;
        let space = out.get_mut(filled..length).ok_or(Fault::Full)?;
        let (in_before, out_before) = (decoder.total_in(), decoder.total_out());
        let status = decoder
            .decompress(bytes.get(taken..).unwrap_or_default(), space, FlushDecompress::None)
            .map_err(|_| Fault::Corrupt)?;
        let step = |now: u64, before: u64| usize::try_from(now - before).map_err(|_| Fault::Corrupt);
        taken += step(decoder.total_in(), in_before)?;
        filled += step(decoder.total_out(), out_before)?;
        if filled as u64 > room {
            return Err(Fault::Full);
        }
        *ended = status == Status::StreamEnd;
        // Output that fills its space may have more behind it.
        if !*ended && taken == bytes.len() && filled < length {
            out.truncate(filled);
            return Ok(());
        }
        if !*ended && status == Status::BufError && filled < length {
            return Err(Fault::Corrupt);
        }
    }
}

impl Stage {
    fn new(coding: Coding) -> Self {
        let state = match coding {
            Coding::Gzip => State::Gzip(Box::new(MultiGzDecoder::new(Sink::default()))),
            Coding::Deflate => State::Undecided(Vec::new()),
            Coding::Brotli => State::Brotli(
                Box::new(BrotliState::new(
                    HeapAlloc::new(0),
                    HeapAlloc::new(0),
                    HeapAlloc::new(brotli::HuffmanCode::default()),
                )),
                false,
            ),
            Coding::Zstd => match zstd_decoder() {
                Ok(decoder) => State::Zstd(decoder, false),
                Err(_) => State::Failed,
            },
        };
        Self { coding, given: 0, state }
    }

    fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>, room: u64) -> Result<(), Fault> {
        if let State::Undecided(begun) = &mut self.state {
            begun.extend_from_slice(bytes);
            let [first, second, ..] = begun.as_slice() else { return Ok(()) };
            let zlib = first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0;
            let begun = std::mem::take(begun);
            self.state = State::Deflate(Decompress::new(zlib), false);
            return self.decode(&begun, out, room);
        }
        match &mut self.state {
            State::Gzip(decoder) => gzip_step(decoder, bytes, out, room),
            State::Deflate(decoder, ended) => deflate_step(decoder, ended, bytes, out, room),
            State::Brotli(state, ended) => brotli_step(state, ended, bytes, out, room),
            State::Zstd(decoder, between) => zstd_step(decoder, between, bytes, out, room),
            State::Undecided(_) | State::Failed => Err(Fault::Corrupt),
        }
    }

    fn finished(&mut self) -> bool {
        match &mut self.state {
            State::Gzip(decoder) => decoder.try_finish().is_ok(),
            State::Deflate(_, ended) | State::Brotli(_, ended) => *ended,
            State::Zstd(_, between) => *between,
            State::Undecided(_) | State::Failed => false,
        }
    }
}

fn zstd_decoder() -> io::Result<ZstdDecoder<'static>> {
    let mut decoder = ZstdDecoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(23))?;
    Ok(decoder)
}

/// Makes room for another piece of output within `room`; the new length.
fn grow(out: &mut Vec<u8>, from: usize, coded: usize, room: u64) -> Result<usize, Fault> {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let piece = if from == 0 { (4 * coded).clamp(512, 16 << 10) } else { 16 << 10 };
    let length = (from + piece).min(room.saturating_add(1));
    if from > room {
        return Err(Fault::Full);
    }
    out.resize(length, 0);
    Ok(length)
}

fn brotli_step(
    state: &mut BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<brotli::HuffmanCode>>,
    ended: &mut bool,
    bytes: &[u8],
    out: &mut Vec<u8>,
    room: u64,
) -> Result<(), Fault> {
    if *ended {
        return if bytes.is_empty() { Ok(()) } else { Err(Fault::Corrupt) };
    }
    let (mut input_left, mut input_at, mut filled, mut total) = (bytes.len(), 0, 0, 0);
    loop {
        let length = grow(out, filled, bytes.len(), room)?;
        let mut output_left = length - filled;
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut input_at,
            bytes,
            &mut output_left,
            &mut filled,
            out.as_mut_slice(),
            &mut total,
            state,
        );
        if filled as u64 > room {
            return Err(Fault::Full);
        }
        match result {
            BrotliResult::ResultSuccess => {
                out.truncate(filled);
                *ended = true;
                return if input_left == 0 { Ok(()) } else { Err(Fault::Corrupt) };
            }
            BrotliResult::NeedsMoreInput => {
                out.truncate(filled);
                return Ok(());
            }
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultFailure => return Err(Fault::Corrupt),
        }
    }
}

fn zstd_step(
    decoder: &mut ZstdDecoder<'static>,
    between: &mut bool,
    bytes: &[u8],
    out: &mut Vec<u8>,
    room: u64,
) -> Result<(), Fault> {
    let mut input = InBuffer::around(bytes);
    let mut filled = 0;
    loop {
        let length = grow(out, filled, bytes.len(), room)?;
        let (hint, produced) = {
            let space = out.get_mut(filled..length).ok_or(Fault::Full)?;
            let mut output = OutBuffer::around(space);
            let hint = decoder.run(&mut input, &mut output).map_err(|_| Fault::Corrupt)?;
            (hint, output.pos())
        };
        filled += produced;
        if filled as u64 > room {
            return Err(Fault::Full);
        }
        if !bytes.is_empty() {
            *between = hint == 0;
        }
        // Output that fills its space may have more behind it.
        if input.pos() == bytes.len() && filled < length {
            out.truncate(filled);
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use std::io::Read;

    fn code(coding: &str, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            "gzip" => drop(flate2::read::GzEncoder::new(plain, Compression::default()).read_to_end(&mut out)),
            "zlib" => {
                drop(flate2::read::ZlibEncoder::new(plain, Compression::default()).read_to_end(&mut out))
            }
            "raw" => {
                drop(flate2::read::DeflateEncoder::new(plain, Compression::default()).read_to_end(&mut out))
            }
            "br" => drop(brotli::CompressorReader::new(plain, 4096, 5, 20).read_to_end(&mut out)),
            _ => out = zstd::encode_all(plain, 3).unwrap(),
        }
        out
    }

    const KINDS: [(&str, Coding); 5] = [
        ("gzip", Coding::Gzip),
        ("zlib", Coding::Deflate),
        ("raw", Coding::Deflate),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ];

    fn text() -> Vec<u8> {
        (0..1500_u32)
            .flat_map(|i| format!("{{\"n\":{}}} ", i.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    #[test]
    fn every_coding_comes_back_whole_and_byte_by_byte() {
        for plain in [text(), b"x".to_vec(), Vec::new()] {
            for (kind, coding) in KINDS {
                let coded = code(kind, &plain);
                assert_eq!(decode_all(&[coding], &coded, Caps::default()).unwrap(), plain, "{kind}");
                let mut decoder = Decoder::new(&[coding], Caps::default());
                let mut out = Vec::new();
                for byte in coded.chunks(1) {
                    decoder.feed(byte, &mut |piece| out.extend_from_slice(piece)).unwrap();
                }
                decoder.finish().unwrap();
                assert_eq!(out, plain, "{kind} byte by byte");
            }
        }
    }

    #[test]
    fn what_is_flushed_is_given_at_once() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"data: a\n\n").unwrap();
        encoder.flush().unwrap();
        let mut decoder = Decoder::new(&[Coding::Gzip], Caps::default());
        let mut out = Vec::new();
        decoder.feed(encoder.get_ref(), &mut |piece| out.extend_from_slice(piece)).unwrap();
        assert_eq!(out, b"data: a\n\n");
        assert_eq!(decoder.finish(), Err(CodingError::Truncated("gzip")));
    }

    #[test]
    fn stacked_codings_are_undone_from_the_last() {
        let plain = text();
        let coded = code("zstd", &code("br", &code("gzip", &plain)));
        let mut headers = HeaderMap::new();
        headers.append(CONTENT_ENCODING, "gzip, BR".parse().unwrap());
        headers.append(CONTENT_ENCODING, "identity,zstd".parse().unwrap());
        let stack = codings(&headers).unwrap();
        assert_eq!(stack, [Coding::Gzip, Coding::Brotli, Coding::Zstd]);
        assert_eq!(decode_all(&stack, &coded, Caps::default()).unwrap(), plain);
    }

    #[test]
    fn unknown_codings_are_named() {
        for text in ["lzma", "gzip, compress", "gzip,gzip,gzip,gzip,gzip"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, text.parse().unwrap());
            assert_eq!(codings(&headers), Err(CodingError::Unknown(text.into())));
        }
    }

    #[test]
    fn bombs_are_stopped_at_the_cap() {
        let zeros = vec![0_u8; 8 << 20];
        for (kind, coding) in KINDS {
            let coded = code(kind, &zeros);
            let caps = Caps { bytes: 1 << 20, ratio: 1 << 30 };
            assert_eq!(
                decode_all(&[coding], &coded, caps),
                Err(CodingError::TooLarge { limit: 1 << 20 }),
                "{kind}"
            );
            let caps = Caps { bytes: 1 << 30, ratio: 10 };
            assert!(
                matches!(decode_all(&[coding], &coded, caps), Err(CodingError::TooLarge { .. })),
                "{kind}"
            );
        }
        let twice = code("zstd", &code("gzip", &zeros));
        let caps = Caps { bytes: 1 << 20, ratio: 1 << 30 };
        assert!(matches!(
            decode_all(&[Coding::Gzip, Coding::Zstd], &twice, caps),
            Err(CodingError::TooLarge { .. })
        ));
    }

    #[test]
    fn cut_and_broken_bodies_are_errors() {
        for (kind, coding) in KINDS {
            let coded = code(kind, &text());
            let cut = coded.get(..coded.len() / 2).unwrap();
            assert!(
                matches!(decode_all(&[coding], cut, Caps::default()), Err(CodingError::Truncated(_))),
                "{kind} cut"
            );
            let garbage: Vec<u8> =
                (0..2000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x07).collect();
            assert!(decode_all(&[coding], &garbage, Caps::default()).is_err(), "{kind} garbage");
        }
    }
}
