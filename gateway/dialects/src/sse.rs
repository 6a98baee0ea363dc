//! Server-sent events, read as they pass (WHATWG HTML 9.2.6).
//!
//! Linear in the bytes, whatever their chunking: a partial line is kept and only new bytes are searched. One event,
//! with its partial line, is bounded; over the bound the parser stops for good and says so.

use memchr::memchr2;

use crate::event_stream::Message;

/// One dispatched event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The value of `event:`, empty where there was none.
    pub name: &'a [u8],
    /// The values of `data:`, joined by line feeds.
    pub data: &'a [u8],
    /// How many `data:` lines there were.
    pub data_lines: usize,
    /// Where the event's first byte lies in the chunk; 0 where it began in an earlier one.
    pub start: usize,
    /// True where the event began in an earlier chunk.
    pub began_earlier: bool,
    /// One past the last byte of the blank line that ends the event, in the chunk.
    pub end: usize,
    /// The blank line was a CR at the chunk's end: a LF that begins the next chunk belongs to it.
    pub open_cr: bool,
    /// The frame that it is, in an event stream of AWS.
    pub frame: Option<&'a Message<'a>>,
}

/// An event that a chunk left unfinished.
#[derive(Debug)]
pub struct Unfinished<'a> {
    /// The value of `event:` so far.
    pub name: &'a [u8],
    /// The data of whole lines so far.
    pub data: &'a [u8],
    /// The line that is not yet ended.
    pub line: &'a [u8],
    /// Where its first byte lies in the last chunk; 0 where it began earlier.
    pub start: usize,
}

/// The parser's state between two chunks.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    name: Vec<u8>,
    data: Vec<u8>,
    data_lines: usize,
    line: Vec<u8>,
    first_line: bool,
    after_cr: bool,
    /// Where the current event begins in the current chunk; `None` once it began in an earlier one.
    start: Option<usize>,
    /// Whether the current event has any byte yet.
    begun: bool,
    stopped: bool,
}

