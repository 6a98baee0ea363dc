//! What a key may be used for.

use policies::document::{Fields, Node, Place, Problem};
use policies::pattern::Patterns;
use serde::Serialize;

const FORM: &str = "a pattern of 1 to 256 characters without spaces or `\"`; `*` is any text, `?` one character, `!` in front \
                    excludes";

/// Models, providers and routes that a key may be used for; an empty list says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Allow {
    /// Models as they are asked for, an alias too; what one excludes may not be sent under another name either. A call whose
    /// model the gateway does not know fits only where every pattern excludes.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub models: Listed,
    /// Configured providers.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub providers: Listed,
    /// Configured routes.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub routes: Listed,
}

/// Patterns, with the texts that they were made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(into = "Vec<String>")]
pub struct Listed {
    texts: Vec<String>,
    patterns: Patterns,
}

impl From<Listed> for Vec<String> {
    fn from(listed: Listed) -> Self {
        listed.texts
    }
}

impl Listed {
    /// Takes a pattern; false where it is none.
    #[must_use]
    pub fn add(&mut self, text: &str) -> bool {
        // Two characters would need escapes in the keys file.
        let is_one = !text.contains(['"', '\\']) && self.patterns.add(text);
        if is_one {
            self.texts.push(text.to_owned());
        }
        is_one
    }

    /// True where nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// As typed.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

impl Allow {
    /// Whether all of this may be used; `sent` is the model that goes to the provider where it is another than was `asked`
    /// for. To be asked again for each further provider or model that an exchange goes to.
    pub fn permits(&self, route: &str, provider: &str, asked: Option<&str>, sent: Option<&str>) -> bool {
        self.routes.patterns.fit(Some(route))
            && self.providers.patterns.fit(Some(provider))
            && (self.models.is_empty() || self.models.patterns.fit(asked))
            && !sent.is_some_and(|sent| self.models.patterns.excludes(sent))
    }

    /// Whether anything may go to this provider.
    pub fn permits_provider(&self, provider: &str) -> bool {
        self.providers.patterns.fit(Some(provider))
    }

    /// True where nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The lists by their names in the keys file.
    pub(super) fn lists(&self) -> [(&'static str, &Listed); 3] {
        [("models", &self.models), ("providers", &self.providers), ("routes", &self.routes)]
    }

    /// Reads the part of an entry; `None` where a pattern is none: it must not become no bound.
    pub(super) fn read(node: &Node, path: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let mut fields = Fields::new(node, path, problems);
        let mut allow = Self::default();
        for (key, listed) in [
            ("models", &mut allow.models),
            ("providers", &mut allow.providers),
            ("routes", &mut allow.routes),
        ] {
            let typed: Vec<(String, Place)> = fields.texts(key).unwrap_or_default();
            if typed.is_empty() && fields.node(key).is_some() {
                let (place, key) = (fields.place_of(key), fields.path(key));
                fields.report(Problem::at(place, key, "at least one pattern, or no key"));
            }
            for (text, place) in typed {
                if !listed.add(&text) {
                    let key = fields.path(key);
                    fields.report(Problem::at(place, key, FORM).value(text));
                }
            }
        }
        fields.finish();
        (problems.len() == before).then_some(allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(texts: &[&str]) -> Listed {
        let mut listed = Listed::default();
        assert!(texts.iter().all(|text| listed.add(text)));
        listed
    }

    #[test]
    fn truth_table_of_what_a_key_may_be_used_for() {
        let any = Allow::default();
        let some = Allow {
            models: listed(&["gpt-4o*", "!gpt-4o-audio*"]),
            providers: listed(&["openai"]),
            routes: Listed::default(),
        };
        let not = Allow { models: listed(&["!o3*"]), ..Allow::default() };
        let table = [
            (&any, "r", "p", None, None, true),
            (&any, "r", "p", Some("fast"), Some("o3"), true),
            (&some, "r", "openai", Some("gpt-4o-mini"), None, true),
            (&some, "r", "openai", Some("gpt-4o-audio-preview"), None, false),
            (&some, "r", "openai", Some("o3"), None, false),
            (&some, "r", "openai", None, None, false),
            (&some, "r", "azure", Some("gpt-4o"), None, false),
            // A name that is listed may stand for another; one that is not listed gets nothing by what it stands for.
            (&some, "r", "openai", Some("gpt-4o-mini"), Some("vendor-mini"), true),
            (&some, "r", "openai", Some("gpt-4o-mini"), Some("gpt-4o-audio-preview"), false),
            (&some, "r", "openai", Some("fast"), Some("gpt-4o"), false),
            (&not, "r", "p", Some("o3-mini"), None, false),
            (&not, "r", "p", Some("gpt-4o"), None, true),
            (&not, "r", "p", None, None, true),
            (&not, "r", "p", Some("fast"), Some("o3-mini"), false),
            (&not, "r", "p", None, Some("o3-mini"), false),
            (&not, "r", "p", Some("o3-alias"), Some("gpt-4o"), false),
            (&not, "r", "p", Some("fast"), Some("gpt-4o"), true),
        ];
        for (allow, route, provider, asked, sent, wanted) in table {
            assert_eq!(allow.permits(route, provider, asked, sent), wanted, "{provider} {asked:?} {sent:?}");
        }
        let routes = Allow { routes: listed(&["a-*"]), ..Allow::default() };
        assert!(routes.permits("a-1", "p", None, None) && !routes.permits("b", "p", None, None));
        for text in ["", "a b", "a\"b", "a\\b", "!"] {
            assert!(!Listed::default().add(text), "{text:?}");
        }
    }
}
