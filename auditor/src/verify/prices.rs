//! Cost, computed again from usage and the price book that the record names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use policies::price::PriceBook;
use schemas::Sha256Hex;
use schemas::files::ReferenceRow;
use schemas::record::{Answered, Attempt, Config, Cost, Outcome, Usage, UsageRole};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::finding::{Code, Finding, Findings, Place};
use crate::time::SECOND;

/// A cost that is recorded, and what it was computed from.
pub(super) struct Priced<'a> {
    cost: &'a Cost,
    usage: Cow<'a, Usage>,
    answered: &'a Answered,
    models: Vec<&'a str>,
}

impl<'a> Priced<'a> {
    /// That of an outcome; where it read an answer that another exchange incurred, what that one cost.
    pub(super) fn outcome(outcome: &'a Outcome) -> Option<Self> {
        let cost = outcome.cost.as_ref()?;
        let usage = match outcome.usage.role {
            UsageRole::Retrieved => Cow::Owned(Usage { role: UsageRole::Incurred, ..outcome.usage.clone() }),
            UsageRole::Incurred | UsageRole::None => Cow::Borrowed(&outcome.usage),
        };
        Some(Self { cost, usage, answered: &outcome.answered, models: outcome.models() })
    }

    /// That of an attempt.
    pub(super) fn attempt(attempt: &'a Attempt) -> Option<Self> {
        let (cost, usage) = (attempt.cost.as_ref()?, attempt.usage.as_ref()?);
        Some(Self {
            cost,
            usage: Cow::Borrowed(usage),
            answered: &attempt.answered,
            models: attempt.models(),
        })
    }

    /// The book that it names.
    pub(super) fn book(&self) -> Sha256Hex {
        self.cost.price_book
    }
}

/// Use that is recorded without a cost.
pub(super) struct Costless<'a> {
    intent_position: u64,
    provider: &'a str,
    usage: &'a Usage,
    answered: &'a Answered,
    models: Vec<&'a str>,
}

impl<'a> Costless<'a> {
    /// That of an outcome.
    pub(super) fn outcome(outcome: &'a Outcome) -> Option<Self> {
        let sent = match &outcome.served {
            Some(served) => &served.model,
            None => &outcome.asked.sent_model,
        };
        // Where another model was sent than was asked for, the one that was asked for prices nothing.
        let sent = sent.as_ref().or(outcome.asked.requested_model.as_ref());
        let served = outcome.answered.served_model.as_ref();
        Some(Self {
            intent_position: outcome.intent_position,
            provider: outcome.provider().filter(|_| outcome.cost.is_none())?.as_str(),
            usage: &outcome.usage,
            answered: &outcome.answered,
            models: [served, sent].into_iter().flatten().map(|model| model.as_str()).collect(),
        })
    }

    /// That of an attempt.
    pub(super) fn attempt(attempt: &'a Attempt) -> Option<Self> {
        Some(Self {
            intent_position: attempt.intent_position,
            provider: attempt.provider.as_ref().filter(|_| attempt.cost.is_none())?.as_str(),
            usage: attempt.usage.as_ref()?,
            answered: &attempt.answered,
            models: attempt.models(),
        })
    }
}

/// A configuration that took effect.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Effective {
    /// The record that says so.
    position: u64,
    at: i64,
    config: Sha256Hex,
    book: Option<Sha256Hex>,
}

/// How long before its outcome an exchange may have been admitted, beyond what its intent says, microseconds: what it costs is
/// computed by the configuration of that time.
const ADMITTED: i64 = 3600 * SECOND;

/// How long before its record a cost may have been computed, microseconds: prices change at midnight.
const COMPUTED: i64 = 60 * SECOND;

/// The price books of a log, from its reference files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Books {
    /// The books as they are stored.
    texts: BTreeMap<Sha256Hex, String>,
    #[serde(skip)]
    parsed: BTreeMap<Sha256Hex, PriceBook>,
    /// Of configurations: what each provider is called in the price book.
    #[serde(default)]
    names: BTreeMap<Sha256Hex, BTreeMap<String, String>>,
    /// The configurations of the log, in order.
    #[serde(default)]
    effective: Vec<Effective>,
    /// Books that are stored and cannot be read, once they are named.
    unread: BTreeSet<Sha256Hex>,
}

impl Books {
    /// Names a stored book by which costs could not be computed again, the first time.
    pub(super) fn unread(&mut self, book: Sha256Hex, place: Place, findings: &mut Findings) {
        if self.unread.insert(book) {
            let found = format!("{book}, which is none");
            findings.add(Code::CostNotRecomputed, place, "a price book in a form of this version", found);
        }
    }

    /// The books as they are stored.
    pub(crate) fn texts(&self) -> &BTreeMap<Sha256Hex, String> {
        &self.texts
    }

