//! The rules of leaves that types alone do not keep.

use super::LeafError;
use crate::canonical::{Sink, is_leaf_text};
use crate::columns::parse_decimal;
use crate::names::is_part;
use crate::record::{Body, Cost, MAX_LIST, Record, VERSION};

/// The rules that types alone do not keep.
pub(super) fn check(record: &Record) -> Result<(), LeafError> {
    let form = |reason: String| LeafError::Form { kind: record.body.kind().into(), reason };
    if record.v != VERSION {
        return Err(LeafError::Version { found: record.v.into() });
    }
    if record.at < 0 {
        return Err(LeafError::Envelope { key: "at", wanted: "a time in microseconds" });
    }
    let retention = match &record.body {
        Body::Intent(intent) => Some(&intent.retention),
        Body::Outcome(outcome) => Some(&outcome.retention),
        Body::Refusal(refusal) => refusal.retention.as_ref(),
        _ => None,
    };
    if let Some(class) = retention.filter(|class| !is_part(class.as_str())) {
        return Err(form(format!("`retention` is `{class}`, wanted `[a-z0-9][a-z0-9.-]{{0,62}}`")));
    }
    let mut lists: [(&str, usize); 5] = [("", 0); 5];
    match &record.body {
        Body::Intent(intent) => {
            lists[0] = ("suppression", intent.suppression.len());
            lists[1] = ("rules", intent.verdict.as_ref().map_or(0, |v| v.rules.len()));
            lists[2] = ("parts", intent.parts.len());
            lists[3] = ("facts", intent.verdict.as_ref().map_or(0, |v| v.facts.len()));
        }
        Body::Refusal(refusal) => {
            lists[0] = ("suppression", refusal.suppression.len());
            lists[1] = ("rules", refusal.verdict.as_ref().map_or(0, |v| v.rules.len()));
            lists[2] = ("parts", refusal.parts.len());
            lists[3] = ("facts", refusal.verdict.as_ref().map_or(0, |v| v.facts.len()));
        }
        Body::Outcome(outcome) => {
            lists[0] = ("finish_reasons", outcome.answered.finish_reasons.len());
            lists[1] = ("tool_names", outcome.answered.tool_names.len());
            lists[2] = ("parts", outcome.parts.len());
            lists[3] = ("rate_limits", outcome.rate_limits.len());
            lists[4] = ("classes", outcome.cost.as_ref().map_or(0, |c| c.classes.len()));
            if let Some(cost) = &outcome.cost {
                check_cost(cost).map_err(form)?;
            }
        }
        _ => {}
    }
    for (name, length) in lists {
        if length > MAX_LIST {
            return Err(form(format!("`{name}` has {length} items, at most {MAX_LIST} are allowed")));
        }
    }
    Ok(())
}

fn check_cost(cost: &Cost) -> Result<(), String> {
    let mut sum = Some(0_i128);
    for (class, amount) in &cost.classes {
        let atoms = parse_decimal(amount)
            .ok_or_else(|| format!("cost of `{class}` is `{amount}`, wanted a decimal"))?;
        sum = sum.and_then(|s| s.checked_add(atoms));
    }
    let total = parse_decimal(&cost.total)
        .ok_or_else(|| format!("cost `total` is `{}`, wanted a decimal", cost.total))?;
    if sum == Some(total) {
        Ok(())
    } else {
        Err(format!("cost `total` {} is not the sum of its classes", cost.total))
    }
}

/// Checks each key and string of a leaf against CA-8.
#[derive(Default)]
pub(super) struct TextCheck {
    key: String,
    wrong: bool,
}

impl TextCheck {
    /// The first key whose text, or whose string, a leaf may not hold.
    pub(super) fn finish(self) -> Result<(), LeafError> {
        if self.wrong { Err(LeafError::Text { key: self.key }) } else { Ok(()) }
    }
}

impl Sink for TextCheck {
    fn key(&mut self, key: &str) {
        if !self.wrong {
            self.key.clear();
            self.key.push_str(key);
            self.wrong = !is_leaf_text(key);
        }
    }
    fn string(&mut self, value: &str) {
        if !self.wrong {
            self.wrong = !is_leaf_text(value);
        }
    }
}
