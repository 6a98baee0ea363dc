//! Names that callers use for models -> the models that are sent.

use std::collections::BTreeMap;

/// Aliases, the closest first.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    exact: BTreeMap<String, String>,
    /// What stands before the `*`, the longest first, with the model and whether the rest is put behind it.
    prefixes: Vec<(String, String, bool)>,
}

impl Aliases {
    /// Of the configuration.
    pub(crate) fn new(typed: &BTreeMap<String, String>) -> Self {
        let mut aliases = Self::default();
        for (alias, model) in typed {
            match alias.strip_suffix('*') {
                None => {
                    aliases.exact.insert(alias.clone(), model.clone());
                }
                Some(prefix) => {
                    let rest = model.strip_suffix('*');
                    let model = rest.unwrap_or(model).to_owned();
                    aliases.prefixes.push((prefix.to_owned(), model, rest.is_some()));
                }
            }
        }
        aliases.prefixes.sort_by_key(|(prefix, ..)| std::cmp::Reverse(prefix.len()));
        aliases
    }

    /// The model that `name` stands for; `None` where it is no alias.
    pub(crate) fn model(&self, name: &str) -> Option<String> {
        if let Some(model) = self.exact.get(name) {
            return Some(model.clone());
        }
        self.prefixes.iter().find_map(|(prefix, model, with_rest)| {
            let rest = name.strip_prefix(prefix.as_str())?;
            Some(if *with_rest { format!("{model}{rest}") } else { model.clone() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_alias_counts() {
        let typed = [
            ("fast", "gpt-4.1-mini"),
            ("gpt-*", "gpt-5"),
            ("gpt-4*", "gpt-4.1"),
            ("openai/*", "*"),
            ("v/*", "vendor-*"),
        ];
        let typed = typed.map(|(alias, model)| (alias.to_owned(), model.to_owned())).into_iter().collect();
        let aliases = Aliases::new(&typed);
        let cases = [
            ("fast", Some("gpt-4.1-mini")),
            ("faster", None),
            ("gpt-4o", Some("gpt-4.1")),
            ("gpt-3.5", Some("gpt-5")),
            ("openai/o3", Some("o3")),
            ("v/a*b", Some("vendor-a*b")),
            ("", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(aliases.model(name).as_deref(), wanted, "{name}");
        }
    }
}
