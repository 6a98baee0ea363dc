//! What was asked for: path and query, read strictly.

use std::collections::BTreeMap;

use schemas::ExchangeId;

use super::filter::{Filter, Times};
use super::page_key::Listing;
use crate::render::hostile;

/// A value is at most this long.
const LONGEST: usize = 200;

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// How the evidence is.
    Overview,
    /// Exchanges that a filter lets through.
    Exchanges(Filter, Listing),
    /// All of them, as CSV.
    Csv(Filter),
    /// One exchange's story.
    Exchange(ExchangeId),
    /// What was spent.
    Cost(Times),
    /// The packs.
    Controls,
    /// The controls of a pack.
    Pack(String),
    /// To verify again what this visit showed; `all`: also what was read before.
    Verify {
        /// The visit that is to be followed.
        after: u64,
        /// Whether everything is read.
        all: bool,
    },
    /// To log in.
    Login(String),
}

/// Why there is no such page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No page has this path.
    Path,
    /// The query is none: what is wrong.
    Query(String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::Query(why)
    }
}

impl Asked {
    /// Reads path and query.
    ///
    /// # Errors
    /// No such page, or a query that it does not take.
    pub(super) fn read(path: &str, query: &str) -> Result<Self, Wrong> {
        let mut fields = Fields::read(query)?;
        let asked = match path {
            "/" => Self::Overview,
            "/exchanges" => Self::Exchanges(Filter::take(&mut fields)?, Listing::take(&mut fields)?),
            "/exchanges.csv" => Self::Csv(Filter::take(&mut fields)?),
            "/cost" => Self::Cost(Times::take(&mut fields)?),
            "/controls" => Self::Controls,
            "/verify" => {
                let after = fields.take("after").ok_or("`after`: wanted the number of a visit".to_owned())?;
                let wrong = || format!("`after` is `{after}`: wanted the number of a visit");
                let all = match fields.take("all").as_deref() {
                    None => false,
                    Some("yes") => true,
                    Some(other) => return Err(format!("`all` is `{other}`: wanted `yes`").into()),
                };
                Self::Verify { after: after.parse().map_err(|_| wrong())?, all }
            }
            "/login" => Self::Login(fields.take("token").unwrap_or_default()),
            _ => match path.strip_prefix("/exchange/").map(ExchangeId::new) {
                Some(Ok(exchange)) => Self::Exchange(exchange),
                Some(Err(_)) => return Err(Wrong::Path),
                None => Self::pack(path).ok_or(Wrong::Path)?,
            },
        };
        fields.finish()?;
        Ok(asked)
    }

    fn pack(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/controls/")?;
        let is_name = (1..=LONGEST).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        is_name.then(|| Self::Pack(name.to_owned()))
    }
}

/// The fields of a query that nobody took yet.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads `name=value&...` as forms send it. An empty value is none.
    ///
    /// # Errors
    /// What is no form, a name that comes twice, a value that is too long or holds characters that nobody sees.
    pub(super) fn read(query: &str) -> Result<Self, String> {
        let mut fields = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let value = value.trim();
            if value.chars().count() > LONGEST {
                return Err(format!("`{name}` is longer than {LONGEST} characters"));
            }
            if hostile::line(value) != value || hostile::line(&name) != name {
                return Err(format!("`{name}` holds control characters: wanted text"));
            }
            if fields.insert(name.clone(), value.to_owned()).is_some() {
                return Err(format!("`{name}` is given twice"));
            }
        }
        fields.retain(|_, value| !value.is_empty());
        Ok(Self(fields))
    }

    /// Takes a field.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn finish(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            Some(name) => Err(format!("`{name}` is nothing that this page is asked by")),
            None => Ok(()),
        }
    }
}

/// Undoes what a form does to its text.
fn decoded(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                    _ => return Err("a `%` without two hexadecimal digits".into()),
                }
            }
            byte => byte,
        });
    }
    String::from_utf8(out).map_err(|_| "what is no UTF-8".into())
}

/// A path with a query, as a link of this page.
pub(super) fn link(path: &str, fields: &[(&str, String)]) -> String {
    let mut out = path.to_owned();
    for (n, (name, value)) in fields.iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_send_it_and_written_as_it_is_read() {
        let mut fields = Fields::read("consumer=a+b%26%3D&team=&model=x").unwrap();
        assert_eq!(fields.take("consumer").as_deref(), Some("a b&="));
        assert_eq!((fields.take("team"), fields.take("model").as_deref()), (None, Some("x")));
        let odd = "ä & = % + '\" \u{1f642}";
        let written = link("/exchanges", &[("consumer", odd.to_owned())]);
        assert!(written.is_ascii());
        let mut again = Fields::read(written.strip_prefix("/exchanges?").unwrap()).unwrap();
        assert_eq!(again.take("consumer").as_deref(), Some(odd));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        for (path, query, wanted) in [
            ("/exchanges", "colour=red", "`colour` is nothing"),
            ("/exchanges", "team=a&team=b", "given twice"),
            ("/exchanges", "team=%zz", "hexadecimal"),
            ("/exchanges", "team=%", "hexadecimal"),
            ("/exchanges", "team=%ff", "UTF-8"),
            ("/exchanges", "team=%1b[31m", "control characters"),
            ("/exchanges", "team=%E2%80%AEx", "control characters"),
            ("/exchanges", "from=yesterday", "wanted `2026-11-20`"),
            ("/exchanges", "status=99", "wanted"),
            ("/exchanges", "refused=maybe", "wanted `yes` or `no`"),
            ("/exchanges", "cost_from=1e3", "wanted"),
            ("/exchanges", "sort=colour", "wanted `newest`"),
            ("/exchanges", "after=1", "wanted the key"),
            ("/", "x=1", "`x` is nothing"),
            ("/verify", "", "wanted the number"),
            ("/verify", "after=-1", "wanted the number"),
            ("/verify", "after=1&all=no", "wanted `yes`"),
        ] {
            match Asked::read(path, query) {
                Err(Wrong::Query(why)) => assert!(why.contains(wanted), "{path}?{query}: {why}"),
                other => panic!("{path}?{query}: {other:?}"),
            }
        }
        let long = format!("team={}", "x".repeat(201));
        assert!(Asked::read("/exchanges", &long).is_err());
        for path in ["/x", "/exchange/", "/exchange/1", "/controls/../x", "/controls/", "//", "/exchanges/"] {
            assert_eq!(Asked::read(path, ""), Err(Wrong::Path), "{path}");
        }
    }

    #[test]
    fn odd_bytes_never_end_the_program() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut read = 0;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..seed % 40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let pieces = [
                    "%",
                    "+",
                    "&",
                    "=",
                    "team",
                    "after",
                    "from",
                    "~",
                    "%00",
                    "%E2%80%AE",
                    "cost_from",
                    "'",
                    "9",
                    "2026-11-20",
                    "é",
                    "sort=cost",
                ];
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for path in ["/exchanges", "/exchanges.csv", "/cost", "/verify", "/login"] {
                read += usize::from(Asked::read(path, &text).is_ok());
            }
            let _ = Asked::read(&text, &text);
        }
        assert!(read > 0);
    }
}
