//! Which row of the book speaks about an exchange.

use std::collections::HashMap;

use super::{PriceBook, Row};
use crate::pattern::Pattern;

const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

/// Where the rows of each provider and tier stand.
pub(super) fn places(rows: &[Row]) -> HashMap<String, HashMap<String, Vec<usize>>> {
    let mut places: HashMap<String, HashMap<String, Vec<usize>>> = HashMap::new();
    for (place, row) in rows.iter().enumerate() {
        places.entry(row.provider.clone()).or_default().entry(row.tier.clone()).or_default().push(place);
    }
    places
}

impl PriceBook {
    /// Whether any row of the provider names the model, in whatever tier and at whatever time.
    pub(super) fn knows(&self, provider: &str, model: &str) -> bool {
        let tiers = self.places.get(provider).into_iter().flat_map(HashMap::values);
        let mut rows = tiers.flatten().filter_map(|place| self.rows.get(*place));
        rows.any(|row| closeness(&row.models, model).is_some())
    }

    /// The row for a model, at a time (microseconds UTC), in a tier, for so much input.
    ///
    /// Of the rows that fit, the pattern with the most characters of its own wins, an exact one before all; then
    /// the highest input bound below `input_tokens`; then the latest first day.
    pub fn row(
        &self,
        provider: &str,
        model: &str,
        at_us: i64,
        tier: &str,
        input_tokens: u64,
    ) -> Option<&Row> {
        let day = at_us.div_euclid(MICROSECONDS_A_DAY);
        let in_force = |row: &&Row| row.from_day <= day && row.until_day.is_none_or(|until| day < until);
        let places = self.places.get(provider).and_then(|tiers| tiers.get(tier))?;
        places
            .iter()
            .filter_map(|place| self.rows.get(*place))
            .filter(|row| row.input_above == 0 || row.input_above < input_tokens)
            .filter(in_force)
            .filter_map(|row| closeness(&row.models, model).map(|close| (close, row)))
            .max_by_key(|(close, row)| (*close, row.input_above, row.from_day))
            .map(|(_, row)| row)
    }
}

/// How closely the best pattern that fits names the model.
fn closeness(patterns: &[Pattern], model: &str) -> Option<(bool, usize)> {
    patterns
        .iter()
        .filter(|pattern| pattern.matches(model))
        .map(|pattern| (pattern.is_exact(), pattern.literals()))
        .max()
}
