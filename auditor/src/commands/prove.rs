//! `auditor prove`: an offline bundle of one exchange.

use anyhow::{Context as _, bail};
use schemas::ExchangeId;

use super::{evidence, query, show};
use crate::access::{self, Content};
use crate::cli::Prove;
use crate::content::Reader;
use crate::proof::Bundle;

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, an exchange that is not in it, an output that cannot be written.
pub fn run(typed: &Prove) -> anyhow::Result<u8> {
    let exchange = ExchangeId::new(typed.exchange.as_str())?;
    if typed.content {
        typed.why.required("prove --content")?;
    }
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let found = show::find(&opened, &cache, &exchange)?;
    if found.is_empty() {
        bail!("exchange {exchange} is in no proven record");
    }
    let reader = Reader::new(&opened);
    let mut bundle = Bundle::new(exchange.clone());
    let mut bytes = 0;
    let mut batches: Vec<_> = found.iter().map(|row| (row.origin.clone(), row.batch)).collect();
    batches.sort();
    batches.dedup();
    for (origin, number) in batches {
        let (note, batch) = reader.batch(&origin, number)?;
        bundle.add(&batch, &note)?;
        if typed.content {
            reader.parts(&batch, Some(&exchange), &mut |part| {
                bytes += part.opened.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
                bundle.open(&origin, &part);
                true
            })?;
        }
    }
    if typed.content {
        let content = Content {
            command: "prove",
            store: report.store.clone(),
            exchanges: vec![exchange.clone()],
            question: None,
            parts: Some(bundle.content.len() as u64),
            bytes: Some(bytes),
        };
        access::release(&opened.state, &typed.why, &content)?;
    }
    let json = serde_json::to_string_pretty(&bundle)? + "\n";
    std::fs::write(&typed.out, json).with_context(|| format!("`{}`", typed.out.display()))?;
    let opened_parts = bundle.content.len();
    eprintln_line(&format!(
        "{} records and {opened_parts} opened parts in `{}`",
        bundle.records.len(),
        typed.out.display()
    ));
    query::finish(&report, &[], None)
}

fn eprintln_line(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(super::stderr(), "{line}");
}
