//! The order of a list, and the key of the place where its next page begins: no offset, so that a page costs the same wherever it is.

use schemas::Origin;

use super::asked::Fields;
use super::filter::{COST, amount, moment, quoted};
use crate::decimal::Decimal;

/// An order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
    /// What cost most first.
    Dearest,
    /// What took longest first.
    Slowest,
    /// The most output tokens first.
    Largest,
}

impl Sort {
    /// All of them: as they are typed, and as they are said.
    pub(super) const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Newest, "newest", "newest first"),
        (Self::Oldest, "oldest", "oldest first"),
        (Self::Dearest, "dearest", "highest cost first"),
        (Self::Slowest, "slowest", "longest first"),
        (Self::Largest, "largest", "most output tokens first"),
    ];

    /// As it is typed.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(sort, _, _)| *sort == self).map_or("newest", |(_, name, _)| name)
    }

    /// The column, and whether its largest value comes first.
    fn column(self) -> (&'static str, bool) {
        match self {
            Self::Newest => ("started_at", true),
            Self::Oldest => ("started_at", false),
            Self::Dearest => (COST, true),
            Self::Slowest => ("total_us", true),
            Self::Largest => ("output_tokens", true),
        }
    }

    /// The column's value as it stands in a key.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Newest | Self::Oldest => "CAST(started_at AS BIGINT)",
            Self::Dearest => COST,
            Self::Slowest => "total_us",
            Self::Largest => "output_tokens",
        }
    }

    /// The order in SQL: every exchange has its place in it.
    pub(super) fn order(self) -> String {
        let (column, falls) = self.column();
        format!("{column} {} NULLS LAST, origin, position", if falls { "DESC" } else { "ASC" })
    }

    /// A value of a key in SQL.
    fn value(self, text: &str) -> Option<String> {
        match self {
            Self::Newest | Self::Oldest => text.parse().ok().map(moment),
            Self::Dearest => Decimal::parse(text).map(amount),
            Self::Slowest | Self::Largest => text.parse::<i64>().ok().map(|n| n.to_string()),
        }
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The order.
    pub(super) sort: Sort,
    /// The key of the exchange before its first one, and the condition that it is.
    pub(super) after: Option<(String, String)>,
}

impl Listing {
    /// Takes `sort` and `after`.
    ///
    /// # Errors
    /// An order that there is not, or a key of another order.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, String> {
        let sort = match fields.take("sort") {
            None => Sort::default(),
            Some(text) => {
                let known = Sort::ALL.iter().find(|(_, name, _)| *name == text).map(|(sort, _, _)| *sort);
                known.ok_or_else(|| {
                    let names: Vec<String> =
                        Sort::ALL.iter().map(|(_, name, _)| format!("`{name}`")).collect();
                    format!("`sort` is `{text}`: wanted {}", names.join(", "))
                })?
            }
        };
        let after = match fields.take("after") {
            None => None,
            Some(key) => {
                let condition = condition(sort, &key).ok_or_else(|| {
                    format!("`after` is `{key}`: wanted the key that a page gave for this order")
                })?;
                Some((key, condition))
            }
        };
        Ok(Self { sort, after })
    }
}

/// The key of an exchange.
pub(super) fn key(value: Option<&str>, origin: &str, position: &str) -> String {
    format!("{}~{origin}~{position}", value.unwrap_or_default())
}

/// What is behind a key.
fn condition(sort: Sort, key: &str) -> Option<String> {
    let mut parts = key.split('~');
    let (value, origin, position) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let origin = quoted(Origin::new(origin).ok()?.as_str());
    let position = i64::try_from(position.parse::<u64>().ok()?).ok()?;
    let (column, falls) = sort.column();
    let behind = format!("(origin > {origin} OR (origin = {origin} AND position > {position}))");
    if value.is_empty() {
        return Some(format!("({column} IS NULL AND {behind})"));
    }
    let (value, operator) = (sort.value(value)?, if falls { "<" } else { ">" });
    Some(format!("({column} {operator} {value} OR ({column} = {value} AND {behind}) OR {column} IS NULL)"))
}
