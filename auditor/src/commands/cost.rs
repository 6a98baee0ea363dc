//! `auditor cost`: what was spent, by any columns; how a month will end, against a budget, what caches saved, when
//! prices changed, what another model would have cost.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{Decimal128Type, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;
use policies::price::PriceBook;

use super::evidence::Opened;
use super::{evidence, query};
use crate::cli::Cost;
use crate::cost::booked::{self, Books};
use crate::cost::budget::{self, Budget, Budgeting};
use crate::cost::changes::{self, Changes};
use crate::cost::forecast::{self, Forecasts};
use crate::cost::group::Group;
use crate::cost::period::{FORM, Period};
use crate::cost::repriced::{self, Other};
use crate::cost::savings;
use crate::cost::sheet::Sheet;
use crate::cost::spend::{Amount, Spend};
use crate::decimal::Decimal;
use crate::report::Report;
use crate::{query as sql_query, time};

/// Runs the command.
///
/// # Errors
/// As `query`; a column, period, budget or price book that is none.
pub fn run(typed: &Cost) -> anyhow::Result<u8> {
    let asked = Asked::read(typed)?;
    let opened = evidence::open(&typed.evidence)?;
    query::check(&typed.answer)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (sql, spend) = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &typed.answer).await?;
        asked.answer(&context, &opened, &report, typed).await
    })?;
    let mut stderr = super::stderr();
    for line in spend.lines() {
        writeln!(stderr, "spent     {line}")?;
    }
    query::finish(&report, &[], Some(&sql))
}

/// What was asked.
enum Asked {
    By(Vec<Group>),
    Forecast(Vec<Group>, Option<Period>),
    Budget(Budget),
    Savings(Vec<Group>),
    Changes,
    WhatIf(Vec<Group>, Other, Option<PriceBook>),
}

impl Asked {
    fn read(typed: &Cost) -> anyhow::Result<Self> {
        let by = |default: &str| match &typed.by {
            Some(names) => Group::parse_all(names),
            None => Group::parse_all(&default.split(',').map(str::to_owned).collect::<Vec<_>>()),
        };
        let question = &typed.question;
        if let Some(text) = &question.forecast {
            let period = match text.as_str() {
                "" => None,
                text => Some(
                    Period::parse(text)
                        .with_context(|| format!("--forecast: `{text}` is no period: wanted {FORM}"))?,
                ),
            };
            return Ok(Self::Forecast(by("")?, period));
        }
        if let Some(path) = &question.budget {
            if typed.by.is_some() {
                bail!("--budget: its columns say what it is by; leave `--by` out");
            }
            let bytes = std::fs::read(path).with_context(|| format!("--budget `{}`", path.display()))?;
            return match Budget::parse(&bytes) {
                Ok(budget) => Ok(Self::Budget(budget)),
                Err(problems) => bail!("{}", told(problems, &path.display().to_string())),
            };
        }
        if let Some(text) = &question.what_if {
            let other = Other::parse(text).map_err(anyhow::Error::msg).context("--what-if")?;
            let book = typed.book.as_ref().map(|path| {
                let bytes = std::fs::read(path).with_context(|| format!("--book `{}`", path.display()))?;
                PriceBook::parse(&bytes)
                    .map_err(|problems| anyhow::anyhow!("{}", told(problems, &path.display().to_string())))
            });
            return Ok(Self::WhatIf(by("consumer,model")?, other, book.transpose()?));
        }
        Ok(match (question.savings, question.price_changes) {
            (true, _) => Self::Savings(by("consumer,model")?),
            (_, true) if typed.by.is_some() => {
                bail!("--price-changes: prices are not grouped; leave `--by` out")
            }
            (_, true) => Self::Changes,
            _ => Self::By(by("consumer,model,day")?),
        })
    }

