//! Makes text that models and callers wrote harmless to terminals, editors and spreadsheets.

use std::borrow::Cow;
use std::fmt::Write as _;

/// True for characters that a terminal or a reader's eye could be misled by: controls, escapes, bidirectional
/// marks, invisible characters, line separators, tags.
fn is_harmful(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn escape(text: &str, keep: fn(char) -> bool) -> Cow<'_, str> {
    let harmful = |c: char| is_harmful(c) && !keep(c);
    if !text.chars().any(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// One line: every harmful character is written as `\u{..}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Many lines: line feeds and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n' || c == '\t')
}

/// A CSV cell of text: one line, and a leading `= + - @` (or one that a spreadsheet reads as such) gets a `'` before.
pub fn cell(text: &str) -> Cow<'_, str> {
    let starts_harmful = text
        .starts_with(['=', '+', '-', '@', '\t', '\r', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
        || text.trim_start().starts_with(['=', '+', '-', '@']);
    let clean = line(text);
    if starts_harmful { Cow::Owned(format!("'{clean}")) } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_controls_and_bidi_are_made_visible() {
        assert_eq!(line("a\u{1b}[31mred\u{7}"), "a\\u{1b}[31mred\\u{7}");
        assert_eq!(line("user\u{202e}nimda\u{2066}"), "user\\u{202e}nimda\\u{2066}");
        assert_eq!(line("a\nb\rc"), "a\\u{a}b\\u{d}c");
        assert_eq!(line("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(lines("a\n\tb\r"), "a\n\tb\\u{d}");
        assert_eq!(line("Grüße, 世界 🙂"), "Grüße, 世界 🙂");
    }

    #[test]
    fn spreadsheet_formulas_are_disarmed() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\u{ff1d}1"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        assert_eq!(cell("\t=1"), "'\\u{9}=1");
        assert_eq!(cell("a=1"), "a=1");
    }
}
