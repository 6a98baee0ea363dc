//! Which of a provider's keys the gateway uses: a CSV file of the auditor's.
//!
//! ```text
//! key,provider,target
//! apikey_01Rj2N8SVvo6BePZj99NhmiT,anthropic,
//! ```

use std::collections::BTreeMap;

use super::input::{Input, Refused};

/// Keys and what of the configuration uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    labels: BTreeMap<String, String>,
    /// By provider and target.
    users: BTreeMap<(String, Option<String>), String>,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// What is no such file.
    pub fn read(input: &Input) -> Result<Self, Refused> {
        let mut users: BTreeMap<(String, Option<String>), Vec<String>> = BTreeMap::new();
        input.table([&["key"], &["provider"], &["target"]], &["target"], |row| {
            for column in [0, 1] {
                if row.text(column).is_empty() {
                    return Err(row.refuse(column, "a name"));
                }
            }
            let target = Some(row.text(2)).filter(|target| !target.is_empty()).map(str::to_owned);
            let user = (row.text(1).to_owned(), target);
            let twice =
                users.iter().any(|(other, keys)| *other != user && keys.iter().any(|key| key == row.text(0)));
            if twice {
                return Err(row.refuse(0, "each key for one provider and target"));
            }
            let keys = users.entry(user).or_default();
            if !keys.iter().any(|key| key == row.text(0)) {
                keys.push(row.text(0).to_owned());
            }
            Ok(())
        })?;
        let mut keys = Self::default();
        for (user, names) in users {
            // Evidence does not tell which of several keys of one provider served.
            let label = names.join(" + ");
            for name in names {
                keys.labels.insert(name, label.clone());
            }
            keys.users.insert(user, label);
        }
        Ok(keys)
    }

    /// How a key of an export is called; those that the gateway does not use are told apart.
    pub fn of_export(&self, key: &str) -> String {
        self.labels.get(key).cloned().unwrap_or_else(|| format!("{key} (not the gateway's)"))
    }

    /// The keys that an exchange of a provider and target went under.
    pub fn of_exchange(&self, provider: &str, target: Option<&str>) -> Option<&str> {
        let user = |target: Option<&str>| self.users.get(&(provider.to_owned(), target.map(str::to_owned)));
        user(target).or_else(|| user(None)).map(String::as_str)
    }
}
