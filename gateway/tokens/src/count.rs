//! Counting, bounded: of a long text the beginning, and the rest by its length.

use crate::Tokenizer;

/// The most text that the tokenizer reads of one prompt or one answer. What is beyond it counts by its bytes, at the rate of
/// what was read.
pub const MAX_READ: usize = 1 << 20;

/// How many tokens there are so far.
#[derive(Debug, Clone)]
pub struct Count {
    tokenizer: Tokenizer,
    /// Tokens of the text that was read.
    tokens: u64,
    /// Bytes of it.
    read: usize,
    /// Bytes that were not.
    beyond: u64,
    /// Tokens that are no text.
    beside: i64,
}

impl Count {
    /// Nothing, so far.
    pub fn by(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, tokens: 0, read: 0, beyond: 0, beside: 0 }
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        let room = MAX_READ - self.read;
        let end = (0..=text.len().min(room)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let (read, rest) = text.split_at_checked(end).unwrap_or(("", text));
        if !read.is_empty() {
            self.tokens += self.tokenizer.count(read);
            self.read += read.len();
        }
        self.bytes(rest.len() as u64);
    }

    /// Adds text of which only the length is known.
    pub fn bytes(&mut self, bytes: u64) {
        self.beyond = self.beyond.saturating_add(bytes);
    }

    /// Adds tokens that are no text; fewer than none take some back.
    pub fn beside(&mut self, tokens: i64) {
        self.beside = self.beside.saturating_add(tokens);
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let beyond = match (self.beyond, self.read) {
            (0, _) => 0,
            // Nothing was read that could tell a rate.
            (bytes, 0) => bytes.div_ceil(4),
            (bytes, read) => {
                let tokens = u128::from(self.tokens) * u128::from(bytes);
                u64::try_from(tokens.div_ceil(read as u128)).unwrap_or(u64::MAX)
            }
        };
        self.tokens.saturating_add(beyond).saturating_add_signed(self.beside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_bound_counts_at_the_rate_of_what_is_not() {
        let mut count = Count::by(Tokenizer::O200kBase);
        let prose = "The patient was stable. ".repeat(100_000);
        count.text(&prose);
        let all = Tokenizer::O200kBase.count(&prose);
        assert!(count.total().abs_diff(all) * 1000 < all, "{} {all}", count.total());
        let before = count.total();
        count.bytes(1 << 20);
        assert!(count.total() > before);
        count.beside(7);
        count.beside(-3);
        let mut nothing = Count::by(Tokenizer::O200kBase);
        nothing.bytes(u64::MAX);
        nothing.beside(-1);
        assert!(nothing.total() > 1 << 60);
    }
}
