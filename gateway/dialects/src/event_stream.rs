//! AWS event streams (`application/vnd.amazon.eventstream`), read as they pass.
//!
//! A frame, all integers big-endian: total length (4), length of the headers (4), CRC-32 of these eight bytes (4),
//! headers, payload, CRC-32 of everything before (4). A header: length of its name (1), name, type (1), value.
//! <https://smithy.io/2.0/aws/amazon-eventstream.html>
//!
//! Linear in the bytes, whatever their chunking: only a frame that a chunk leaves unfinished is kept. One frame is
//! bounded; damage stops the parser for good and is named.

use flate2::Crc;

use crate::sse::Event;

/// Lengths and their checksum.
const PRELUDE: usize = 12;
/// A frame without headers and payload.
const SMALLEST: usize = PRELUDE + 4;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is over the bound.
    #[error("a frame of {length} bytes is over {limit} bytes")]
    TooLarge {
        /// As its prelude says.
        length: usize,
        /// The bound.
        limit: usize,
    },
    /// Its lengths contradict each other.
    #[error("a frame's lengths contradict each other")]
    Lengths,
    /// The checksum of its lengths is another.
    #[error("the checksum of a frame's lengths is wrong")]
    PreludeChecksum,
    /// Its checksum is another.
    #[error("the checksum of a frame is wrong")]
    Checksum,
    /// Its headers do not fill their length, or have no known type.
    #[error("the headers of a frame cannot be read")]
    Headers,
    /// The stream ends inside of it.
    #[error("the stream ends inside a frame")]
    Truncated,
}

impl FrameError {
    /// A stable short name, for records and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "event_too_large",
            Self::Truncated => "frame_truncated",
            Self::Lengths | Self::PreludeChecksum | Self::Checksum | Self::Headers => "frame_corrupt",
        }
    }
}

/// One frame: the headers that say what it is (empty where absent), and its payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// `:message-type`: `event`, `exception` or `error`.
    pub kind: &'a str,
    /// `:event-type`.
    pub event: &'a str,
    /// `:exception-type`.
    pub exception: &'a str,
    /// `:error-code`.
    pub error_code: &'a str,
    /// `:error-message`.
    pub error_message: &'a str,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one whole frame, checksums included.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(frame: &'a [u8]) -> Result<Self, FrameError> {
        let Lengths { total, headers } = prelude(frame)?.ok_or(FrameError::Truncated)?;
        if total != frame.len() {
            return Err(FrameError::Lengths);
        }
        let (body, checksum) = frame.split_at_checked(frame.len() - 4).ok_or(FrameError::Lengths)?;
        if u32_at(checksum, 0) != Some(crc(body)) {
            return Err(FrameError::Checksum);
        }
        let (headers, payload) =
            body.get(PRELUDE..).and_then(|rest| rest.split_at_checked(headers)).ok_or(FrameError::Lengths)?;
        let mut message = Self { payload, ..Self::default() };
        message.headers(headers).ok_or(FrameError::Headers)?;
        Ok(message)
    }

    /// The frame as an event of its stream.
    fn event(&self, start: usize, began_earlier: bool, end: usize) -> Event<'_> {
        Event {
            name: self.event.as_bytes(),
            data: self.payload,
            data_lines: 1,
            start,
            began_earlier,
            end,
            open_cr: false,
            frame: Some(self),
        }
    }

    fn headers(&mut self, mut rest: &'a [u8]) -> Option<()> {
        while let Some((&length, more)) = rest.split_first() {
            let (name, more) = more.split_at_checked(usize::from(length)).filter(|_| length > 0)?;
            let (&kind, more) = more.split_first()?;
            let (value, more) = match kind {
                0 | 1 => (&[][..], more),
                2 => more.split_at_checked(1)?,
                3 => more.split_at_checked(2)?,
                4 => more.split_at_checked(4)?,
                5 | 8 => more.split_at_checked(8)?,
                6 | 7 => {
                    let (length, more) = more.split_at_checked(2)?;
                    more.split_at_checked(usize::from(u16::from_be_bytes(length.try_into().ok()?)))?
                }
                9 => more.split_at_checked(16)?,
                _ => return None,
            };
            let place = match name {
                b":message-type" => Some(&mut self.kind),
                b":event-type" => Some(&mut self.event),
                b":exception-type" => Some(&mut self.exception),
                b":error-code" => Some(&mut self.error_code),
                b":error-message" => Some(&mut self.error_message),
                _ => None,
            };
            if let Some(place) = place {
                // One that says two things, or none in words, says nothing that can be relied on.
                let text = std::str::from_utf8(value).ok().filter(|_| kind == 7 && place.is_empty())?;
                *place = text;
            }
            rest = more;
        }
        Some(())
    }
}

