//! The policy: rules about who may use what, and a verdict that says which of them spoke.
//!
//! A rule *applies* where all of its patterns fit the facts. Then, in this order:
//!
//! 1. a `deny` rule that applies denies;
//! 2. where `allow` rules apply, the request is allowed if at least one has no output bound or the request keeps
//!    it, else denied: the most generous rule that applies counts;
//! 3. where no rule applies, `default` decides.
//!
//! The order of rules in the file does not matter. With `mode: observe` a denial becomes `would_deny`.

mod evaluate;
mod output;
mod read;

use schemas::{Identifier, Sha256Hex};

use crate::document::Problem;
use crate::pattern::Patterns;

pub use output::{Output, output, with_tokens};

/// What is known about a request before it is sent. Names as the caller or the configuration spells them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The authenticated caller.
    pub consumer: Option<&'a str>,
    /// Its team.
    pub team: Option<&'a str>,
    /// Its organisation.
    pub organisation: Option<&'a str>,
    /// Who pays.
    pub cost_centre: Option<&'a str>,
    /// The AI system.
    pub system: Option<&'a str>,
    /// The purpose.
    pub purpose: Option<&'a str>,
    /// The class of the data.
    pub data_class: Option<&'a str>,
    /// The id of the gateway key.
    pub key: Option<&'a str>,
    /// The groups that the caller is in: all, or, of more than a record holds, those that decide among them
    /// ([`Policy::groups`]).
    pub groups: &'a [Identifier],
    /// The configured route.
    pub route: Option<&'a str>,
    /// The configured provider.
    pub provider: Option<&'a str>,
    /// The model that is asked for.
    pub model: Option<&'a str>,
    /// The model that is sent, where it is another one than is asked for.
    pub sent_model: Option<&'a str>,
    /// The operation, as in records. Where it writes what a request can bound ([`output`]), an output bound means something.
    pub operation: Option<&'a str>,
    /// The largest output in tokens that the request asks for, of one answer. Below zero it bounds nothing: so servers read it.
    pub max_output_tokens: Option<i64>,
    /// How many answers the request asks for; absent is one.
    pub choices: Option<i64>,
}

/// A policy that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    hash: Sha256Hex,
    mode: Mode,
    default: Effect,
    rules: Vec<Rule>,
}

/// Whether verdicts are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What is denied is refused.
    Enforce,
    /// What would be denied passes, and the record says so.
    Observe,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Allowed.
    Allow,
    /// Refused.
    Deny,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    id: Identifier,
    effect: Effect,
    when: When,
    max_output_tokens: Option<OutputBound>,
}

/// The patterns of a rule, one set a fact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct When {
    consumer: Patterns,
    team: Patterns,
    organisation: Patterns,
    cost_centre: Patterns,
    system: Patterns,
    purpose: Patterns,
    data_class: Patterns,
    key: Patterns,
    groups: Patterns,
    route: Patterns,
    providers: Patterns,
    models: Patterns,
    operations: Patterns,
}

/// The largest output of one request, over all of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OutputBound {
    tokens: i64,
    /// Whether a request that names no bound keeps this one.
    unbounded: Effect,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn parse(yaml: &[u8]) -> Result<Self, Vec<Problem>> {
        read::parse(yaml)
    }

    /// What its rules ask of a caller's groups.
    pub fn groups(&self) -> impl Iterator<Item = &Patterns> {
        self.rules.iter().map(|rule| &rule.when.groups).filter(|groups| !groups.is_empty())
    }

    /// SHA-256 of the file.
    pub fn hash(&self) -> Sha256Hex {
        self.hash
    }

    /// Whether verdicts are enforced.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The ids of all rules, in the order of the file.
    pub fn rule_ids(&self) -> impl Iterator<Item = &Identifier> {
        self.rules.iter().map(|rule| &rule.id)
    }
}
