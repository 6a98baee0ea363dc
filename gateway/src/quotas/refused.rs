//! A rule without room: what the record and the caller are told of it.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use schemas::Identifier;
use schemas::record::RefusedLimit;

use super::reservation::{Shown, show};
use super::rule::Rule;
use super::store::{Take, Used};
use super::window::Stretch;
use crate::respond;

/// Where what is missing is only reserved by others, it may soon be free.
const SOON_S: i64 = 2;

/// Who has to wait longer is told not to try again by itself.
const PATIENCE_S: i64 = 60;

/// A rule that has no room for a request.
#[derive(Debug)]
pub(crate) struct Full {
    rule: Arc<Rule>,
    used: u64,
    wanted: u64,
    until: Option<i64>,
    retry_after_s: i64,
    /// No repeat within a minute can fit.
    is_final: bool,
    shown: Vec<Shown>,
}

impl Full {
    pub(super) fn new(
        rule: Arc<Rule>,
        stretch: Option<Stretch>,
        take: &Take,
        used: Used,
        now_ms: i64,
        shown: Vec<Shown>,
    ) -> Self {
        let retry_after_s = wait(&rule, stretch, take, used, now_ms);
        // What is larger than the whole limit never fits.
        let is_final = retry_after_s > PATIENCE_S || take.amount > take.limit;
        let until = stretch.map(|stretch| stretch.until);
        Self { rule, used: used.all(), wanted: take.amount, until, retry_after_s, is_final, shown }
    }

    /// For the record.
    pub(crate) fn record(&self) -> Option<RefusedLimit> {
        let by = self.rule.typed.by.iter().filter_map(|by| Identifier::new(by.to_string()).ok());
        Some(RefusedLimit {
            rule: self.rule.typed.name.clone(),
            count: Identifier::new(self.rule.counts()).ok()?,
            by: by.collect(),
            limit: self.rule.show(self.rule.limit),
            used: self.rule.show(self.used),
            wanted: self.rule.show(self.wanted),
            currency: self.rule.typed.currency.as_deref().and_then(|code| Identifier::new(code).ok()),
            reset: self.until.map(|ms| ms.saturating_mul(1000)),
        })
    }

    /// For the caller.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        show(&self.shown.iter().collect::<Vec<_>>(), headers);
        headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after_s));
        if self.is_final {
            headers.insert(respond::SHOULD_RETRY, HeaderValue::from_static("false"));
        }
    }

    /// What the rule says to who is refused.
    pub(crate) fn message(&self) -> Option<&str> {
        self.rule.typed.message.as_deref()
    }

    pub(crate) fn rule(&self) -> &str {
        self.rule.name()
    }
}

/// Seconds until the request may fit.
fn wait(rule: &Rule, stretch: Option<Stretch>, take: &Take, used: Used, now_ms: i64) -> i64 {
    let Some(stretch) = stretch else { return 1 };
    let left = stretch.until.saturating_sub(now_ms).max(0);
    let seconds = |ms: i64| ms.saturating_add(999) / 1000;
    if used.spent.saturating_add(take.amount) <= take.limit {
        return SOON_S.min(seconds(left).max(1));
    }
    let of_this = used.spent.saturating_sub(used.before);
    let wanted = (take.amount, take.limit);
    seconds(rule.window.frees_ms(stretch, now_ms, (of_this, used.before), wanted)).max(1)
}