/// The parser's state between two chunks.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// Bytes of the frame that is not whole yet.
    kept: Vec<u8>,
    error: Option<FrameError>,
}

impl Parser {
    /// A parser for frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), error: None }
    }

    /// What stopped it; nothing is read any more then.
    pub fn error(&self) -> Option<FrameError> {
        self.error
    }

    /// True where no frame is begun: one may be put in here.
    pub fn between_frames(&self) -> bool {
        self.kept.is_empty() && self.error.is_none()
    }

    /// Reads `chunk` and gives every frame that ends in it, in order.
    pub fn feed(&mut self, chunk: &[u8], dispatch: &mut dyn FnMut(Event<'_>)) {
        let mut at = 0;
        while self.error.is_none() && at < chunk.len() {
            match self.step(chunk, at, dispatch) {
                Ok(next) => at = next,
                Err(error) => {
                    self.error = Some(error);
                    self.kept = Vec::new();
                }
            }
        }
    }

    /// Takes one frame, or all that there is of it.
    fn step(
        &mut self,
        chunk: &[u8],
        at: usize,
        dispatch: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, FrameError> {
        let rest = chunk.get(at..).unwrap_or_default();
        if self.kept.is_empty() {
            let Some(lengths) = prelude(rest)? else {
                self.kept.extend_from_slice(rest);
                return Ok(chunk.len());
            };
            self.bounded(lengths.total)?;
            let Some(frame) = rest.get(..lengths.total) else {
                self.kept.extend_from_slice(rest);
                return Ok(chunk.len());
            };
            let end = at + lengths.total;
            dispatch(Message::read(frame)?.event(at, false, end));
            return Ok(end);
        }
        let total = match prelude(&self.kept)? {
            Some(lengths) => lengths.total,
            None => PRELUDE,
        };
        self.bounded(total)?;
        let missing = total.saturating_sub(self.kept.len());
        let Some(more) = rest.get(..missing) else {
            self.kept.extend_from_slice(rest);
            return Ok(chunk.len());
        };
        self.kept.extend_from_slice(more);
        let end = at + missing;
        if self.kept.len() < SMALLEST {
            // Only now its length is known.
            if let Some(lengths) = prelude(&self.kept)? {
                self.bounded(lengths.total)?;
            }
            return Ok(end);
        }
        let mut frame = std::mem::take(&mut self.kept);
        dispatch(Message::read(&frame)?.event(0, true, end));
        // A large frame's buffer is not kept for the small ones that follow.
        if frame.capacity() <= 1 << 16 {
            frame.clear();
            self.kept = frame;
        }
        Ok(end)
    }

    fn bounded(&self, length: usize) -> Result<(), FrameError> {
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        Ok(())
    }

    /// The stream has ended: whether it ended inside a frame.
    pub fn finish(&mut self) {
        if !self.kept.is_empty() && self.error.is_none() {
            self.error = Some(FrameError::Truncated);
        }
    }
}

/// The bytes of a frame with these headers, all of them text.
pub fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    for (name, value) in headers {
        let (Ok(name_length), Ok(length)) = (u8::try_from(name.len()), u16::try_from(value.len())) else {
            continue;
        };
        coded.push(name_length);
        coded.extend_from_slice(name.as_bytes());
        coded.push(7);
        coded.extend_from_slice(&length.to_be_bytes());
        coded.extend_from_slice(value.as_bytes());
    }
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(SMALLEST + coded.len() + payload.len());
    frame.extend_from_slice(&length(SMALLEST + coded.len() + payload.len()));
    frame.extend_from_slice(&length(coded.len()));
    frame.extend_from_slice(&crc(&frame).to_be_bytes());
    frame.extend_from_slice(&coded);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc(&frame).to_be_bytes());
    frame
}

