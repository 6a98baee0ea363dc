//! The ids of a log's newest exchanges, each with the batch of its first record: to find one that is used twice, and
//! the content that a later part is stored as edits of.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::ExchangeId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How many exchanges are remembered.
pub const REMEMBERED_IDS: usize = 1 << 20;

/// Bytes of one entry as it is stored: the id's 128 bits and the batch.
const STORED: usize = 24;

/// The newest exchanges of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    batches: HashMap<u128, u64>,
    in_order: VecDeque<u128>,
}

/// The id's 128 bits.
pub(super) fn number_of(exchange: &ExchangeId) -> u128 {
    let digits = exchange.as_str().bytes().filter(|b| *b != b'-');
    digits.fold(0, |sum, b| (sum << 4) | u128::from((b as char).to_digit(16).unwrap_or(0)))
}

/// The id of those 128 bits, as text.
pub(super) fn text_of(number: u128) -> String {
    let digits = format!("{number:032x}");
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

impl Ids {
    /// Remembers an exchange whose first record is in `batch`. False where its id is an earlier exchange's.
    pub(super) fn insert(&mut self, exchange: &ExchangeId, batch: u64) -> bool {
        self.put(number_of(exchange), batch)
    }

    fn put(&mut self, number: u128, batch: u64) -> bool {
        if self.batches.contains_key(&number) {
            return false;
        }
        self.batches.insert(number, batch);
        self.in_order.push_back(number);
        if self.in_order.len() > REMEMBERED_IDS
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.batches.remove(&oldest);
        }
        true
    }

    /// The batch of an exchange's first record, where it is remembered.
    pub(super) fn batch_of(&self, exchange: &ExchangeId) -> Option<u64> {
        self.batches.get(&number_of(exchange)).copied()
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.in_order.len() * STORED);
        for number in &self.in_order {
            bytes.extend_from_slice(&number.to_be_bytes());
            let batch = self.batches.get(number).copied().unwrap_or_default();
            bytes.extend_from_slice(&batch.to_be_bytes());
        }
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
        let (entries, rest) = bytes.as_chunks::<STORED>();
        if !rest.is_empty() {
            return Err(de::Error::custom("ids that are cut"));
        }
        let mut ids = Self::default();
        for entry in entries {
            let (number, batch) = entry.split_at(16);
            let number = number.iter().fold(0_u128, |sum, b| (sum << 8) | u128::from(*b));
            let batch = batch.iter().fold(0_u64, |sum, b| (sum << 8) | u64::from(*b));
            ids.put(number, batch);
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::exchange_id;

    #[test]
    fn ids_are_read_back_in_their_order() {
        let mut ids = Ids::default();
        assert!((0..100).all(|n| ids.insert(&exchange_id(n), n / 7)));
        let text = serde_json::to_string(&ids).unwrap();
        let mut read: Ids = serde_json::from_str(&text).unwrap();
        assert_eq!(read, ids);
        assert_eq!(read.batch_of(&exchange_id(50)), Some(7));
        assert!(!read.insert(&exchange_id(99), 20));
        assert!(serde_json::from_str::<Ids>("\"AAAA\"").is_err());
    }

    #[test]
    fn an_id_is_its_own_text_again() {
        let id = exchange_id(0xabc);
        assert_eq!(text_of(number_of(&id)), id.as_str());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut ids = Ids::default();
        for n in 0..=REMEMBERED_IDS as u128 {
            assert!(ids.put(n, 0));
        }
        assert_eq!(ids.in_order.len(), REMEMBERED_IDS);
        assert!(ids.put(0, 0), "the oldest is forgotten");
    }
}