impl Parser {
    /// A parser for events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            name: Vec::new(),
            data: Vec::new(),
            data_lines: 0,
            line: Vec::new(),
            first_line: true,
            after_cr: false,
            start: Some(0),
            begun: false,
            stopped: false,
        }
    }

    /// True once an event was over the bound: nothing is parsed any more.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// True where no event is begun: a new one may be put in here.
    pub fn between_events(&self) -> bool {
        !self.begun
    }

    /// The event that the last chunk left unfinished.
    pub fn unfinished(&self) -> Option<Unfinished<'_>> {
        self.begun.then(|| Unfinished {
            name: &self.name,
            data: &self.data,
            line: &self.line,
            start: self.start.unwrap_or(0),
        })
    }

    /// Reads `chunk` and gives every event that ends in it, in order.
    ///
    /// `dispatch` also gets events without data (only their place matters): comments and lone names.
    pub fn feed(&mut self, chunk: &[u8], dispatch: &mut dyn FnMut(Event<'_>)) {
        if self.stopped {
            return;
        }
        if !chunk.is_empty() {
            self.start = if self.begun { None } else { Some(0) };
        }
        let mut at = 0;
        if self.after_cr && chunk.first() == Some(&b'\n') {
            at = 1;
            if !self.begun {
                self.start = Some(1);
            }
        }
        if !chunk.is_empty() {
            self.after_cr = false;
        }
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(length) = memchr2(b'\n', b'\r', rest) else {
                self.begun = true;
                self.line.extend_from_slice(rest);
                break;
            };
            let mut end = at + length + 1;
            let mut open_cr = false;
            if rest.get(length) == Some(&b'\r') {
                match chunk.get(end) {
                    Some(b'\n') => end += 1,
                    Some(_) => {}
                    None => {
                        open_cr = true;
                        self.after_cr = true;
                    }
                }
            }
            let line = rest.get(..length).unwrap_or_default();
            let blank = if self.line.is_empty() {
                self.take_line(line)
            } else {
                self.line.extend_from_slice(line);
                let whole = std::mem::take(&mut self.line);
                let blank = self.take_line(&whole);
                self.line = whole;
                self.line.clear();
                blank
            };
            self.begun = true;
            at = end;
            if blank {
                self.give(end, open_cr, dispatch);
                self.start = Some(at);
            }
            if self.over() {
                return;
            }
        }
        self.over();
    }

    /// The stream has ended: gives an event that lacks its blank line, as lenient readers do.
    pub fn finish(&mut self, dispatch: &mut dyn FnMut(Event<'_>)) {
        if self.stopped || !self.begun {
            return;
        }
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line);
        }
        self.start = None;
        self.give(0, false, dispatch);
    }

    fn give(&mut self, end: usize, open_cr: bool, dispatch: &mut dyn FnMut(Event<'_>)) {
        dispatch(Event {
            name: &self.name,
            data: self.data.strip_suffix(b"\n").unwrap_or(&self.data),
            data_lines: self.data_lines,
            start: self.start.unwrap_or(0),
            began_earlier: self.start.is_none(),
            end,
            open_cr,
            frame: None,
        });
        self.name.clear();
        // A large event's buffer is not kept for the small ones that follow.
        if self.data.capacity() > 1 << 16 {
            self.data = Vec::new();
        } else {
            self.data.clear();
        }
        self.data_lines = 0;
        self.begun = false;
    }

    /// Takes one line without its end; true where it is the blank line that ends an event.
    fn take_line(&mut self, line: &[u8]) -> bool {
        let line = if std::mem::take(&mut self.first_line) {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            return true;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => {
                let value = line.get(colon + 1..).unwrap_or_default();
                (line.get(..colon).unwrap_or_default(), value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match field {
            b"data" => {
                self.data.reserve(value.len() + 1);
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
                self.data_lines += 1;
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => {}
        }
        false
    }

    fn over(&mut self) -> bool {
        if self.data.len() + self.line.len() + self.name.len() > self.limit {
            self.stopped = true;
            self.name = Vec::new();
            self.data = Vec::new();
            self.line = Vec::new();
        }
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(String, String, usize)>;

    fn read(chunks: &[&[u8]], limit: usize) -> (Seen, bool) {
        let mut parser = Parser::new(limit);
        let mut seen = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, &mut |e| {
                seen.push((
                    String::from_utf8_lossy(e.name).into_owned(),
                    String::from_utf8_lossy(e.data).into_owned(),
                    e.data_lines,
                ));
            });
        }
        seen.retain(|(name, data, _)| !name.is_empty() || !data.is_empty());
        (seen, parser.stopped())
    }

    fn event(name: &str, data: &str, lines: usize) -> (String, String, usize) {
        (name.into(), data.into(), lines)
    }

    #[test]
    fn the_forms_of_the_standard_are_read() {
        let cases: &[(&str, Vec<(String, String, usize)>)] = &[
            ("data: a\n\n", vec![event("", "a", 1)]),
            ("data:a\r\n\r\n", vec![event("", "a", 1)]),
            ("data:  a\r\rdata: b\r\r", vec![event("", " a", 1), event("", "b", 1)]),
            ("\u{feff}data: a\n\n", vec![event("", "a", 1)]),
            ("data: a\ndata: b\n\n", vec![event("", "a\nb", 2)]),
            ("data\ndata\n\n", vec![event("", "\n", 2)]),
            (": comment\nid: 1\nretry: 5\nevent: e\ndata: a\nunknown: x\n\n", vec![event("e", "a", 1)]),
            ("event: e\nevent: f\ndata: {}\n\n\n\n", vec![event("f", "{}", 1)]),
            ("data: a\n", vec![]),
            ("data: \u{feff}a\n\ndata: b\n\n", vec![event("", "\u{feff}a", 1), event("", "b", 1)]),
        ];
        for (text, wanted) in cases {
            assert_eq!(&read(&[text.as_bytes()], 1000).0, wanted, "{text:?}");
        }
    }

    #[test]
    fn every_split_reads_the_same() {
        let text = "\u{feff}event: a\r\ndata: 1\r\n\r\n: c\n\ndata: 2\rdata: 3\r\r\ndata: 4\n\nevent: z\ndata: é\n\n";
        let whole = read(&[text.as_bytes()], 1000);
        assert_eq!(whole.0.len(), 4);
        for at in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(read(&[a, b], 1000), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes, 1000), whole);
    }

    #[test]
    fn places_are_those_of_the_chunk() {
        let mut parser = Parser::new(1000);
        let mut places = Vec::new();
        for chunk in ["data: a\n\nda", "ta: b\r\n\r", "\ndata: c\n\n"] {
            parser.feed(chunk.as_bytes(), &mut |e| places.push((e.start, e.began_earlier, e.end, e.open_cr)));
        }
        assert_eq!(places, [(0, false, 9, false), (0, true, 8, true), (1, false, 10, false)]);
    }

    #[test]
    fn an_event_over_the_bound_stops_the_parser() {
        let long = format!("data: {}\n\ndata: b\n\n", "x".repeat(100));
        let (seen, stopped) = read(&[b"data: a\n\n", long.as_bytes()], 50);
        assert!(stopped);
        assert_eq!(seen.first(), Some(&event("", "a", 1)));
        assert!(!seen.contains(&event("", "b", 1)));
    }

    #[test]
    fn a_four_mebibyte_line_in_small_chunks_is_linear() {
        let line = format!("data: {}\n\n", "x".repeat(4 << 20));
        let started = std::time::Instant::now();
        let chunks: Vec<&[u8]> = line.as_bytes().chunks(64).collect();
        let (seen, stopped) = read(&chunks, 8 << 20);
        assert_eq!((seen.len(), stopped), (1, false));
        assert!(started.elapsed().as_secs() < 5, "quadratic: took {:?}", started.elapsed());
    }

    #[test]
    fn an_end_without_blank_line_gives_the_event() {
        let mut parser = Parser::new(100);
        parser.feed(b"data: a\ndata: b", &mut |_| {});
        let mut seen = Vec::new();
        parser.finish(&mut |e| seen.push(e.data.to_vec()));
        assert_eq!(seen, [b"a\nb".to_vec()]);
        parser.finish(&mut |_| unreachable!("given once"));
    }
}