struct Lengths {
    total: usize,
    headers: usize,
}

/// The lengths that a frame begins with; `None` where more bytes are needed.
fn prelude(bytes: &[u8]) -> Result<Option<Lengths>, FrameError> {
    let (Some(total), Some(headers), Some(checksum)) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8))
    else {
        return Ok(None);
    };
    if crc(bytes.get(..8).unwrap_or_default()) != checksum {
        return Err(FrameError::PreludeChecksum);
    }
    let (Ok(total), Ok(headers)) = (usize::try_from(total), usize::try_from(headers)) else {
        return Err(FrameError::Lengths);
    };
    if total.checked_sub(SMALLEST).is_none_or(|room| headers > room) {
        return Err(FrameError::Lengths);
    }
    Ok(Some(Lengths { total, headers }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, Limits, Meter, Segment, Unread};
    use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message as Theirs};

    const LIMIT: usize = 1 << 20;

    /// Kinds, types and payloads of the frames, where in all bytes each ends, and the error.
    type Read = (Vec<(String, String, Vec<u8>, usize)>, Option<FrameError>);

    fn read(chunks: &[&[u8]], limit: usize) -> Read {
        let mut parser = Parser::new(limit);
        let (mut seen, mut before) = (Vec::new(), 0);
        for chunk in chunks {
            parser.feed(chunk, &mut |event| {
                let frame = event.frame.unwrap();
                assert!(event.start <= event.end && event.end <= chunk.len());
                seen.push((frame.kind.into(), frame.event.into(), event.data.to_vec(), before + event.end));
            });
            before += chunk.len();
        }
        parser.finish();
        (seen, parser.error())
    }

    /// What a caller gets of these pieces, and why they could not be read.
    fn passed(chunks: &[&[u8]]) -> (Vec<u8>, Option<Unread>) {
        let operation =
            crate::operation(crate::Dialect::Bedrock, &http::Method::POST, "/model/m/converse-stream");
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", "application/vnd.amazon.eventstream".parse().unwrap());
        let mut meter = Meter::new(operation, 200, &headers, false, Limits::default());
        let mut all = Vec::new();
        let mut sort = |out: &mut Vec<Segment>, chunk: &[u8]| {
            for segment in out.drain(..) {
                match segment {
                    Segment::Forward(range) => all.extend_from_slice(&chunk[range]),
                    Segment::Bytes(bytes) | Segment::Held(bytes) => all.extend_from_slice(&bytes),
                }
            }
        };
        let mut out = Vec::new();
        for chunk in chunks {
            meter.feed(chunk, &mut out);
            sort(&mut out, chunk);
        }
        meter.end(&mut out);
        sort(&mut out, b"");
        (all, meter.finish(Cause::Complete).unread)
    }

    fn theirs() -> Vec<u8> {
        let mut out = Vec::new();
        let every = Theirs::new(&b"{\"a\":1}"[..])
            .add_header(Header::new(":message-type", HeaderValue::String("event".into())))
            .add_header(Header::new(":event-type", HeaderValue::String("chunk".into())))
            .add_header(Header::new("t", HeaderValue::Bool(true)))
            .add_header(Header::new("f", HeaderValue::Bool(false)))
            .add_header(Header::new("b", HeaderValue::Byte(-1)))
            .add_header(Header::new("s", HeaderValue::Int16(7)))
            .add_header(Header::new("i", HeaderValue::Int32(7)))
            .add_header(Header::new("l", HeaderValue::Int64(7)))
            .add_header(Header::new("y", HeaderValue::ByteArray((&b"xyz"[..]).into())))
            .add_header(Header::new("d", HeaderValue::Timestamp(aws_smithy_types::DateTime::from_secs(5))))
            .add_header(Header::new("u", HeaderValue::Uuid(77)));
        write_message_to(&every, &mut out).unwrap();
        write_message_to(&Theirs::new(&b""[..]), &mut out).unwrap();
        out.extend(encode(&[(":message-type", "exception"), (":exception-type", "x")], b"{}"));
        out
    }

    #[test]
    fn what_amazons_own_crate_writes_is_read_at_every_split() {
        let bytes = theirs();
        let whole = read(&[&bytes], LIMIT);
        assert_eq!(whole.0.len(), 3);
        let (kind, event, payload, _) = &whole.0[0];
        assert_eq!((kind.as_str(), event.as_str(), &payload[..]), ("event", "chunk", &b"{\"a\":1}"[..]));
        assert_eq!((whole.0[2].3, whole.1), (bytes.len(), None));
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(read(&[a, b], LIMIT), whole, "split at {at}");
        }
        let ones: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&ones, LIMIT), whole);
    }

    #[test]
    fn what_is_encoded_here_amazons_own_crate_reads() {
        let bytes = encode(&[(":message-type", "event"), (":event-type", "metadata")], b"payload");
        let read = read_message_from(&mut &bytes[..]).unwrap();
        assert_eq!(&read.payload()[..], b"payload");
        assert_eq!(read.headers().len(), 2);
    }

    #[test]
    fn every_flipped_bit_is_named_and_no_byte_is_lost() {
        let frame = encode(&[(":message-type", "event"), (":event-type", "chunk")], b"{\"bytes\":\"e30=\"}");
        let mut checked = 0;
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            for cut in [0, 5, 12, 20, frame.len() - 1] {
                let chunks: [&[u8]; 3] = [&bad[..cut], &bad[cut..], b"behind"];
                let (seen, error) = read(&chunks, LIMIT);
                assert!(seen.is_empty() && error.is_some(), "bit {bit}");
                let (all, unread) = passed(&chunks);
                assert_eq!(all, chunks.concat(), "bit {bit}, cut {cut}");
                assert!(matches!(unread, Some(Unread::Frame(_))), "bit {bit}, cut {cut}");
                checked += 1;
            }
        }
        assert!(checked > 1000);
    }

    #[test]
    fn damage_has_its_name() {
        let prelude = |total: u32, headers: u32| {
            let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
            bytes.extend(crc(&bytes).to_be_bytes());
            bytes
        };
        let with_headers = |headers: &[u8]| {
            let mut bytes =
                prelude(u32::try_from(16 + headers.len()).unwrap(), u32::try_from(headers.len()).unwrap());
            bytes.extend_from_slice(headers);
            bytes.extend(crc(&bytes).to_be_bytes());
            bytes
        };
        let whole = encode(&[(":message-type", "event")], b"x");
        let mut payload = whole.clone();
        let last = payload.len() - 5;
        payload[last] ^= 1;
        let cases: [(&str, Vec<u8>, FrameError); 11] = [
            ("too short", prelude(15, 0), FrameError::Lengths),
            ("headers over the frame", prelude(20, 5), FrameError::Lengths),
            ("too large", prelude(u32::MAX, 0), FrameError::TooLarge { length: 0xffff_ffff, limit: LIMIT }),
            ("zeros", vec![0; 16], FrameError::PreludeChecksum),
            ("another payload", payload, FrameError::Checksum),
            ("cut", whole[..whole.len() - 1].to_vec(), FrameError::Truncated),
            ("a name of no length", with_headers(b"\0\0"), FrameError::Headers),
            ("an unknown type", with_headers(b"\x01a\x0a"), FrameError::Headers),
            ("a value that ends early", with_headers(b"\x01a\x07\0\x05ab"), FrameError::Headers),
            ("a kind that is no text", with_headers(b"\x0d:message-type\x00"), FrameError::Headers),
            (
                "two kinds",
                with_headers(
                    &[&b"\x0d:message-type\x07\0\x01a"[..], b"\x0d:message-type\x07\0\x01b"].concat(),
                ),
                FrameError::Headers,
            ),
        ];
        for (what, bytes, error) in cases {
            assert_eq!(read(&[&bytes], LIMIT).1, Some(error), "{what}");
            let ones: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(&ones, LIMIT).1, Some(error), "{what}, byte by byte");
        }
    }
}
