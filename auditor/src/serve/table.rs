//! Tables whose cells may lead to other pages of this program.

use crate::paper::html::{Cell, Html};

/// A cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// What stands in it.
    pub(super) text: String,
    /// Where it leads: a path of this program's own making, never one that evidence holds.
    pub(super) link: Option<String>,
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self { text, link: None }
    }
}

impl Entry {
    /// One that leads somewhere.
    pub(super) fn to(text: impl Into<String>, link: impl Into<String>) -> Self {
        Self { text: text.into(), link: Some(link.into()) }
    }

    fn write(&self, html: &mut Html) {
        match &self.link {
            Some(link) => html.element("a", &[("href", link)], &self.text),
            None => html.text(&self.text),
        };
    }
}

/// A table that can be wider than a narrow screen: there every cell stands in a line of its own, after its column's name.
pub(super) fn write(html: &mut Html, caption: &str, columns: &[(&str, Cell)], rows: &[Vec<Entry>]) {
    html.open("table", &[("class", "list")])
        .element("caption", &[], caption)
        .line()
        .open("thead", &[])
        .open("tr", &[]);
    for (name, cell) in columns {
        html.element("th", &[("scope", "col"), ("class", cell.class())], name);
    }
    html.close("tr").close("thead").line().open("tbody", &[]).line();
    for row in rows {
        html.open("tr", &[]);
        for (n, ((name, cell), entry)) in columns.iter().zip(row).enumerate() {
            if n == 0 {
                html.open("th", &[("scope", "row"), ("data-label", name), ("class", cell.class())]);
                entry.write(html);
                html.close("th");
            } else {
                html.open("td", &[("data-label", name), ("class", cell.class())]);
                entry.write(html);
                html.close("td");
            }
        }
        html.close("tr").line();
    }
    html.close("tbody").close("table").line();
}
