//! Who calls without a gateway key: by a token that an issuer signed, or by a certificate that the TLS layer verified.
//!
//! Nothing is asked of anyone while a request waits, but for a bounded time where an issuer's keys are not here yet, or a
//! token names a key that is new. A token stands in no record, log or error.

mod certificate;
mod claims;
mod fetch;
mod issuer;
mod keyset;
mod token;
mod who;

use std::collections::BTreeSet;
use std::sync::Arc;

use policies::pattern::Patterns;
use policies::policy::Policy;
use rustls_pki_types::CertificateDer;
use schemas::digest::Hasher;
use schemas::record::MAX_LIST;
use schemas::{Identifier, Sha256Hex};

use crate::config::{Certificates, CountedBy, JwtIssuer, Listen, ListenerCertificates, Loaded, QuotaRule};
use crate::dispatch::pool::PoolError;
use crate::quotas::MAX_COUNTED_GROUPS;
use crate::respond::Reason;
use crate::telemetry::Telemetry;

pub(crate) use certificate::Presented;
pub(crate) use fetch::{Document, Fetch};
pub(crate) use issuer::Issuer;
pub(crate) use keyset::Keyset;
pub(crate) use token::{TokenFault, is_token};
pub(crate) use who::{Told, Who};

use token::Token;

/// Issuers and certificates of a configuration, ready for the hot path.
pub(crate) struct Identities {
    issuers: Vec<Arc<Issuer>>,
    certificates: Option<certificate::Rules>,
    /// The same by listening address, for those that have rules of their own.
    of_listeners: Vec<Option<certificate::Rules>>,
    /// The roots of callers' certificates, by listening address.
    roots: Vec<Option<Sha256Hex>>,
    deciding: Deciding,
}

/// What is asked of callers' groups, by the policy and by quotas.
#[derive(Default)]
pub(crate) struct Deciding {
    /// What a record of a caller with many groups must hold.
    decide: Vec<Patterns>,
    /// What counters are kept by.
    count: Vec<Patterns>,
}

impl Deciding {
    fn of(loaded: &Loaded) -> Self {
        let of_policy = loaded.policy.iter().flat_map(Policy::groups).cloned();
        let patterns = |rule: &QuotaRule| {
            let mut patterns = Patterns::default();
            for text in &rule.matches.groups {
                // What is no pattern was refused when the configuration was read.
                let _ = patterns.add(text);
            }
            patterns
        };
        let rules = || loaded.config.quotas.rules.iter();
        let of_quotas = rules().map(patterns).filter(|patterns| !patterns.is_empty());
        let count = rules().filter(|rule| rule.by.contains(&CountedBy::Group)).map(patterns);
        Self { decide: of_policy.chain(of_quotas).collect(), count: count.collect() }
    }

    /// The groups that counters are kept by. `None` where they are more than a request may be counted by.
    pub(crate) fn counted(&self, groups: &[Identifier]) -> Option<Arc<[Identifier]>> {
        let fits = |group: &&Identifier| self.count.iter().any(|patterns| patterns.fit(Some(group.as_str())));
        let counted: Arc<[Identifier]> = groups.iter().filter(fits).cloned().collect();
        (counted.len() <= MAX_COUNTED_GROUPS).then_some(counted)
    }

    /// Of more groups than a record holds those that it holds: all that decide, and the first of the others. `None` where
    /// more decide than it holds.
    pub(crate) fn some_of(&self, groups: Vec<Identifier>) -> Option<Vec<Identifier>> {
        let names: Vec<&str> = groups.iter().map(Identifier::as_str).collect();
        let mut held: BTreeSet<usize> =
            self.decide.iter().flat_map(|patterns| patterns.deciding(&names)).collect();
        if held.len() > MAX_LIST {
            return None;
        }
        for at in 0..groups.len() {
            if held.len() == MAX_LIST {
                break;
            }
            held.insert(at);
        }
        Some(
            groups
                .into_iter()
                .enumerate()
                .filter(|(at, _)| held.contains(at))
                .map(|(_, group)| group)
                .collect(),
        )
    }
}