    /// Adds a book whose hash was checked.
    pub(super) fn add(&mut self, hash: Sha256Hex, row: &ReferenceRow) {
        if let Ok(text) = String::from_utf8(row.bytes.clone()) {
            self.texts.insert(hash, text);
        }
    }

    /// Adds a configuration whose hash was checked: of it, what providers are called in the price book.
    pub(super) fn configuration(&mut self, hash: Sha256Hex, row: &ReferenceRow) {
        let Ok(document) = serde_json::from_slice::<Value>(&row.bytes) else { return };
        let providers = document.pointer("/config/providers").and_then(Value::as_array);
        let name = |provider: &Value| {
            let text = |key: &str| provider.get(key).and_then(Value::as_str).map(str::to_owned);
            let own = text("name")?;
            let in_book = text("price_as").or_else(|| text("kind")).unwrap_or_else(|| own.clone());
            Some((own, in_book))
        };
        self.names.insert(hash, providers.into_iter().flatten().filter_map(name).collect());
    }

    /// A configuration takes effect.
    pub(super) fn takes_effect(&mut self, position: u64, at: i64, config: &Config) {
        let (config, book) = (config.next, config.price_book);
        self.effective.push(Effective { position, at, config, book });
    }

    fn book(&mut self, hash: Sha256Hex) -> Option<&PriceBook> {
        if !self.parsed.contains_key(&hash) {
            let book = PriceBook::parse(self.texts.get(&hash)?.as_bytes()).ok()?;
            self.parsed.insert(hash, book);
        }
        self.parsed.get(&hash)
    }

    /// Tells of use that has no cost, where the price book gives one: that of each configuration by which it may have been
    /// computed.
    pub(super) fn check_costless(
        &mut self,
        at: i64,
        costless: &Costless<'_>,
        place: impl FnOnce() -> Place,
        findings: &mut Findings,
    ) {
        let Costless { intent_position, provider, usage, answered, models } = costless;
        // The name under which the gateway looked for the model is not known then.
        let served = answered.served_model.as_ref();
        if usage.role != UsageRole::Incurred || served.is_some_and(|served| served.as_str().starts_with("p:"))
        {
            return;
        }
        let tier = answered.service_tier.as_ref().map(|tier| tier.as_str());
        let mut candidates = Vec::new();
        for effective in self.effective.iter().rev() {
            candidates.push((effective.config, effective.book));
            if effective.position < *intent_position && effective.at < at.saturating_sub(ADMITTED) {
                break;
            }
        }
        let mut cost = None;
        for (config, book) in candidates.into_iter().rev() {
            let name = self.names.get(&config).and_then(|names| names.get(*provider)).cloned();
            let (Some(name), Some(book)) = (name, book.and_then(|book| self.book(book))) else { return };
            let price = |at| book.price(usage, &name, models, at, tier).ok();
            let (Some(_), Some(now)) = (price(at.saturating_sub(COMPUTED)), price(at)) else { return };
            cost = Some(now);
        }
        if let Some(Cost { total, currency, price_row, .. }) = cost {
            let expected = format!("{total} {currency} by row {price_row}");
            // Nothing that is there is another one than it was: what the cost is can be computed from what is.
            findings.push(Finding::new(Code::CostRecomputeDiff, place(), expected, "no cost").as_note());
        }
    }

    /// Whether it was computed again and compared; not, where the book cannot be read.
    pub(super) fn check(
        &mut self,
        at: i64,
        priced: &Priced<'_>,
        place: impl Fn() -> Place,
        findings: &mut Findings,
    ) -> bool {
        let Priced { cost, usage, answered, models } = priced;
        let Some(book) = self.book(cost.price_book) else { return false };
        // The book's name of the provider is the row's; the record's is the configured one.
        let row = book.rows().iter().find(|row| row.id == cost.price_row);
        let Some(row) = row else {
            let expected = "a row of the price book".to_string();
            findings.add(
                Code::CostRecomputeDiff,
                place().of_item("price_row"),
                expected,
                cost.price_row.to_string(),
            );
            return true;
        };
        let tier = answered.service_tier.as_ref().map(|tier| tier.as_str());
        let provider = row.provider.clone();
        match book.price(usage, &provider, models, at, tier) {
            Ok(again) if again == **cost => {}
            Ok(again) => {
                let expected = format!("{} {} by row {}", again.total, again.currency, again.price_row);
                let found = format!("{} {} by row {}", cost.total, cost.currency, cost.price_row);
                findings.add(Code::CostRecomputeDiff, place(), expected, found);
            }
            Err(unpriced) => {
                let found = format!("{} {}", cost.total, cost.currency);
                findings.add(Code::CostRecomputeDiff, place(), format!("no cost: {unpriced:?}"), found);
            }
        }
        true
    }
}
