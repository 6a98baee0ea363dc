//! What costs are grouped by: a column of `exchanges`, the model, or a length of time.

use anyhow::bail;
use schemas::columns::COLUMNS;

use crate::query;

/// Names that are no columns.
const COMPUTED: [&str; 7] = ["model", "hour", "day", "week", "month", "year", "origin"];

/// Names of columns that a dispatch has.
fn names() -> impl Iterator<Item = &'static str> {
    COLUMNS
        .iter()
        .map(|column| column.name)
        .filter(|name| *name == "attempt_number" || *name != "phase" && !name.starts_with("attempt_"))
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// As it was typed.
    pub name: String,
    /// The SQL expression over [`crate::query::dispatches`].
    pub expression: String,
}

impl Group {
    /// Reads a name.
    ///
    /// # Errors
    /// A name that there is not, with the one that looks most like it.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        let name = name.trim();
        let expression = match name {
            "model" => query::MODEL_OF_DISPATCH.to_owned(),
            "hour" | "day" | "week" | "month" | "year" => format!("date_trunc('{name}', at)"),
            name if names().any(|known| known == name) || name == "origin" => {
                format!("\"{name}\"")
            }
            _ => {
                let known = COMPUTED.into_iter().chain(names());
                let close = known.max_by_key(|known| {
                    // Similarity in 1000ths: floats have no total order.
                    (strsim::jaro_winkler(known, name) * 1000.0) as u32
                });
                bail!(
                    "`{name}` is not a column to group by; did you mean `{}`?",
                    close.unwrap_or("consumer")
                );
            }
        };
        Ok(Self { name: name.to_owned(), expression })
    }

    /// Reads several; none where nothing was typed.
    ///
    /// # Errors
    /// As [`Group::parse`].
    pub fn parse_all(names: &[String]) -> anyhow::Result<Vec<Self>> {
        names.iter().filter(|name| !name.trim().is_empty()).map(|name| Self::parse(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_there_is_not_is_refused_with_the_nearest_one() {
        let error = Group::parse("consumr").err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("`consumer`")));
        assert!(Group::parse("consumer\" FROM x; --").is_err());
        assert_eq!(Group::parse_all(&[String::new()]).unwrap(), []);
    }
}