impl Identities {
    /// Of a configuration; issuers of `before` go on with the keys that they have, where nothing of theirs changed.
    ///
    /// # Errors
    /// TLS to an issuer that cannot be set up.
    pub(crate) fn new(
        loaded: &Loaded,
        before: Option<&Self>,
        telemetry: &Telemetry,
    ) -> Result<Self, (schemas::Identifier, PoolError)> {
        let identity = &loaded.config.identity;
        let mut issuers = Vec::with_capacity(identity.jwt.len());
        for (typed, files) in identity.jwt.iter().zip(&loaded.issuers) {
            let old = before.iter().flat_map(|before| &before.issuers).find(|old| old.is(typed, files));
            issuers.push(match old {
                Some(old) => Arc::clone(old),
                None => {
                    let known = before.iter().flat_map(|before| &before.issuers);
                    let known = known.map(Arc::as_ref).find(|old| old.has_keys_of(typed, files));
                    let made = Issuer::new(typed, files, known, telemetry);
                    Arc::new(made.map_err(|error| (typed.name.clone(), error))?)
                }
            });
        }
        let roots = loaded.tls.iter().map(|files| files.as_ref()?.client_ca.as_deref().map(set_of));
        let certificates = identity.certificates.as_ref();
        let of_listener = |listen: &Listen| {
            let own = certificates?.listeners.iter().find(|own| own.address == listen.address);
            own.map(ListenerCertificates::rules)
        };
        Ok(Self {
            issuers,
            certificates: certificates.map(Certificates::rules),
            of_listeners: loaded.config.listen.iter().map(of_listener).collect(),
            roots: roots.collect(),
            deciding: Deciding::of(loaded),
        })
    }

    /// The roots that callers' certificates at the `index`th listening address are verified with.
    pub(crate) fn roots(&self, index: usize) -> Option<Sha256Hex> {
        self.roots.get(index).copied().flatten()
    }

    /// Begins to keep the issuers' keys fresh; those that do already go on. Must be called inside the runtime.
    pub(crate) fn begin(&self) {
        self.issuers.iter().for_each(Issuer::begin);
    }

    /// Whether tokens are known at all.
    pub(crate) fn takes_tokens(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// Who a token speaks of.
    ///
    /// # Errors
    /// What is wrong with it, by name.
    pub(crate) async fn token(
        &self,
        text: &str,
        now_s: i64,
        pseudonyms: &crate::app::Pseudonyms,
    ) -> Result<Told, Reason> {
        let told = self.told(text, now_s, pseudonyms).await;
        told.map_err(Reason::Token)
    }

    async fn told(
        &self,
        text: &str,
        now_s: i64,
        pseudonyms: &crate::app::Pseudonyms,
    ) -> Result<Told, TokenFault> {
        let token = Token::read(text)?;
        let issuer = self.issuer_of(&token)?;
        let keys = issuer.keys(&token).await?;
        let typed = issuer.typed();
        keys.verify(&token, &typed.algorithms)?;
        token.in_time(now_s, i64::try_from(typed.leeway.as_secs()).unwrap_or(i64::MAX))?;
        token.has(&typed.require)?;
        claims::told(&token, typed, &self.deciding, pseudonyms)
    }

    /// The issuer whose word a token claims to be, for one of its audiences: unproven.
    fn issuer_of(&self, token: &Token) -> Result<&Arc<Issuer>, TokenFault> {
        let mut of_it = self.issuers.iter().filter(|issuer| token.is_from(&issuer.typed().issuer)).peekable();
        if of_it.peek().is_none() {
            return Err(TokenFault::Issuer);
        }
        of_it.find(|issuer| token.is_for(&issuer.typed().audience)).ok_or(TokenFault::Audience)
    }

    /// Whether a text claims to be a token for this gateway, true or not: such a one is for nobody else.
    pub(crate) fn is_ours(&self, text: &str) -> bool {
        is_token(text) && Token::read(text).is_ok_and(|token| self.issuer_of(&token).is_ok())
    }

    /// Who a certificate speaks of; `None` where certificates name nobody, or this one does not, and where it counts no
    /// longer: its time is over, or its address takes those of other roots since.
    pub(crate) fn certificate(
        &self,
        presented: &Presented,
        now_s: i64,
        pseudonyms: &crate::app::Pseudonyms,
    ) -> Option<Told> {
        if !presented.counts(now_s, |index| self.roots(index)) {
            return None;
        }
        let own = self.of_listeners.get(presented.listener()).and_then(Option::as_ref);
        own.or(self.certificates.as_ref())?.told(presented, pseudonyms)
    }
}

/// A set of roots, whatever their order.
fn set_of(roots: &[CertificateDer<'static>]) -> Sha256Hex {
    let all: BTreeSet<[u8; 32]> = roots.iter().map(|root| Sha256Hex::of(root).0).collect();
    let mut hasher = Hasher::default();
    all.iter().for_each(|root| hasher.update(root));
    hasher.finish()
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.issuers.iter().map(|issuer| issuer.typed().name.as_str()).collect();
        f.debug_struct("Identities").field("issuers", &names).finish_non_exhaustive()
    }
}

impl JwtIssuer {
    /// Where its discovery document is (OpenID Connect Discovery 1.0, 4).
    fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'))
    }
}
