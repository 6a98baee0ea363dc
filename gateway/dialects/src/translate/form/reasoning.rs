//! How much a model thinks first.

/// How much the model thinks before it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// Whether, and within which bound.
    pub mode: Option<ReasoningMode>,
    /// How hard.
    pub effort: Option<Effort>,
    /// Whether its text is wanted in the answer, where the caller said so.
    pub show: Option<bool>,
}

/// Whether a model thinks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningMode {
    /// It does not.
    Off,
    /// As it sees fit.
    Adaptive,
    /// Up to so many tokens.
    Budget(i64),
}

/// How hard a model works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// As little as there is.
    Minimal,
    /// Little.
    Low,
    /// Middle.
    Medium,
    /// Much.
    High,
    /// More.
    XHigh,
    /// All.
    Max,
}

impl Effort {
    /// The word that OpenAI and Anthropic have for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }
    /// What the word means.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max]
            .into_iter()
            .find(|effort| effort.word() == word)
    }
    /// The budget that stands for it where a dialect or a model has budgets only.
    pub fn budget_tokens(self) -> i64 {
        match self {
            Self::Minimal => 1024,
            Self::Low => 2048,
            Self::Medium => 8192,
            Self::High => 16384,
            Self::XHigh => 24576,
            Self::Max => 32768,
        }
    }
    /// The effort that stands for a budget where a dialect has efforts only.
    pub fn of_budget(tokens: i64) -> Self {
        match tokens {
            ..2048 => Self::Minimal,
            2048..8192 => Self::Low,
            8192..16384 => Self::Medium,
            _ => Self::High,
        }
    }
}
