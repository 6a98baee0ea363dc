//! A caller's own credential, on its way to the one provider that it is for.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use schemas::Identifier;
use schemas::record;

use super::pool::Provider;
use crate::app::Pseudonyms;
use crate::identity::Identities;
use crate::keys;
use crate::respond::Reason;

/// A credential that goes to one provider, and to no other.
#[derive(Clone)]
pub(crate) struct Forwarded {
    provider: Identifier,
    name: HeaderName,
    value: HeaderValue,
}

impl std::fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarded")
            .field("provider", &self.provider)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Forwarded {
    /// The credential for `provider` that a caller sent: in the header of the provider's keys, else in `Authorization`; else,
    /// where the provider's SDKs do that, in the query.
    ///
    /// # Errors
    /// There is none, it is one for this gateway, which is for nobody else, or a signature, which holds nowhere else.
    pub(crate) fn of(
        provider: &Provider,
        headers: &HeaderMap,
        query_key: Option<&str>,
        identities: &Identities,
    ) -> Result<Self, Reason> {
        let usual = provider.key_header.clone();
        let sent = [usual.clone(), AUTHORIZATION].into_iter().find_map(|name| {
            let value = headers.get(&name).filter(|value| !value.is_empty())?.clone();
            Some((name, value))
        });
        let (name, mut value) = match (sent, query_key) {
            (Some(sent), _) => sent,
            (None, Some(key)) if !key.is_empty() => {
                let name =
                    if usual == AUTHORIZATION { HeaderName::from_static("x-goog-api-key") } else { usual };
                (name, HeaderValue::try_from(key).map_err(|_| Reason::MissingCredential)?)
            }
            _ => return Err(Reason::MissingCredential),
        };
        let text = value.to_str().map_err(|_| Reason::MissingCredential)?;
        // Whoever sends a key of the gateway this way would show it to the provider.
        let is_ours = |word: &str| word.starts_with(keys::PREFIX) || identities.is_ours(word);
        // A signature for AWS holds for the host that it was made for, which is this gateway.
        let signs = text.trim_start().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("aws4-"));
        if text.split_ascii_whitespace().any(is_ours) || text.trim().is_empty() || signs {
            return Err(Reason::MissingCredential);
        }
        value.set_sensitive(true);
        Ok(Self { provider: provider.name.clone(), name, value })
    }

    /// What the record says of it.
    pub(crate) fn record(&self, pseudonyms: &Pseudonyms) -> Option<record::Forwarded> {
        let text = self.value.to_str().ok()?;
        let secret = text.rsplit(' ').next().unwrap_or(text);
        Some(record::Forwarded {
            kind: Identifier::new(self.name.as_str()).ok()?,
            // The word before it keeps it apart from pseudonyms of people.
            fingerprint: pseudonyms.always(&format!("credential\0{secret}"))?,
        })
    }

    /// Puts it into a request to `provider`, where it is for that one.
    pub(super) fn put(&self, provider: &Identifier, headers: &mut HeaderMap) {
        if self.provider == *provider {
            headers.insert(self.name.clone(), self.value.clone());
        }
    }
}