    async fn answer(
        self,
        context: &SessionContext,
        opened: &Opened,
        report: &Report,
        typed: &Cost,
    ) -> anyhow::Result<(String, Spend)> {
        let mut spend = Spend::default();
        let (from, to) = (opened.from, opened.to);
        let mut books = Books::new(&report.price_books);
        let (sql, sheet) = match self {
            Self::By(groups) => {
                let sql = sql(&groups, from, to);
                query::answer(context, &sql, &typed.answer).await?;
                return Ok((sql, total(context, from, to).await?));
            }
            Self::Forecast(groups, period) => {
                let now = known_to(opened, report);
                let period =
                    period.or_else(|| Period::month_of(now)).context("the month of the evidence's end")?;
                let mut forecasts = Forecasts::new(period.clone(), now);
                if let Some(begin) = known_from(opened, report) {
                    forecasts.known_from(begin);
                }
                let from = from.unwrap_or(i64::MIN).max(forecasts.needed_from());
                let sql = booked::question(&groups, Some(from), to);
                booked::each(context, &sql, |booked| {
                    if period.holds(booked.at) {
                        spend.add(&booked);
                    }
                    forecasts.add(&booked);
                    Ok(())
                })
                .await?;
                (sql, forecast::sheet(&names(&groups), &forecasts.finish()))
            }
            Self::Budget(budget) => {
                let groups = budget.groups.clone();
                let (start, end) = budget.span().context("a budget without lines")?;
                let now = known_to(opened, report);
                let back = forecast::LOOKS_BACK_DAYS * time::DAY;
                let start = start.min(now.saturating_sub(back).div_euclid(time::DAY) * time::DAY);
                let mut budgeting = Budgeting::new(budget, now);
                if let Some(begin) = known_from(opened, report) {
                    budgeting.known_from(begin);
                }
                let sql = booked::question(
                    &groups,
                    Some(from.unwrap_or(i64::MIN).max(start)),
                    Some(to.unwrap_or(i64::MAX).min(end.max(now))),
                );
                booked::each(context, &sql, |booked| {
                    spend.add(&booked);
                    budgeting.add(&booked);
                    Ok(())
                })
                .await?;
                (sql, budget::sheet(&names(&groups), &budgeting.finish()))
            }
            Self::Savings(groups) => {
                let sql = booked::question(&groups, from, to);
                let mut all = savings::All::new();
                booked::each(context, &sql, |booked| {
                    spend.add(&booked);
                    savings::add(&mut all, &booked, books.bill(&booked).ok().as_ref());
                    Ok(())
                })
                .await?;
                (sql, savings::sheet(&names(&groups), &all))
            }
            Self::Changes => {
                let sql = booked::question(&[], from, to);
                let mut changes = Changes::default();
                booked::each(context, &sql, |booked| {
                    spend.add(&booked);
                    changes.add(&booked, books.bill(&booked).ok().as_ref());
                    Ok(())
                })
                .await?;
                if changes.not_known > 0 {
                    let count = changes.not_known;
                    writeln!(
                        super::stderr(),
                        "left out  {count} exchanges: their price book cannot be read"
                    )?;
                }
                (sql, changes::sheet(&changes.finish()))
            }
            Self::WhatIf(groups, other, given) => {
                let sql = booked::question(&groups, from, to);
                let newest = newest_book(context, report).await?;
                let fallback = given.as_ref().or(newest.as_ref());
                let in_any = fallback.is_some_and(|book| other.is_in(book))
                    || report
                        .price_books
                        .keys()
                        .any(|hash| books.book(*hash).is_some_and(|book| other.is_in(book)));
                if !in_any {
                    bail!(
                        "--what-if: no row of a price book names `{}/{}`; give one that does with `--book`",
                        other.provider,
                        other.model
                    );
                }
                let mut all = repriced::All::new();
                booked::each(context, &sql, |booked| {
                    spend.add(&booked);
                    let own = booked.outcome.cost.as_ref().map(|cost| cost.price_book);
                    let book = match (&given, own) {
                        (Some(given), _) => Some(given),
                        (None, Some(own)) => books.book(own).or(fallback),
                        (None, None) => fallback,
                    };
                    if let Some(book) = book {
                        repriced::add(&mut all, &other, book, &booked);
                    }
                    Ok(())
                })
                .await?;
                let caveat =
                    "recorded counts at another model's prices; another model cuts text into other tokens";
                writeln!(super::stderr(), "what if   {caveat}")?;
                (sql, repriced::sheet(&names(&groups), &all))
            }
        };
        write(&sheet, typed)?;
        Ok((sql, spend))
    }
}

fn told(problems: Vec<policies::document::Problem>, file: &str) -> String {
    problems.into_iter().map(|problem| problem.in_file(file).to_string()).collect::<Vec<_>>().join("\n")
}

fn names(groups: &[Group]) -> Vec<&str> {
    groups.iter().map(|group| group.name.as_str()).collect()
}

fn write(sheet: &Sheet, typed: &Cost) -> anyhow::Result<()> {
    query::write_batches(&sheet.schema(), [sheet.batch()?], &typed.answer)
}

/// Up to when something is known: the newest proven record, no later than the end that was asked for.
fn known_to(opened: &Opened, report: &Report) -> i64 {
    let proven = report.gateways.iter().filter_map(|gateway| gateway.proven).map(|proven| proven.to).max();
    proven.unwrap_or(report.checked_at).min(opened.to.unwrap_or(i64::MAX))
}

/// From when on.
fn known_from(opened: &Opened, report: &Report) -> Option<i64> {
    let proven = report.gateways.iter().filter_map(|gateway| gateway.proven).map(|proven| proven.from).min();
    Some(proven?.max(opened.from.unwrap_or(i64::MIN)))
}

