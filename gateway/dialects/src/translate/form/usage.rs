//! Tokens, as answers tell them.

use schemas::record::Usage as RecordedUsage;

/// Tokens, as records count them: input with what was read from and written to a cache, output with reasoning; what is
/// not known is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input.
    pub input: Option<i64>,
    /// Of it, read from a cache.
    pub cache_read: Option<i64>,
    /// Of it, written to a cache for 5 minutes, or for a time not told.
    pub cache_write_5m: Option<i64>,
    /// Of it, written to a cache for an hour.
    pub cache_write_1h: Option<i64>,
    /// All output.
    pub output: Option<i64>,
    /// Of it, reasoning.
    pub reasoning: Option<i64>,
    /// Of the input, audio.
    pub input_audio: Option<i64>,
    /// Of the output, audio.
    pub output_audio: Option<i64>,
}

impl From<&RecordedUsage> for Usage {
    fn from(usage: &RecordedUsage) -> Self {
        Self {
            input: usage.input_tokens,
            cache_read: usage.cache_read_tokens,
            cache_write_5m: usage.cache_write_5m_tokens,
            cache_write_1h: usage.cache_write_1h_tokens,
            output: usage.output_tokens,
            reasoning: usage.reasoning_tokens,
            input_audio: usage.input_audio_tokens,
            output_audio: usage.output_audio_tokens,
        }
    }
}

impl Usage {
    /// All that was written to a cache.
    pub fn cache_write(&self) -> Option<i64> {
        match (self.cache_write_5m, self.cache_write_1h) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        }
    }
    /// Input that was neither read from nor written to a cache.
    pub fn uncached_input(&self) -> Option<i64> {
        let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_write().unwrap_or(0));
        self.input.map(|input| input.saturating_sub(cached).max(0))
    }
    /// What is known later replaces what was known before.
    pub fn merge(&mut self, later: &Self) {
        fn take(place: &mut Option<i64>, later: Option<i64>) {
            *place = later.or(*place);
        }
        take(&mut self.input, later.input);
        take(&mut self.cache_read, later.cache_read);
        take(&mut self.cache_write_5m, later.cache_write_5m);
        take(&mut self.cache_write_1h, later.cache_write_1h);
        take(&mut self.output, later.output);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.input_audio, later.input_audio);
        take(&mut self.output_audio, later.output_audio);
    }
}
