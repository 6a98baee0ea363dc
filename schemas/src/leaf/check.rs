//! The rules of leaves that types alone do not keep.

use super::LeafError;
use crate::canonical::{Sink, is_leaf_text};
use crate::columns::parse_decimal;
use crate::names::is_part;
use crate::part_name::MAX_ATTEMPTS;
use crate::record::{
    Answered, Attempt, Body, Cost, Dropped, MAX_LIST, Record, RefusedLimit, Served, Translation, VERSION,
};

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
        Body::Attempt(attempt) | Body::SideCall(attempt) => attempt.retention.as_ref(),
        _ => None,
    };
    if let Some(class) = retention.filter(|class| !is_part(class.as_str())) {
        return Err(form(format!("`retention` is `{class}`, wanted `[a-z0-9][a-z0-9.-]{{0,62}}`")));
    }
    let mut lists: [(&str, usize); 8] = [("", 0); 8];
    lists[6] = ("translation.dropped.what", words(translation(&record.body).map(|it| &it.dropped)));
    match &record.body {
        Body::Intent(intent) => {
            lists[5] = ("groups", intent.caller.groups.len());
            lists[0] = ("suppression", intent.suppression.len());
            lists[1] = ("rules", intent.verdict.as_ref().map_or(0, |v| v.rules.len()));
            lists[2] = ("parts", intent.parts.len());
            lists[3] = ("facts", intent.verdict.as_ref().map_or(0, |v| v.facts.len()));
        }
        Body::Refusal(refusal) => {
            lists[5] = ("groups", refusal.caller.as_ref().map_or(0, |caller| caller.groups.len()));
            lists[0] = ("suppression", refusal.suppression.len());
            lists[1] = ("rules", refusal.verdict.as_ref().map_or(0, |v| v.rules.len()));
            lists[2] = ("parts", refusal.parts.len());
            lists[3] = ("facts", refusal.verdict.as_ref().map_or(0, |v| v.facts.len()));
            if let Some(limit) = &refusal.limit {
                lists[4] = ("limit.by", limit.by.len());
                check_limit(limit).map_err(form)?;
            }
        }
        Body::Outcome(outcome) => {
            lists[5] = ("groups", outcome.caller.groups.len());
            lists[7] = ("answer_dropped.what", words(outcome.answer_dropped.as_ref()));
            lists[0] = ("finish_reasons", outcome.answered.finish_reasons.len());
            lists[1] = ("tool_names", outcome.answered.tool_names.len());
            lists[2] = ("parts", outcome.parts.len());
            lists[3] = ("rate_limits", outcome.rate_limits.len());
            lists[4] = ("classes", outcome.cost.as_ref().map_or(0, |c| c.classes.len()));
            if let Some(cost) = &outcome.cost {
                check_cost(cost).map_err(form)?;
            }
            check_served(outcome.served.as_ref()).map_err(form)?;
        }
        Body::Attempt(attempt) | Body::SideCall(attempt) => {
            lists[0] = ("finish_reasons", attempt.answered.finish_reasons.len());
            lists[1] = ("tool_names", attempt.answered.tool_names.len());
            lists[2] = ("parts", attempt.parts.len());
            lists[4] = ("classes", attempt.cost.as_ref().map_or(0, |c| c.classes.len()));
            check_attempt(attempt).map_err(form)?;
            let is_attempt = matches!(&record.body, Body::Attempt(_));
            if is_attempt {
                check_phase(attempt).map_err(form)?;
            } else if let Some(key) = there(&money_of(attempt)) {
                // Nobody would add it up.
                return Err(form(format!("`{key}` is there, which a `side_call` does not have")));
            }
            if is_attempt && attempt.number >= MAX_ATTEMPTS as u64 {
                let (found, most) = (attempt.number, MAX_ATTEMPTS - 1);
                return Err(form(format!("`number` is {found}, at most {most} is allowed")));
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

fn translation(body: &Body) -> Option<&Translation> {
    match body {
        Body::Intent(intent) => intent.translation.as_ref(),
        Body::Outcome(outcome) => outcome.translation.as_ref(),
        Body::Refusal(refusal) => refusal.translation.as_ref(),
        Body::Attempt(attempt) | Body::SideCall(attempt) => attempt.translation.as_ref(),
        _ => None,
    }
}

fn words(dropped: Option<&Dropped>) -> usize {
    dropped.map_or(0, |dropped| dropped.what.len())
}

fn check_served(served: Option<&Served>) -> Result<(), String> {
    match served.map(|served| served.number) {
        Some(number) if number == 0 || number >= MAX_ATTEMPTS as u64 => {
            Err(format!("`served.number` is {number}, wanted 1 to {}", MAX_ATTEMPTS - 1))
        }
        _ => Ok(()),
    }
}

fn check_attempt(attempt: &Attempt) -> Result<(), String> {
    if !attempt.parts.is_empty() && attempt.retention.is_none() {
        return Err("`retention` is missing beside `parts`".into());
    }
    if attempt.cost.is_some() && attempt.usage.is_none() {
        return Err("`usage` is missing beside `cost`".into());
    }
    attempt.cost.as_ref().map_or(Ok(()), check_cost)
}

/// The first of `keys` that is there.
fn there<'a>(keys: &[(&'a str, bool)]) -> Option<&'a str> {
    keys.iter().find(|(_, is_there)| *is_there).map(|(key, _)| *key)
}

fn money_of(attempt: &Attempt) -> [(&'static str, bool); 3] {
    [
        ("usage", attempt.usage.is_some()),
        ("cost", attempt.cost.is_some()),
        ("unpriced", attempt.unpriced.is_some()),
    ]
}

/// What came back is told at the end, what is sent before: else a cost stood where nobody looks for it, or nowhere.
fn check_phase(attempt: &Attempt) -> Result<(), String> {
    let (surplus, missing) = match attempt.phase.as_str() {
        "open" => {
            let answer = [
                ("end", attempt.end.is_some()),
                ("status", attempt.status.is_some()),
                ("total_us", attempt.total_us.is_some()),
                ("answered", attempt.answered != Answered::default()),
            ];
            (there(&answer).or(there(&money_of(attempt))), None)
        }
        "end" => {
            let missing = [("end", attempt.end.is_none()), ("usage", attempt.usage.is_none())];
            let sent = [
                ("commitment", attempt.commitment.is_some()),
                ("translation", attempt.translation.is_some()),
            ];
            (there(&sent), there(&missing))
        }
        _ => (None, None),
    };
    let phase = &attempt.phase;
    match (surplus, missing) {
        (Some(key), _) => Err(format!("`{key}` is there, which phase `{phase}` does not have")),
        (_, Some(key)) => Err(format!("`{key}` is missing, which phase `{phase}` has")),
        _ => Ok(()),
    }
}

fn check_limit(limit: &RefusedLimit) -> Result<(), String> {
    for (key, amount) in [("limit", &limit.limit), ("used", &limit.used), ("wanted", &limit.wanted)] {
        if parse_decimal(amount).is_none() {
            return Err(format!("`limit.{key}` is `{amount}`, wanted a decimal"));
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
