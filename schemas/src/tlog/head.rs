//! The tree head that a checkpoint of any log states.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Sha256Hex;
use crate::lines::number;
use crate::merkle::Hash;
use crate::note::is_key_name;

/// The longest origin, in bytes.
const MAX_ORIGIN_BYTES: usize = 255;

/// Not a checkpoint's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the checkpoint: wanted {wanted}")]
pub struct HeadError {
    /// Which line, from 1.
    pub line: usize,
    /// Its form.
    pub wanted: &'static str,
}

/// Origin, size and root: the first three lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// The log's name: a line of 1 to 255 bytes without white space and `+`, as it is a key's name too.
    pub origin: String,
    /// Leaves in the tree, at most 2^53.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl TreeHead {
    /// Reads the text of a checkpoint's note. Lines behind the third are the log's own; they may not be empty.
    ///
    /// # Errors
    /// The first line that is out of form.
    pub fn parse(text: &str) -> Result<Self, HeadError> {
        let wrong = |line, wanted| HeadError { line, wanted };
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|line| line.len() <= MAX_ORIGIN_BYTES && is_key_name(line));
        let origin = origin.ok_or(wrong(1, "the origin"))?.to_owned();
        let size = lines.next().and_then(number).ok_or(wrong(2, "the tree size, a decimal number"))?;
        let root = lines.next().and_then(|line| <[u8; 32]>::try_from(STANDARD.decode(line).ok()?).ok());
        let root = Sha256Hex(root.ok_or(wrong(3, "the root, base64 of 32 bytes"))?);
        if !text.ends_with('\n') {
            return Err(wrong(4, "a newline at the end of each line"));
        }
        let mut rest = lines.enumerate().peekable();
        while let Some((n, line)) = rest.next() {
            if line.is_empty() == rest.peek().is_some() {
                return Err(wrong(n + 4, "the end, or an extension line that is not empty"));
            }
        }
        Ok(Self { origin, size, root })
    }

    /// The three lines.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

    #[test]
    fn heads_of_any_log_are_read_and_other_texts_are_not() {
        let text = format!("example.com/behind-the-sofa\n20852163\n{ROOT}\n");
        let head = TreeHead::parse(&text).unwrap();
        assert_eq!((head.origin.as_str(), head.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(head.to_text(), text);
        assert_eq!(TreeHead::parse(&format!("{text}more\nand more\n")).unwrap(), head);
        for (wrong, line) in [
            (String::new(), 1),
            (format!("a b\n1\n{ROOT}\n"), 1),
            (format!("{}\n1\n{ROOT}\n", "x".repeat(256)), 1),
            (format!("a\n01\n{ROOT}\n"), 2),
            (format!("a\n-1\n{ROOT}\n"), 2),
            (format!("a\n9007199254740993\n{ROOT}\n"), 2),
            ("a\n1\nAAAA\n".into(), 3),
            (format!("a\n1\n{ROOT}"), 4),
            (format!("a\n1\n{ROOT}\n\n"), 4),
            (format!("a\n1\n{ROOT}\nmore"), 4),
        ] {
            assert_eq!(TreeHead::parse(&wrong).map_err(|error| error.line), Err(line), "{wrong}");
        }
    }
}
