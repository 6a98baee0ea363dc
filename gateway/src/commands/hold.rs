//! `gateway hold add|release|list`.

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use schemas::holds::Scope;

use super::loaded;
use crate::admin::socket::HoldAsked;
use crate::cli::{Format, Hold, HoldAdd, HoldList};
use crate::output;

/// Runs the command.
///
/// # Errors
/// Why nothing is recorded, or what is held is not known.
pub(super) fn run(command: &Hold) -> Result<()> {
    match command {
        Hold::Add(args) => crate::serve::hold(loaded(&args.file.config)?, asked(args)?),
        Hold::Release(args) => {
            let (hold, reason) = (args.case.to_string(), args.reason.to_string());
            let asked = HoldAsked { hold, reason, release: true, ..HoldAsked::default() };
            crate::serve::hold(loaded(&args.file.config)?, asked)
        }
        Hold::List(args) => list(args),
    }
}

fn asked(args: &HoldAdd) -> Result<HoldAsked> {
    let time = |name: &str, text: &Option<String>| -> Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        let time: Timestamp = text
            .parse()
            .with_context(|| format!("`{name} {text}`: wanted a time as `2026-11-20T10:00:00Z`"))?;
        Ok(Some(time.as_microsecond()))
    };
    let (from_us, to_us) = (time("--from", &args.from)?, time("--to", &args.to)?);
    if let (Some(from), Some(to)) = (from_us, to_us) {
        ensure!(from < to, "`--from` is not before `--to`: that is no time at all");
    }
    Ok(HoldAsked {
        hold: args.case.to_string(),
        release: false,
        exchanges: args.exchange.clone(),
        subjects: args.subject.clone(),
        consumer: args.consumer.as_ref().map(ToString::to_string),
        from_us,
        to_us,
        reason: args.reason.to_string(),
    })
}

fn list(args: &HoldList) -> Result<()> {
    for held in crate::serve::held(&loaded(&args.file.config)?)? {
        let origin = held.origin.as_ref().map(ToString::to_string);
        if args.format == Format::Json {
            output::line(serde_json::json!({
                "hold": held.said.hold, "scope": held.said.scope, "at": held.said.moment.at,
                "reason": held.said.reason, "actor": held.said.actor, "log": origin,
            }));
            continue;
        }
        let text =
            |name: &str, value: Option<String>| value.map_or(String::new(), |v| format!("  {name} {v}"));
        let at = Timestamp::from_microsecond(held.said.moment.at)?;
        output::line(format_args!(
            "{}  since {at}  {}{}{}  {}",
            held.said.hold,
            covered(&held.said.scope)?,
            text("reason", held.said.reason.as_ref().map(ToString::to_string)),
            text("by", held.said.actor.as_ref().map(ToString::to_string)),
            origin.as_deref().unwrap_or("in force, not recorded yet: give the command again"),
        ));
    }
    Ok(())
}

fn covered(scope: &Scope) -> Result<String> {
    let mut parts = Vec::new();
    let names = [
        ("exchange", scope.exchange.as_ref().map(ToString::to_string)),
        ("subject", scope.subject.as_ref().map(ToString::to_string)),
        ("consumer", scope.consumer.as_ref().map(ToString::to_string)),
    ];
    parts.extend(names.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))));
    for (name, time) in [("from", scope.from), ("to", scope.to)] {
        if let Some(time) = time {
            parts.push(format!("{name} {}", Timestamp::from_microsecond(time)?));
        }
    }
    Ok(if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") })
}
