//! The facts about a caller that a route can name.

use schemars::JsonSchema;
use serde::Serialize;

/// A fact about a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The end user.
    Subject,
    /// The caller's team.
    Team,
    /// The organisation that the team belongs to.
    Organisation,
    /// Who pays.
    CostCentre,
    /// The AI system.
    System,
    /// The purpose that data is processed for.
    Purpose,
    /// The class of the data that is sent.
    DataClass,
}

impl Fact {
    /// All of them, as typed in the file.
    pub const ALL: [(&'static str, Self); 7] = [
        ("subject", Self::Subject),
        ("team", Self::Team),
        ("organisation", Self::Organisation),
        ("cost_centre", Self::CostCentre),
        ("system", Self::System),
        ("purpose", Self::Purpose),
        ("data_class", Self::DataClass),
    ];

    /// As typed in the file.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, fact)| *fact == self).map_or("", |(name, _)| name)
    }
}
