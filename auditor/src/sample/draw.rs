//! The draw: twice through the population, once to count and once to draw.

use std::collections::{BTreeMap, BinaryHeap};

use anyhow::{Context as _, bail};
use datafusion::prelude::SessionContext;
use schemas::Sha256Hex;
use schemas::digest::Hasher;

use super::method::{Population, Stratum, UnitsDrawn};
use super::population::{self, Item};
use super::seed::{self, Head, Parameters};
use super::strata::{Units, allocate};
use crate::decimal::Decimal;

/// An exchange that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The exchange.
    pub item: Item,
    /// Its ticket; with units of money none.
    pub ticket: Option<Sha256Hex>,
    /// How many points fell on it; else 1.
    pub hits: u64,
}

/// A sample, and what it was drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// The seed.
    pub seed: Sha256Hex,
    /// What was drawn from.
    pub population: Population,
    /// By stratum.
    pub strata: Vec<Stratum>,
    /// Units of money.
    pub units: Option<UnitsDrawn>,
    /// What was drawn, in the order of the population.
    pub drawn: Vec<Drawn>,
}

/// Counts a population as it goes by.
#[derive(Debug, Default)]
pub struct Count {
    hasher: Hasher,
    exchanges: u64,
    strata: BTreeMap<Vec<Option<String>>, u64>,
    values: BTreeMap<String, (u64, i128)>,
}

impl Count {
    /// Counts an exchange.
    ///
    /// # Errors
    /// Values whose sum no number holds.
    pub fn add(&mut self, item: &Item) -> anyhow::Result<()> {
        self.hasher.update(format!("{} {} {}\n", item.origin, item.position, item.leaf_hash).as_bytes());
        self.exchanges += 1;
        match self.strata.get_mut(&item.stratum) {
            Some(count) => *count += 1,
            None => {
                self.strata.insert(item.stratum.clone(), 1);
            }
        }
        for (currency, cost) in item.cost.iter().filter(|(_, cost)| cost.0 > 0) {
            let (count, sum) = self.values.entry(currency.clone()).or_default();
            *count += 1;
            *sum = sum.checked_add(cost.0).context("the sum of all costs is too large")?;
        }
        Ok(())
    }
}

/// How the second pass draws.
#[derive(Debug)]
pub enum Pass {
    /// The lowest tickets of each stratum: how many, and those so far, the highest on top.
    Tickets(Sha256Hex, BTreeMap<Vec<Option<String>>, (usize, BinaryHeap<Ticket>)>),
    /// Points on units of money of a currency.
    Units(String, Units, Vec<Drawn>),
}

/// A ticket with its exchange, in the order of tickets.
#[derive(Debug)]
pub struct Ticket(Sha256Hex, Item);

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Ticket {}
impl PartialOrd for Ticket {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ticket {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Pass {
    /// Looks at an exchange.
    pub fn add(&mut self, item: Item) {
        match self {
            Self::Tickets(seed, strata) => {
                let Some((wanted, heap)) = strata.get_mut(&item.stratum) else { return };
                let ticket = seed::ticket(seed, &item.origin, item.position);
                if heap.len() < *wanted {
                    heap.push(Ticket(ticket, item));
                } else if heap.peek().is_some_and(|highest| ticket < highest.0) {
                    heap.pop();
                    heap.push(Ticket(ticket, item));
                }
            }
            Self::Units(currency, units, drawn) => {
                let value = item.cost.get(currency).map(|cost| cost.0);
                let hits = units.hits(value.and_then(|value| u128::try_from(value).ok()).unwrap_or(0));
                if hits > 0 {
                    drawn.push(Drawn { item, ticket: None, hits });
                }
            }
        }
    }

    /// What was drawn, in the order of the population.
    pub fn finish(self) -> Vec<Drawn> {
        match self {
            Self::Units(_, _, drawn) => drawn,
            Self::Tickets(_, strata) => {
                let mut drawn: Vec<Drawn> = strata
                    .into_values()
                    .flat_map(|(_, heap)| heap.into_vec())
                    .map(|Ticket(ticket, item)| Drawn { item, ticket: Some(ticket), hits: 1 })
                    .collect();
                drawn.sort_by(|a, b| {
                    (&a.item.origin, a.item.position).cmp(&(&b.item.origin, b.item.position))
                });
                drawn
            }
        }
    }
}

/// What the first pass found, and how the second draws.
///
/// # Errors
/// A population from which nothing can be drawn as asked.
pub fn plan(
    count: Count,
    parameters: &mut Parameters,
    heads: &[Head],
) -> anyhow::Result<(Sha256Hex, Population, Vec<Stratum>, Option<UnitsDrawn>, Pass)> {
    let population = Population { exchanges: count.exchanges, sha256: count.hasher.finish() };
    if population.exchanges == 0 {
        bail!("the population holds no exchange: nothing can be drawn");
    }
    let n = parameters.n;
    if parameters.by_value.is_some() {
        let currencies: Vec<&String> = count.values.keys().collect();
        let currency = match (&parameters.currency, currencies.as_slice()) {
            (Some(currency), _) => currency.clone(),
            (None, [one]) => (*one).clone(),
            (None, []) => bail!("--by-value: no exchange of the population has a cost"),
            (None, _) => bail!("--by-value: costs are in several currencies; choose one with `--currency`"),
        };
        parameters.currency = Some(currency.clone());
        let (with_value, sum) = count.values.get(&currency).copied().with_context(|| {
            format!("--currency {currency}: no exchange of the population has such a cost")
        })?;
        let seed = seed::seed(parameters, heads);
        let total = u128::try_from(sum)?;
        let start = seed::below(&seed, total).context("a population without value")?;
        let units = Units::new(n, total, start).context("the sum of all costs is too large for `--n`")?;
        let drawn = UnitsDrawn {
            currency: currency.clone(),
            total: Decimal(sum),
            start: Decimal(i128::try_from(start)?),
            with_value,
            without_value: count.exchanges - with_value,
        };
        let pass = Pass::Units(currency, units, Vec::new());
        return Ok((seed, population, Vec::new(), Some(drawn), pass));
    }
    let seed = seed::seed(parameters, heads);
    let sizes: Vec<u64> = count.strata.values().copied().collect();
    let strata = count.strata.len();
    let counts = allocate(n, &sizes).with_context(|| {
        format!("--n {n}: there are {strata} strata; wanted at least {strata}, or fewer columns in `--by`")
    })?;
    let strata: Vec<Stratum> = count
        .strata
        .into_iter()
        .zip(counts)
        .map(|((values, population), sample)| Stratum { values, population, sample })
        .collect();
    let mut heaps = BTreeMap::new();
    for stratum in &strata {
        heaps.insert(stratum.values.clone(), (usize::try_from(stratum.sample)?, BinaryHeap::new()));
    }
    Ok((seed, population, strata, None, Pass::Tickets(seed, heaps)))
}

/// Draws. The currency is filled in where there is only one.
///
/// # Errors
/// A column that there is not, a population from which nothing can be drawn as asked, or as the queries.
pub async fn draw(
    context: &SessionContext,
    parameters: &mut Parameters,
    heads: &[Head],
) -> anyhow::Result<Draw> {
    let sql = population::question(parameters, heads)?;
    let mut count = Count::default();
    population::each(context, &sql, |item| count.add(&item)).await?;
    let (seed, population, strata, units, mut pass) = plan(count, parameters, heads)?;
    population::each(context, &sql, |item| {
        pass.add(item);
        Ok(())
    })
    .await?;
    Ok(Draw { seed, population, strata, units, drawn: pass.finish() })
}
