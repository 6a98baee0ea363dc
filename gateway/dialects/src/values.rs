//! JSON objects one behind the other, read as they pass: one a line (NDJSON), or the elements of one array.
//!
//! Linear in the bytes, whatever their chunking. An object ends with the brace that closes it, so it is whole before
//! the line is. What stands between two objects (brackets, commas, white space) is skipped. One object is bounded; over
//! the bound the parser stops for good and says so.

use memchr::memchr3;

use crate::sse::Event;

/// The parser's state between two chunks.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// The object that an earlier chunk began.
    value: Vec<u8>,
    /// Open braces and brackets of the object; 0 between two.
    depth: usize,
    in_string: bool,
    escaped: bool,
    stopped: bool,
}

impl Parser {
    /// A parser for objects of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, value: Vec::new(), depth: 0, in_string: false, escaped: false, stopped: false }
    }

    /// True once an object was over the bound: nothing is parsed any more.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// True where no object is begun.
    pub fn between_values(&self) -> bool {
        self.depth == 0
    }

    /// Reads `chunk` and gives every object that ends in it, in order, as an event without a name.
    pub fn feed(&mut self, chunk: &[u8], dispatch: &mut dyn FnMut(Event<'_>)) {
        if self.stopped {
            return;
        }
        // Where the object that is open begins in this chunk; `None` where an earlier one began it.
        let mut start = (self.depth == 0).then_some(0);
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            if self.in_string {
                at = self.through_string(chunk, at);
                continue;
            }
            at += 1;
            match byte {
                b'{' => {
                    if self.depth == 0 {
                        start = Some(at - 1);
                    }
                    self.depth += 1;
                }
                b'[' if self.depth > 0 => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    if self.over(start.map_or(at, |start| at - start)) {
                        return;
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.give(chunk, start, at, dispatch);
                        start = Some(at);
                    }
                }
                b'"' if self.depth > 0 => self.in_string = true,
                _ => {}
            }
        }
        if self.depth > 0 {
            self.value.extend_from_slice(chunk.get(start.unwrap_or(0)..).unwrap_or_default());
            self.over(0);
        }
    }

    /// From `at` inside a string to behind its end, or to the chunk's end.
    fn through_string(&mut self, chunk: &[u8], mut at: usize) -> usize {
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            if std::mem::take(&mut self.escaped) {
                at += 1;
                continue;
            }
            let Some(length) = memchr3(b'"', b'\\', b'\n', rest) else { return chunk.len() };
            at += length + 1;
            match rest.get(length) {
                Some(b'\\') => self.escaped = true,
                Some(b'"') => {
                    self.in_string = false;
                    return at;
                }
                // No string holds a line feed: what was open is no JSON, and the next line may be.
                _ => {
                    self.in_string = false;
                    self.depth = 0;
                    self.value.clear();
                    return at;
                }
            }
        }
        at
    }

    fn give(&mut self, chunk: &[u8], start: Option<usize>, end: usize, dispatch: &mut dyn FnMut(Event<'_>)) {
        let here = chunk.get(start.unwrap_or(0)..end).unwrap_or_default();
        let began_earlier = start.is_none();
        if began_earlier {
            self.value.extend_from_slice(here);
        }
        let data = if began_earlier { &self.value } else { here };
        let start = start.unwrap_or(0);
        dispatch(Event {
            name: b"",
            data,
            data_lines: 1,
            start,
            began_earlier,
            end,
            open_cr: false,
            frame: None,
        });
        // A large object's buffer is not kept for the small ones that follow.
        if self.value.capacity() > 1 << 16 {
            self.value = Vec::new();
        } else {
            self.value.clear();
        }
    }

    /// Stops where the object, with `more` bytes of this chunk, is over the bound.
    fn over(&mut self, more: usize) -> bool {
        if self.depth > 0 && self.value.len() + more > self.limit {
            self.stopped = true;
            self.value = Vec::new();
        }
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(String, usize, bool, usize)>;

    fn read(chunks: &[&[u8]], limit: usize) -> (Seen, bool) {
        let mut parser = Parser::new(limit);
        let mut seen = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, &mut |e| {
                let data = String::from_utf8_lossy(e.data).into_owned();
                seen.push((data, e.start, e.began_earlier, e.end));
            });
        }
        (seen, parser.stopped())
    }

    fn data(seen: &Seen) -> Vec<&str> {
        seen.iter().map(|(data, ..)| data.as_str()).collect()
    }

    #[test]
    fn lines_and_arrays_give_their_objects() {
        let cases: &[(&str, &[&str])] = &[
            ("{\"a\":1}\n{\"b\":[{}]}\r\n", &["{\"a\":1}", "{\"b\":[{}]}"]),
            ("[{\"a\":1}\n,\r\n{\"b\":\"}]{\"}\n]\n", &["{\"a\":1}", "{\"b\":\"}]{\"}"]),
            ("{\"a\":\"\\\"}\\\\\"}{}", &["{\"a\":\"\\\"}\\\\\"}", "{}"]),
            ("{\"a\":\"not closed\n{\"b\":1}\n", &["{\"b\":1}"]),
            ("[] 1 \"x\" ]}", &[]),
            ("{\"a\":", &[]),
            ("", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(&data(&read(&[text.as_bytes()], 100).0), wanted, "{text:?}");
        }
    }

    #[test]
    fn every_split_reads_the_same() {
        let text = "[{\"a\":\"x\\\\\\\"}é\",\"b\":[[1],{}]},\n {\"c\":{\"d\":null}}]{\"e\":1}".as_bytes();
        let (whole, _) = read(&[text], 100);
        assert_eq!(whole.len(), 3);
        for at in 0..=text.len() {
            let (first, rest) = text.split_at(at);
            assert_eq!(data(&read(&[first, rest], 100).0), data(&whole), "cut at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(data(&read(&bytes, 100).0), data(&whole));
    }

    #[test]
    fn places_are_those_of_the_chunk() {
        let (seen, _) = read(&[b"[{\"a\":1},{\"b\"", b":2}, {\"c\":3}]"], 100);
        let places: Vec<_> = seen.iter().map(|(_, start, earlier, end)| (*start, *earlier, *end)).collect();
        assert_eq!(places, [(1, false, 8), (0, true, 3), (5, false, 12)]);
    }

    #[test]
    fn an_object_over_the_bound_stops_the_parser() {
        let long = format!("{{\"a\":\"{}\"}}\n{{\"b\":1}}\n", "x".repeat(100));
        let (seen, stopped) = read(&[b"{\"a\":1}\n", long.as_bytes()], 50);
        assert_eq!((data(&seen), stopped), (vec!["{\"a\":1}"], true));
        let bytes: Vec<&[u8]> = long.as_bytes().chunks(7).collect();
        assert_eq!(read(&bytes, 50), (vec![], true));
    }

    #[test]
    fn a_four_mebibyte_object_in_small_chunks_is_linear() {
        let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(4 << 20));
        let started = std::time::Instant::now();
        let chunks: Vec<&[u8]> = line.as_bytes().chunks(64).collect();
        let (seen, stopped) = read(&chunks, 8 << 20);
        assert_eq!((seen.len(), stopped), (1, false));
        assert!(started.elapsed().as_secs() < 5, "quadratic: took {:?}", started.elapsed());
    }
}
