//! Writes HTML: every text and every attribute's value is escaped, tags and names of attributes are the program's own.

use std::borrow::Cow;

use crate::render::hostile;

/// Attributes: names and values.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

/// HTML that is being written.
#[derive(Debug, Default)]
pub struct Html {
    out: String,
}

/// What a browser would read as markup, and what a reader's eye could be misled by, made plain.
fn escaped(text: &str) -> String {
    let text: Cow<'_, str> = hostile::line(text);
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

impl Html {
    /// A document's beginning, up to where its body begins. `style` is the program's own.
    pub fn document(title: &str, style: &'static str) -> Self {
        let policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n";
        Self::begin(title, style, policy)
    }

    /// The same for a page that is served: its policy is a header, and names the style by its hash.
    pub fn served(title: &str, style: &'static str) -> Self {
        Self::begin(title, style, "")
    }

    fn begin(title: &str, style: &'static str, policy: &'static str) -> Self {
        let mut html = Self::default();
        html.out.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        html.out.push_str(policy);
        for (name, content) in [
            ("viewport", "width=device-width, initial-scale=1"),
            ("color-scheme", "light dark"),
            ("referrer", "no-referrer"),
        ] {
            html.open("meta", &[("name", name), ("content", content)]).line();
        }
        html.element("title", &[], title).line();
        html.out.push_str("<style>\n");
        html.out.push_str(style);
        html.out.push_str("</style>\n</head>\n<body>\n");
        html
    }

    /// Ends the document.
    pub fn finish(mut self) -> String {
        self.out.push_str("</body>\n</html>\n");
        self.out
    }

    /// Opens an element.
    pub fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.out.push_str(&escaped(value));
            self.out.push('"');
        }
        self.out.push('>');
        self
    }

    /// Closes an element.
    pub fn close(&mut self, tag: &'static str) -> &mut Self {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
        self
    }

    /// Ends a line, for whoever reads the source.
    pub fn line(&mut self) -> &mut Self {
        self.out.push('\n');
        self
    }

    /// Writes text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.out.push_str(&escaped(text));
        self
    }

    /// An element that holds text.
    pub fn element(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) -> &mut Self {
        self.open(tag, attributes).text(text).close(tag)
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) -> &mut Self {
        self.element("p", &[], &words(text)).line()
    }

    /// A list; nothing where there is nothing in it.
    pub fn list(&mut self, items: &[String]) -> &mut Self {
        if items.is_empty() {
            return self;
        }
        self.open("ul", &[]).line();
        for item in items {
            self.element("li", &[], &words(item)).line();
        }
        self.close("ul").line()
    }

    /// A table with a caption. `numbers` says which columns are set as numbers. On a narrow screen every cell stands in a
    /// line of its own, after its column's name.
    pub fn table(&mut self, caption: &str, columns: &[(&str, Cell)], rows: &[Vec<String>]) -> &mut Self {
        self.open("table", &[]).element("caption", &[], caption).line();
        self.open("thead", &[]).open("tr", &[]);
        for (name, cell) in columns {
            self.element("th", &[("scope", "col"), ("class", cell.class())], name);
        }
        self.close("tr").close("thead").line().open("tbody", &[]).line();
        for row in rows {
            self.open("tr", &[]);
            for (n, ((name, cell), text)) in columns.iter().zip(row).enumerate() {
                let attributes: [(&'static str, &str); 2] = [("data-label", name), ("class", cell.class())];
                match n {
                    0 => self
                        .open("th", &[("scope", "row"), ("data-label", name), ("class", cell.class())])
                        .text(text)
                        .close("th"),
                    _ => self.element("td", &attributes, text),
                };
            }
            self.close("tr").line();
        }
        self.close("tbody").close("table").line()
    }
}

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Words.
    Text,
    /// A short word of the program's own, in one line.
    Word,
    /// A number.
    Number,
    /// A hash or a name that may break anywhere.
    Code,
}

impl Cell {
    /// The class of its cells.
    pub fn class(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Word => "word",
            Self::Number => "number",
            Self::Code => "code",
        }
    }
}

/// Words with single spaces: texts of packs are folded over lines.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number with its thousands apart.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 log`, `2 logs`.
pub fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// A time to the second; the page says once that all are UTC.
pub fn time(at: i64) -> String {
    let text = crate::time::text(at.div_euclid(crate::time::SECOND).saturating_mul(crate::time::SECOND));
    text.trim_end_matches('Z').replacen('T', " ", 1)
}
