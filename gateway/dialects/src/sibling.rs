//! OpenAI's API and the same as Azure serves it: the same bytes behind other paths, so that a target of one stands in for
//! one of the other without a translation.

use crate::operation::{Dialect, after_deployment};
use crate::request::percent_decoded;

/// Where a request goes at the other of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The path there.
    pub path: String,
    /// The query there.
    pub query: Option<String>,
    /// The model that the path named and the new one does not: it belongs into the body.
    pub model: Option<String>,
}

/// Whether both are OpenAI's API, at different places.
pub fn are_siblings(one: Dialect, other: Dialect) -> bool {
    use Dialect::{AzureOpenAi, OpenAi};
    matches!((one, other), (OpenAi, AzureOpenAi) | (AzureOpenAi, OpenAi))
}

/// Where `path` of a caller of one dialect leads at its sibling `to`; `None` for another dialect than these two.
pub fn moved(to: Dialect, path: &str, query: Option<&str>) -> Option<Moved> {
    match to {
        Dialect::AzureOpenAi => {
            let query = query.map(str::to_owned);
            Some(Moved { path: format!("/openai/v1{}", behind_version(path)), query, model: None })
        }
        Dialect::OpenAi => {
            let (rest, model) = match after_deployment(path) {
                Some((deployment, rest)) => (format!("/{rest}"), Some(percent_decoded(deployment))),
                None => {
                    let rest = path.strip_prefix("/openai").filter(|rest| rest.starts_with('/'));
                    (behind_version(rest.unwrap_or(path)).to_owned(), None)
                }
            };
            Some(Moved { path: format!("/v1{rest}"), query: without_version(query), model })
        }
        _ => None,
    }
}

/// `path` without the version that it begins with.
fn behind_version(path: &str) -> &str {
    path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// Azure's version of the API, which OpenAI's does not know.
fn without_version(query: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = query?.split('&').filter(|pair| !pair.starts_with("api-version=")).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_same_thing_at_the_other() {
        use Dialect::{AzureOpenAi, OpenAi};
        for (to, path, wanted, model) in [
            (AzureOpenAi, "/v1/chat/completions", "/openai/v1/chat/completions", None),
            (AzureOpenAi, "/chat/completions?x=1", "/openai/v1/chat/completions?x=1", None),
            (AzureOpenAi, "/v1/responses/resp_1", "/openai/v1/responses/resp_1", None),
            (AzureOpenAi, "/v10/models", "/openai/v1/v10/models", None),
            (OpenAi, "/openai/v1/chat/completions", "/v1/chat/completions", None),
            (OpenAi, "/openai/responses?api-version=2025-04-01-preview", "/v1/responses", None),
            (
                OpenAi,
                "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21&a=b",
                "/v1/chat/completions?a=b",
                Some("my gpt"),
            ),
            (OpenAi, "/v1/embeddings?", "/v1/embeddings?", None),
        ] {
            let (path, query) =
                path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let moved = moved(to, path, query).unwrap();
            let found = moved.query.map_or(moved.path.clone(), |query| format!("{}?{query}", moved.path));
            assert_eq!((found.as_str(), moved.model.as_deref()), (wanted, model));
        }
        assert_eq!(moved(Dialect::Anthropic, "/v1/messages", None), None);
    }

    #[test]
    fn only_these_two_are_siblings() {
        for one in Dialect::ALL {
            for other in Dialect::ALL {
                let both = [one, other].iter().all(|it| matches!(it, Dialect::OpenAi | Dialect::AzureOpenAi));
                assert_eq!(are_siblings(one, other), both && one != other);
            }
        }
    }
}
