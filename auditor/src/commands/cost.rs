//! `auditor cost`: what was spent, by any columns.

use anyhow::bail;
use schemas::columns::COLUMNS;

use super::{evidence, query};
use crate::cli::Cost;
use crate::time;

/// Runs the command.
///
/// # Errors
/// As `query`, and a column that there is not.
pub fn run(typed: &Cost) -> anyhow::Result<u8> {
    let opened = evidence::open(&typed.evidence)?;
    query::check(&typed.answer)?;
    let sql = sql(&typed.by, opened.from, opened.to)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &typed.answer).await?;
        query::answer(&context, &sql, &typed.answer).await
    })?;
    query::finish(&report, &[], Some(&sql))
}

/// The question. Cost is booked once for each response of a provider and target: an answer that is read again does
/// not cost again. Currencies are never added together.
fn sql(by: &[String], from: Option<i64>, to: Option<i64>) -> anyhow::Result<String> {
    let mut columns = Vec::new();
    for name in by.iter().map(|name| name.trim()) {
        let expression = match name {
            "model" => "coalesce(served_model, requested_model)".to_owned(),
            "hour" | "day" | "week" | "month" | "year" => format!("date_trunc('{name}', at)"),
            name if COLUMNS.iter().any(|column| column.name == name) || name == "origin" => {
                format!("\"{name}\"")
            }
            _ => {
                let known: Vec<&str> = ["model", "hour", "day", "week", "month", "year", "origin"]
                    .into_iter()
                    .chain(COLUMNS.iter().map(|column| column.name))
                    .collect();
                let close = known.iter().copied().max_by_key(|known| {
                    // Similarity in 1000ths: floats have no total order.
                    (strsim::jaro_winkler(known, name) * 1000.0) as u32
                });
                bail!(
                    "`{name}` is not a column to group by; did you mean `{}`?",
                    close.unwrap_or("consumer")
                );
            }
        };
        columns.push((name.to_owned(), expression));
    }
    let select =
        columns.iter().map(|(name, expression)| format!("{expression} AS \"{name}\", ")).collect::<String>();
    let group = columns.iter().map(|(_, expression)| format!("{expression}, ")).collect::<String>();
    let order = columns.iter().map(|(name, _)| format!(", \"{name}\"")).collect::<String>();
    let mut filter = "kind = 'outcome'".to_owned();
    for (operator, bound) in [(">=", from), ("<", to)] {
        if let Some(bound) = bound {
            filter.push_str(&format!(" AND at {operator} TIMESTAMP '{}'", time::text(bound)));
        }
    }
    Ok(format!(
        "SELECT {select}currency, count(*) AS exchanges, sum(cost) AS cost, \
         sum(CASE WHEN cost IS NULL AND usage_role = 'incurred' THEN 1 ELSE 0 END) AS unpriced, \
         sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens, \
         sum(output_tokens) AS output_tokens, \
         sum(CASE WHEN usage_source = 'provider' OR usage_source = 'not_applicable' THEN 0 ELSE 1 END) AS not_final \
         FROM (SELECT *, row_number() OVER (PARTITION BY provider, target, \
         coalesce(response_id, concat(origin, ' ', cast(position AS VARCHAR))) ORDER BY at, origin, position) AS booking \
         FROM records WHERE {filter}) WHERE booking = 1 GROUP BY {group}currency ORDER BY cost DESC NULLS LAST{order}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_there_is_not_is_refused_with_the_nearest_one() {
        let error = sql(&["consumr".into()], None, None).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("`consumer`")));
        assert!(sql(&["consumer\" FROM x; --".into()], None, None).is_err());
    }
}
