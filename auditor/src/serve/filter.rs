//! Which exchanges are looked at: the fields of the form, and the SQL that they are.

use super::asked::Fields;
use crate::decimal::Decimal;
use crate::time;

/// What became of an exchange: how it ended, else that it was refused or is open.
pub(super) const BECAME: &str = "CASE WHEN state = 'ended' THEN coalesce(\"end\", 'ended') ELSE state END";

/// What an exchange cost: its answer, and what was tried before where that has the same currency, or is all that has a cost.
pub(super) const COST: &str =
    "CASE WHEN attempts_currency = currency THEN cost + attempts_cost ELSE coalesce(cost, attempts_cost) END";

/// Fields that are compared as text: name, what it is compared with, label.
pub(super) const NAMES: [(&str, &str, &str); 6] = [
    ("consumer", "consumer", "Consumer"),
    ("team", "team", "Team"),
    ("model", "model", "Model"),
    ("provider", "provider", "Provider"),
    ("end", BECAME, "End"),
    ("usage", "usage_source", "Usage from"),
];

/// A piece of text in SQL.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An amount in SQL.
pub(super) fn amount(value: Decimal) -> String {
    format!("CAST('{value}' AS DECIMAL(38, 12))")
}

/// A time in SQL.
pub(super) fn moment(at: i64) -> String {
    format!("TIMESTAMP '{}'", time::text(at))
}

/// A time as it was typed, and as it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Typed {
    /// As it was typed.
    pub(super) text: String,
    /// Microseconds UTC.
    pub(super) at: i64,
}

/// A length of time; its end is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// Start.
    pub(super) from: Option<Typed>,
    /// End.
    pub(super) to: Option<Typed>,
}

impl Times {
    /// Takes `from` and `to`.
    ///
    /// # Errors
    /// One that is no time.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, String> {
        let mut typed = |name: &str| match fields.take(name) {
            None => Ok(None),
            Some(text) => {
                let at = time::parse(&text).map_err(|why| format!("`{name}`: {why}"))?;
                Ok::<_, String>(Some(Typed { text, at }))
            }
        };
        Ok(Self { from: typed("from")?, to: typed("to")? })
    }

    /// The conditions for a column of times.
    pub(super) fn conditions(&self, column: &str) -> Vec<String> {
        let bound = |typed: &Option<Typed>, operator: &str| {
            typed.as_ref().map(|typed| format!("{column} {operator} {}", moment(typed.at)))
        };
        bound(&self.from, ">=").into_iter().chain(bound(&self.to, "<")).collect()
    }

    /// The fields as a link has them.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let field = |name, typed: &Option<Typed>| typed.as_ref().map(|typed| (name, typed.text.clone()));
        field("from", &self.from).into_iter().chain(field("to", &self.to)).collect()
    }
}

/// Which exchanges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// When they began.
    pub(super) times: Times,
    /// By [`NAMES`]: the wanted value.
    pub(super) names: Vec<(&'static str, String)>,
    /// The status that the caller got.
    pub(super) status: Option<u16>,
    /// Whether the gateway refused them.
    pub(super) refused: Option<bool>,
    /// The least cost.
    pub(super) cost_from: Option<Decimal>,
    /// The cost that is too much.
    pub(super) cost_to: Option<Decimal>,
}

impl Filter {
    /// Takes its fields.
    ///
    /// # Errors
    /// A value that is none of its field's.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, String> {
        let times = Times::take(fields)?;
        let names = NAMES.iter().filter_map(|(name, _, _)| Some((*name, fields.take(name)?))).collect();
        let status = match fields.take("status") {
            None => None,
            Some(text) => {
                let status = text.parse().ok().filter(|status| (100..=599).contains(status));
                Some(status.ok_or_else(|| format!("`status` is `{text}`: wanted one of 100 to 599"))?)
            }
        };
        let refused = match fields.take("refused").as_deref() {
            None => None,
            Some("yes") => Some(true),
            Some("no") => Some(false),
            Some(other) => return Err(format!("`refused` is `{other}`: wanted `yes` or `no`")),
        };
        let mut cost = |name: &str| match fields.take(name) {
            None => Ok(None),
            Some(text) => match Decimal::parse(&text) {
                Some(cost) => Ok(Some(cost)),
                None => Err(format!("`{name}` is `{text}`: wanted an amount, as `0.25`")),
            },
        };
        Ok(Self { times, names, status, refused, cost_from: cost("cost_from")?, cost_to: cost("cost_to")? })
    }

    /// The wanted value of a field of [`NAMES`].
    pub(super) fn name(&self, field: &str) -> &str {
        self.names.iter().find(|(name, _)| *name == field).map_or("", |(_, value)| value)
    }

    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The conditions over `exchanges`.
    pub(super) fn conditions(&self) -> Vec<String> {
        let mut out = self.times.conditions("started_at");
        for (name, compared, _) in NAMES {
            let value = self.name(name);
            if !value.is_empty() {
                out.push(format!("{compared} = {}", quoted(value)));
            }
        }
        out.extend(self.status.map(|status| format!("status = {status}")));
        out.extend(
            self.refused.map(|refused| format!("state {} 'refused'", if refused { "=" } else { "<>" })),
        );
        out.extend(self.cost_from.map(|cost| format!("{COST} >= {}", amount(cost))));
        out.extend(self.cost_to.map(|cost| format!("{COST} < {}", amount(cost))));
        out
    }

    /// The fields as a link has them.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut out = self.times.fields();
        out.extend(self.names.iter().cloned());
        out.extend(self.status.map(|status| ("status", status.to_string())));
        out.extend(self.refused.map(|refused| ("refused", if refused { "yes" } else { "no" }.to_owned())));
        out.extend(self.cost_from.map(|cost| ("cost_from", cost.to_string())));
        out.extend(self.cost_to.map(|cost| ("cost_to", cost.to_string())));
        out
    }
}

/// `WHERE` these hold; nothing where there are none.
pub(super) fn where_all(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}
