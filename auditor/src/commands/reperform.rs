//! `auditor reperform`: every verdict again, or with another policy.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use policies::policy::Policy;

use super::{evidence, query};
use crate::cli::{Answer, AnswerFormat, Reperform, ReperformFormat};
use crate::reperform::compare::{Policies, compare};
use crate::reperform::result::Reperformed;
use crate::reperform::what_if::what_if;
use crate::reperform::{exchange, render};

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, a policy that is none, an output that cannot be written.
pub fn run(typed: &Reperform) -> anyhow::Result<u8> {
    let other = typed.policy.as_ref().map(|path| {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| format!("--policy `{shown}`"))?;
        match Policy::parse(&bytes) {
            Ok(policy) => Ok(policy),
            Err(problems) => {
                let told: Vec<String> =
                    problems.into_iter().map(|problem| problem.in_file(&shown).to_string()).collect();
                bail!("--policy: {}", told.join("\n"))
            }
        }
    });
    let other = other.transpose()?;
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        let answer = Answer { format: AnswerFormat::Table, out: None, memory: typed.memory };
        let (context, _spill) = query::session(&opened, &cache, &[], &answer).await?;
        let mut found = Reperformed { policy: other.as_ref().map(Policy::hash), ..Reperformed::default() };
        let in_force = exchange::in_force(&context).await?;
        let mut policies = Policies::new(&report.policies);
        exchange::each(&context, (opened.from, opened.to), |exchange| {
            let one = match &other {
                Some(policy) => what_if(exchange, policy),
                None => compare(exchange, &in_force, &mut policies),
            };
            found.add(one, exchange.count);
        })
        .await?;
        anyhow::Ok(found)
    })?;
    let text = match typed.format {
        ReperformFormat::Text => render::text(&found),
        ReperformFormat::Json => render::json_text(&found, &report)?,
        ReperformFormat::Csv => render::csv_text(&found)?,
    };
    let mut out = query::output(typed.out.as_deref())?;
    query::unless_broken(out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Into::into))?;
    let mut stderr = super::stderr();
    if found.evaluated.is_empty() {
        writeln!(stderr, "no verdict could be evaluated: nothing is judged")?;
    }
    let not_listed = render::not_listed(&found);
    if not_listed > 0 && typed.format != ReperformFormat::Text {
        writeln!(stderr, "not listed {not_listed} exchanges: counted only")?;
    }
    query::finish(&report, &[], None)?;
    Ok(found.exit_code(report.verdict))
}
