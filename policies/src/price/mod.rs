//! The price book: what tokens cost, by provider, model, tier, day and token class.
//!
//! Each token of an exchange is charged in exactly one class:
//!
//! | class | tokens |
//! |---|---|
//! | `cache_read` | input read from a cache |
//! | `cache_write_5m`, `cache_write_1h` | input written to a cache |
//! | `input_audio` | audio input outside of caches, where the row has a price for it |
//! | `input_image` | image input outside of caches, where the row has a price for it |
//! | `input` | the rest of the input |
//! | `output_audio` | audio output, where the row has a price for it |
//! | `output_image` | image output, where the row has a price for it |
//! | `output` | the rest of the output; reasoning is output |
//! | `search_unit`, `web_search`, `page` | what a provider charges besides tokens, per million too |
//! | `audio_second` | seconds of audio, where the row has a price for them or no token is told |
//!
//! A served tier is a name as the provider spells it, with `/` and a word behind it for each thing more that changes
//! the price: `/fast` for a fast mode, `/us` for inference kept in a region. The row of the whole name counts; where
//! there is none, the row of the name before the first `/`, each price times the row's surcharges for the words
//! (rounded half to even to 12 fraction digits). A word without a surcharge leaves the exchange without a cost.
//!
//! A price that is not in the book is unknown, never zero: where any class has tokens and no price, the exchange
//! has no cost at all. The cost of a class is rounded once, half to even, to 12 fraction digits; the total is the
//! sum of the classes.

mod charge;
mod lookup;
mod read;

pub use charge::{Bill, Item};

use std::collections::{BTreeMap, HashMap};

use schemas::{Identifier, Sha256Hex};

use crate::decimal::Decimal;
use crate::document::Problem;
use crate::pattern::Pattern;

/// A price book that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBook {
    hash: Sha256Hex,
    rows: Vec<Row>,
    /// Where the rows of a provider and a tier stand in `rows`.
    places: HashMap<String, HashMap<String, Vec<usize>>>,
}

/// One row: what the models that its patterns name cost, in one tier, from one day on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id, in records as `price_row`.
    pub id: Identifier,
    /// Its line in the file.
    pub line: u64,
    /// The provider's name in the book.
    pub provider: String,
    /// The models.
    pub models: Vec<Pattern>,
    /// `standard`, or a tier as [`tier`] names it.
    pub tier: String,
    /// The row is for exchanges with more input tokens than this.
    pub input_above: u64,
    /// First day (UTC) as days since 1970-01-01.
    pub from_day: i64,
    /// First day on which the price no longer holds.
    pub until_day: Option<i64>,
    /// ISO 4217 code.
    pub currency: Identifier,
    /// Prices per million tokens.
    pub prices: Prices,
    /// Factors of all prices, by the words behind a tier's `/`.
    pub surcharges: BTreeMap<String, Decimal>,
    /// Where the price was read.
    pub source: String,
    /// The day on which it was read there, as typed.
    pub read_on: String,
}

/// Prices per million tokens, searches, pages or seconds; absent is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prices {
    /// Input outside of caches.
    pub input: Option<Decimal>,
    /// Input read from a cache.
    pub cache_read: Option<Decimal>,
    /// Input written to a cache that lives 5 minutes, or whose life is not told.
    pub cache_write_5m: Option<Decimal>,
    /// Input written to a cache that lives an hour.
    pub cache_write_1h: Option<Decimal>,
    /// Output with reasoning; absent also where the model writes none (embeddings).
    pub output: Option<Decimal>,
    /// Audio input.
    pub input_audio: Option<Decimal>,
    /// Audio output.
    pub output_audio: Option<Decimal>,
    /// Image input.
    pub input_image: Option<Decimal>,
    /// Image output.
    pub output_image: Option<Decimal>,
    /// Searches that a reranker charges.
    pub search_unit: Option<Decimal>,
    /// Searches of the web.
    pub web_search: Option<Decimal>,
    /// Pages of documents.
    pub page: Option<Decimal>,
    /// Seconds of audio.
    pub audio_second: Option<Decimal>,
}

impl Prices {
    /// Every price times `factor`.
    fn times(&self, factor: Decimal) -> Option<Self> {
        let times = |price: Option<Decimal>| match price {
            Some(price) => price.times(factor).map(Some),
            None => Some(None),
        };
        Some(Self {
            input: times(self.input)?,
            cache_read: times(self.cache_read)?,
            cache_write_5m: times(self.cache_write_5m)?,
            cache_write_1h: times(self.cache_write_1h)?,
            output: times(self.output)?,
            input_audio: times(self.input_audio)?,
            output_audio: times(self.output_audio)?,
            input_image: times(self.input_image)?,
            output_image: times(self.output_image)?,
            // What is no token has no surcharge.
            ..*self
        })
    }
}

impl PriceBook {
    /// Reads a price book.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn parse(csv: &[u8]) -> Result<Self, Vec<Problem>> {
        read::parse(csv)
    }

    /// SHA-256 of the file.
    pub fn hash(&self) -> Sha256Hex {
        self.hash
    }

    /// The rows in the order of the file.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// The book's name of a service tier as the provider spells it: the one that served, where it is told.
///
/// `default`, `auto`, `standard` and nothing are `standard`; any other name is itself, so that a tier without rows
/// is unknown and not taken for the standard one.
pub fn tier(served: Option<&str>) -> &str {
    match served {
        None | Some("default" | "auto" | "standard" | "standard_only") => "standard",
        Some(other) => other,
    }
}
