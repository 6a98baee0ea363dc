//! Cost, computed again from usage and the price book that the record names.

use std::collections::{BTreeMap, BTreeSet};

use policies::price::PriceBook;
use schemas::Sha256Hex;
use schemas::files::ReferenceRow;
use schemas::record::Outcome;
use serde::{Deserialize, Serialize};

use crate::finding::{Code, Findings, Place};

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

    /// `Some(true)`: computed again and compared; `Some(false)`: the book cannot be read; `None`: no cost to check.
    pub(super) fn check(
        &mut self,
        at: i64,
        outcome: &Outcome,
        place: impl Fn() -> Place,
        findings: &mut Findings,
    ) -> Option<bool> {
        let cost = outcome.cost.as_ref()?;
        let texts = &self.texts;
        let book = self.parsed.entry(cost.price_book).or_insert_with(|| {
            let text = texts.get(&cost.price_book)?;
            PriceBook::parse(text.as_bytes()).ok()
        });
        let Some(book) = book else {
            self.parsed.remove(&cost.price_book);
            return Some(false);
        };
        let models: Vec<&str> = [&outcome.answered.served_model, &outcome.asked.requested_model]
            .into_iter()
            .filter_map(|model| model.as_ref().map(|model| model.as_str()))
            .collect();
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
            return Some(true);
        };
        let tier = outcome.answered.service_tier.as_ref().map(|tier| tier.as_str());
        let provider = row.provider.clone();
        match book.price(&outcome.usage, &provider, &models, at, tier) {
            Ok(again) if again == *cost => {}
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
        Some(true)
    }
}
