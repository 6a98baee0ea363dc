//! Cost, computed again from usage and the price book that the record names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use policies::price::PriceBook;
use schemas::Sha256Hex;
use schemas::files::ReferenceRow;
use schemas::record::{Answered, Attempt, Cost, Outcome, Usage, UsageRole};
use serde::{Deserialize, Serialize};

use crate::finding::{Code, Findings, Place};

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

/// The price books of a log, from its reference files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Books {
    /// The books as they are stored.
    texts: BTreeMap<Sha256Hex, String>,
    #[serde(skip)]
    parsed: BTreeMap<Sha256Hex, Option<PriceBook>>,
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

    /// Whether it was computed again and compared; not, where the book cannot be read.
    pub(super) fn check(
        &mut self,
        at: i64,
        priced: &Priced<'_>,
        place: impl Fn() -> Place,
        findings: &mut Findings,
    ) -> bool {
        let Priced { cost, usage, answered, models } = priced;
        let texts = &self.texts;
        let book = self.parsed.entry(cost.price_book).or_insert_with(|| {
            let text = texts.get(&cost.price_book)?;
            PriceBook::parse(text.as_bytes()).ok()
        });
        let Some(book) = book else {
            self.parsed.remove(&cost.price_book);
            return false;
        };
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