/// The book that the newest `config` record names.
async fn newest_book(context: &SessionContext, report: &Report) -> anyhow::Result<Option<PriceBook>> {
    let sql =
        "SELECT leaf FROM records WHERE kind = 'config' ORDER BY at DESC, origin, position DESC LIMIT 100";
    let rows = sql_query::stream(sql_query::ask(context, sql).await?).await?;
    for batch in rows.try_collect::<Vec<_>>().await? {
        let leaves = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        for leaf in leaves.as_string::<i32>().iter().flatten() {
            let decoded = schemas::leaf::decode(leaf.as_bytes()).context("a proven leaf")?;
            if let Some(schemas::record::Body::Config(config)) = decoded.record.map(|record| record.body)
                && let Some(text) = config.price_book.and_then(|book| report.price_books.get(&book))
                && let Ok(book) = PriceBook::parse(text.as_bytes())
            {
                return Ok(Some(book));
            }
        }
    }
    Ok(None)
}

/// All that was spent.
pub(super) async fn total(
    context: &SessionContext,
    from: Option<i64>,
    to: Option<i64>,
) -> anyhow::Result<Spend> {
    let last = "(usage_source = 'provider' OR usage_source = 'not_applicable')";
    let sql = format!(
        "SELECT currency, count(cost) AS priced, count(CASE WHEN kind = 'outcome' THEN cost END) AS exchanges, sum(cost) AS cost, \
         cast(sum(CASE WHEN cost IS NOT NULL AND NOT {last} THEN 1 ELSE 0 END) AS BIGINT) AS not_final, \
         sum(CASE WHEN NOT {last} THEN cost END) AS not_final_cost, \
         cast(sum(CASE WHEN cost IS NULL AND usage_role = 'incurred' AND usage_source <> 'not_applicable' THEN 1 ELSE 0 END) AS BIGINT) \
         AS unpriced, sum(CASE WHEN usage_source = 'estimated' THEN cost END) AS estimated_cost, \
         cast(sum(CASE WHEN cost IS NULL AND usage_role = 'incurred' AND usage_source = 'unknown' THEN 1 ELSE 0 END) AS BIGINT) \
         AS no_usage \
         FROM {} WHERE booking = 1 GROUP BY currency",
        booked::subquery(from, to)
    );
    let rows = sql_query::stream(sql_query::ask(context, &sql).await?).await?;
    let mut spend = Spend::default();
    for batch in rows.try_collect::<Vec<_>>().await? {
        let currencies = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        let currencies = currencies.as_string::<i32>();
        for row in 0..batch.num_rows() {
            let count = |column: usize| {
                u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(row)).unwrap_or(0)
            };
            let money = |column: usize| {
                let column = batch.column(column).as_primitive::<Decimal128Type>();
                Decimal(if column.is_valid(row) { column.value(row) } else { 0 })
            };
            spend.unpriced += count(6);
            spend.no_usage += count(8);
            if currencies.is_valid(row) {
                let amount = Amount {
                    answers: count(1),
                    exchanges: count(2),
                    cost: money(3),
                    not_final: count(4),
                    not_final_cost: money(5),
                    estimated_cost: money(7),
                };
                spend.by_currency.insert(currencies.value(row).to_owned(), amount);
            }
        }
    }
    Ok(spend)
}

/// The question by columns. Currencies are never added together.
fn sql(groups: &[Group], from: Option<i64>, to: Option<i64>) -> String {
    let select: String =
        groups.iter().map(|group| format!("{} AS \"{}\", ", group.expression, group.name)).collect();
    let group: String = groups.iter().map(|group| format!("{}, ", group.expression)).collect();
    let order: String = groups.iter().map(|group| format!(", \"{}\"", group.name)).collect();
    format!(
        "SELECT {select}currency, sum(CASE WHEN kind = 'outcome' THEN 1 ELSE 0 END) AS exchanges, sum(cost) AS cost, \
         sum(CASE WHEN cost IS NULL AND usage_role = 'incurred' AND usage_source <> 'not_applicable' THEN 1 ELSE 0 END) \
         AS unpriced, \
         sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens, \
         sum(output_tokens) AS output_tokens, \
         sum(CASE WHEN usage_source = 'provider' OR usage_source = 'not_applicable' THEN 0 ELSE 1 END) AS not_final, \
         sum(CASE WHEN usage_source = 'provider' OR usage_source = 'not_applicable' THEN NULL ELSE cost END) \
         AS not_final_cost, \
         sum(CASE WHEN usage_source = 'estimated' THEN cost END) AS estimated_cost \
         FROM {} WHERE booking = 1 GROUP BY {group}currency ORDER BY cost DESC NULLS LAST{order}",
        booked::subquery(from, to)
    )
}
