//! `multipart/form-data` (RFC 7578), read in place: names and values of its parts, nothing copied.

use memchr::memmem;

/// One part of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The field's name.
    pub name: &'a str,
    /// True where the part names a file: its content is no field's value.
    pub is_file: bool,
    /// Its content.
    pub content: &'a [u8],
}

/// The most parts that are read of one form.
pub const MAX_PARTS: usize = 1000;

/// The boundary that a `content-type` names; `None` where it is not `multipart/form-data`.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(parameters, "boundary").map(str::to_owned).filter(|b| (1..=70).contains(&b.len()))
}

/// The parts of `body`, in order. Where the form breaks off, the parts before that, and false.
pub fn parts<'a>(boundary: &str, body: &'a [u8]) -> (Vec<Part<'a>>, bool) {
    let mut found = Vec::new();
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    // The first delimiter may stand at the very beginning; every later one follows a line end.
    let Some(first) = finder.find(body) else { return (found, false) };
    let mut at = first + delimiter.len();
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return (found, true);
        }
        let Some(rest) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) else {
            return (found, false);
        };
        let begin = body.len() - rest.len();
        let Some(next) = next_delimiter(&finder, body, begin) else { return (found, false) };
        if let Some(part) = body.get(begin..next.0).and_then(read_part) {
            found.push(part);
        }
        if found.len() >= MAX_PARTS {
            return (found, false);
        }
        at = next.1 + delimiter.len();
    }
}

/// The next delimiter behind a line end: where the content before it ends, and where the delimiter begins.
fn next_delimiter(finder: &memmem::Finder<'_>, body: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        let found = at + finder.find(body.get(at..)?)?;
        let before = body.get(from..found)?;
        if let Some(content) = before.strip_suffix(b"\r\n").or_else(|| before.strip_suffix(b"\n")) {
            return Some((from + content.len(), found));
        }
        if found == from {
            return Some((from, found));
        }
        at = found + 1;
    }
}

fn read_part(part: &[u8]) -> Option<Part<'_>> {
    let (head, content) = match memmem::find(part, b"\r\n\r\n") {
        Some(end) => (part.get(..end)?, part.get(end + 4..)?),
        None => {
            let end = memmem::find(part, b"\n\n")?;
            (part.get(..end)?, part.get(end + 2..)?)
        }
    };
    let head = std::str::from_utf8(head.get(..head.len().min(8192))?).ok()?;
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, parameters) = disposition.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let is_file = parameter(parameters, "filename").is_some() || parameter(parameters, "filename*").is_some();
    Some(Part { name: parameter(parameters, "name")?, is_file, content })
}

/// The value of a parameter, quoted or not. A backslash in quotes hides a quote, and is kept.
fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            let bytes = quoted.as_bytes();
            let mut end = 0;
            while bytes.get(end).is_some_and(|b| *b != b'"') {
                end += if bytes.get(end) == Some(&b'\\') { 2 } else { 1 };
            }
            value = quoted.get(..end)?;
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else {
            let end = after.find(';').unwrap_or(after.len());
            value = after.get(..end)?.trim();
            rest = after.get(end..)?;
        }
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found() {
        let cases = [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=abc", None),
            ("multipart/form-data; boundary=", None),
        ];
        for (header, wanted) in cases {
            assert_eq!(boundary(header).as_deref(), wanted, "{header}");
        }
    }

    #[test]
    fn fields_and_files_are_told_apart() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B\r\n\
            content-disposition: form-data; filename=\"a \\\"b\\\".wav\"; name=file\r\nContent-Type: audio/wav\r\n\r\n\
            \x00\xff--Bx\r\n\r\n--B--\r\n";
        let (parts, whole) = parts("B", body);
        assert!(whole);
        let [model, file] = parts.as_slice() else { unreachable!("{parts:?}") };
        assert_eq!(model, &Part { name: "model", is_file: false, content: b"whisper-1" });
        assert_eq!((file.name, file.is_file, file.content), ("file", true, &b"\x00\xff--Bx\r\n"[..]));
    }

    #[test]
    fn a_form_that_breaks_off_gives_what_came_before() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B\r\nContent-Disp";
        let (parts, whole) = parts("B", body);
        assert_eq!((parts.len(), whole), (1, false));
        assert!(!super::parts("B", b"no form").1);
        assert_eq!(super::parts("B", b"--B--"), (vec![], true));
    }

    #[test]
    fn an_empty_value_is_empty() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--";
        assert_eq!(parts("B", body).0.first().unwrap().content, b"");
    }
}
