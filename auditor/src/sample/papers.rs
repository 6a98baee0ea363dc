//! The working papers: a folder that says what was drawn, how, and proves each exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;
use schemas::{ExchangeId, Origin, Sha256Hex};

use super::beacon;
use super::draw::Draw;
use super::method::{Method, RestsOn};
use super::seed::{self, FORMAT, Head, Parameters};
use crate::content::Reader;
use crate::proof::Bundle;
use crate::render::hostile;
use crate::{query, time};

/// The table of what was drawn.
pub const SAMPLE: &str = "sample.csv";
/// The bytes whose SHA-256 is the seed.
pub const SEED: &str = "seed.txt";
/// How it was drawn, for machines.
pub const METHOD: &str = "method.json";
/// How it was drawn, for people.
pub const METHOD_TEXT: &str = "method.txt";
/// A proof for each exchange.
pub const PROOFS: &str = "proofs";

/// Exchanges that one question asks for.
const AT_ONCE: usize = 500;

/// The file of an exchange's proof, in the folder.
pub fn proof_name(exchange: &str) -> String {
    format!("{PROOFS}/{exchange}.json")
}

/// The table of what was drawn.
///
/// # Errors
/// None in practice.
pub fn csv(draw: &Draw, by: &[String]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut names = vec!["item", "exchange", "origin", "position", "state", "started_at"];
    names.extend(by.iter().map(String::as_str));
    names.extend(["currency", "cost", "hits", "ticket", "leaf_hash", "proof"]);
    writer.write_record(names)?;
    for (number, drawn) in draw.drawn.iter().enumerate() {
        let item = &drawn.item;
        let mut cells = vec![
            (number + 1).to_string(),
            item.exchange.clone(),
            item.origin.clone(),
            item.position.to_string(),
            item.state.clone(),
            item.started_at.map(time::text).unwrap_or_default(),
        ];
        cells.extend(item.stratum.iter().map(|value| value.clone().unwrap_or_default()));
        let (currency, cost): (Vec<&str>, Vec<String>) =
            item.cost.iter().map(|(of, cost)| (of.as_str(), cost.to_string())).unzip();
        let (currency, cost) = (currency.join(" "), cost.join(" "));
        let ticket = drawn.ticket.map(|ticket| ticket.to_string()).unwrap_or_default();
        cells.extend([currency, cost, drawn.hits.to_string(), ticket, item.leaf_hash.clone()]);
        cells.push(proof_name(&item.exchange));
        writer.write_record(cells.iter().map(|cell| hostile::cell(cell).into_owned()))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// How a sample was drawn.
pub fn method(draw: &Draw, parameters: Parameters, heads: Vec<Head>, csv: &str, rests_on: RestsOn) -> Method {
    Method {
        format: FORMAT.into(),
        parameters,
        heads,
        seed: draw.seed,
        population: draw.population.clone(),
        strata: draw.strata.clone(),
        units: draw.units.clone(),
        drawn: draw.drawn.len() as u64,
        sample_sha256: Sha256Hex::of(csv.as_bytes()),
        rests_on,
    }
}

/// The same for people.
pub fn method_text(method: &Method) -> String {
    let mut out = String::new();
    let line = |text: &str| hostile::line(text).into_owned();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "{} exchanges drawn from {} of deployment {}",
        method.drawn,
        method.population.exchanges,
        line(&method.parameters.deployment)
    );
    let _ = writeln!(out, "drawn at    {}", time::text(method.rests_on.drawn_at));
    let _ = writeln!(out, "drawn by    {}", line(&method.format));
    let _ = writeln!(out, "verdict     {}", line(&method.rests_on.verdict));
    let _ = writeln!(out, "\nseed        {} = SHA-256 of `{SEED}`", method.seed);
    let _ = writeln!(out, "public      {}", line(&method.parameters.seed_from));
    let _ = writeln!(out, "            {}", beacon::provenance(&method.parameters.seed_from));
    let _ = writeln!(out, "            {}", line(&method.rests_on.later_than_seals));
    let _ = writeln!(out, "population  SHA-256 {}", method.population.sha256);
    let _ = writeln!(
        out,
        "            over a line `ORIGIN POSITION LEAF_HASH` for each exchange, by log and position of intent or refusal"
    );
    for head in &method.heads {
        let _ = writeln!(
            out,
            "log         {} size {} root {} sealed at {}",
            head.origin,
            head.size,
            head.root,
            time::text(head.sealed_at)
        );
    }
    out.push('\n');
    match &method.units {
        Some(units) => {
            let n = method.parameters.n;
            let _ = writeln!(
                out,
                "monetary units: {} {} over {} exchanges; {} without a cost in it were not drawn from",
                units.total, units.currency, units.with_value, units.without_value
            );
            let _ = writeln!(
                out,
                "each exchange is {n} times its cost long, in the order of the population; the points are {} and each {} \
                 further, {n} in all; whoever is worth {}/{n} {} or more is hit. `hits` are the points on an exchange.",
                units.start, units.total, units.total, units.currency
            );
            let _ = writeln!(
                out,
                "the start: first 16 bytes of SHA-256 of `SEED start COUNT` and a line feed, COUNT from 0, drawn again where \
                 it is not below the largest multiple of the total; its remainder by the total, in units of 10^-12"
            );
        }
        None => {
            let _ = writeln!(
                out,
                "in each stratum the lowest tickets are drawn; ticket: SHA-256 of `SEED ORIGIN POSITION` and a line feed"
            );
            let _ = writeln!(
                out,
                "one exchange to each stratum, the rest in proportion to what each has left, largest remainders first"
            );
            let by = method.parameters.by.join(", ");
            for stratum in &method.strata {
                let values: Vec<String> =
                    stratum.values.iter().map(|value| line(value.as_deref().unwrap_or("-"))).collect();
                let of =
                    if values.is_empty() { "all".into() } else { format!("{by} = {}", values.join(", ")) };
                let _ = writeln!(out, "stratum     {of}: {} of {}", stratum.sample, stratum.population);
            }
        }
    }
    let _ = writeln!(
        out,
        "\nto repeat   auditor sample STORE --trust FILE --check FOLDER\nby          auditor {}, trust file {}",
        line(&method.rests_on.auditor),
        method.rests_on.trust_fingerprint
    );
    out
}

/// A proof for each exchange that was drawn.
///
/// # Errors
/// A batch that cannot be read again.
pub async fn proofs(
    context: &SessionContext,
    reader: &Reader,
    exchanges: &[&str],
) -> anyhow::Result<Vec<Bundle>> {
    let mut batches: BTreeMap<(Origin, u64), BTreeSet<usize>> = BTreeMap::new();
    let mut bundles = Vec::with_capacity(exchanges.len());
    for exchange in exchanges {
        bundles.push(Bundle::new(ExchangeId::new(exchange)?));
    }
    let at: BTreeMap<&str, usize> = exchanges.iter().enumerate().map(|(n, id)| (*id, n)).collect();
    for some in exchanges.chunks(AT_ONCE) {
        let list: Vec<String> = some.iter().map(|exchange| format!("'{exchange}'")).collect();
        let sql = format!(
            "SELECT DISTINCT origin, batch, exchange FROM records WHERE exchange IN ({})",
            list.join(", ")
        );
        let rows = query::stream(query::ask(context, &sql).await?).await?;
        for batch in rows.try_collect::<Vec<_>>().await? {
            let (origins, ids) =
                (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(2), &DataType::Utf8)?);
            let numbers = batch.column(1).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let origin = Origin::new(origins.as_string::<i32>().value(row))?;
                let number = u64::try_from(numbers.value(row))?;
                let Some(index) = at.get(ids.as_string::<i32>().value(row)) else { continue };
                batches.entry((origin, number)).or_default().insert(*index);
            }
        }
    }
    for ((origin, number), wanted) in batches {
        let (note, batch) = reader.batch(&origin, number)?;
        for index in wanted {
            if let Some(bundle) = bundles.get_mut(index) {
                bundle.add(&batch, &note)?;
            }
        }
    }
    Ok(bundles)
}

/// A folder for working papers must be new or empty: nothing of another draw may stand among them.
///
/// # Errors
/// It is not, or cannot be read.
pub fn is_free(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("--out `{shown}`")),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => bail!("--out `{shown}`: wanted a folder that is not there yet, or is empty"),
        },
    }
}

/// Writes the papers; `method.json` comes last.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(folder: &Path, method: &Method, csv: &str, bundles: &[Bundle]) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join(PROOFS)).with_context(|| format!("--out `{}`", folder.display()))?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("`{}`", path.display()))
    };
    for bundle in bundles {
        let json = serde_json::to_string_pretty(bundle)? + "\n";
        put(&proof_name(bundle.exchange.as_str()), &json)?;
    }
    put(SAMPLE, csv)?;
    put(SEED, &seed::text(&method.parameters, &method.heads))?;
    put(METHOD_TEXT, &method_text(method))?;
    put(METHOD, &(serde_json::to_string_pretty(method)? + "\n"))
}
