//! A verified token's claims -> what is known of the caller.

use std::collections::HashSet;

use schemas::Identifier;
use schemas::record::{MAX_LIST, Source};
use serde_json::Value;

use super::Deciding;
use super::token::{Token, TokenFault, text};
use super::who::Told;
use crate::app::Pseudonyms;
use crate::config::{Attributes, JwtIssuer};

/// The longest text of a claim that becomes a pseudonym.
const MAX_CLAIM_BYTES: usize = 4096;

/// The most groups of a token.
const MAX_GROUPS: usize = 4096;

/// What a token says of its caller. A text that a record cannot hold becomes its pseudonym (CA-8), a subject always.
///
/// # Errors
/// The consumer is not named, or the groups cannot all be told: what they decide would not be known.
pub(super) fn told(
    token: &Token<'_>,
    issuer: &JwtIssuer,
    deciding: &Deciding,
    pseudonyms: &Pseudonyms,
) -> Result<Told, TokenFault> {
    let claims = &issuer.claims;
    let raw = |fact: &str| {
        let found = token.claim(claims.get(fact)?).and_then(text)?;
        let found = found.trim();
        (!found.is_empty() && found.len() <= MAX_CLAIM_BYTES).then(|| found.to_owned())
    };
    let fact = |name: &str| raw(name).map(|raw| pseudonyms.identifier(&raw));
    let prefix = issuer.consumer_prefix.as_deref().unwrap_or_default();
    let consumer = raw("consumer").map(|raw| pseudonyms.identifier(&format!("{prefix}{raw}")));
    let consumer = consumer.ok_or(TokenFault::Consumer)?;
    let groups = match claims.get("groups") {
        Some(path) => groups(token, path, pseudonyms)?,
        None => Vec::new(),
    };
    let count = groups.len();
    let (groups, counted) = if count > MAX_LIST {
        let counted = deciding.counted(&groups).ok_or(TokenFault::Claims)?;
        (deciding.some_of(groups).ok_or(TokenFault::Claims)?, Some(counted))
    } else {
        (groups, None)
    };
    let groups_held = groups.len();
    Ok(Told {
        source: Source::Claim,
        consumer,
        attributes: Attributes {
            team: fact("team"),
            organisation: fact("organisation"),
            cost_centre: fact("cost_centre"),
            system: fact("system"),
            purpose: fact("purpose"),
            data_class: fact("data_class"),
        },
        subject: raw("subject").and_then(|raw| pseudonyms.always(&raw)),
        groups,
        group_count: (count > groups_held).then_some(count as u64),
        counted,
    })
}

/// All groups, each once.
fn groups(token: &Token<'_>, path: &str, pseudonyms: &Pseudonyms) -> Result<Vec<Identifier>, TokenFault> {
    let items: &[Value] = match token.claim(path) {
        Some(Value::Array(list)) => list,
        Some(one) => std::slice::from_ref(one),
        // Microsoft's issuer leaves out groups that are too many for a token, and says so.
        None if token.claim("_claim_names").is_some_and(|names| names.get(path).is_some()) => {
            return Err(TokenFault::Claims);
        }
        None => &[],
    };
    if items.len() > MAX_GROUPS {
        return Err(TokenFault::Claims);
    }
    let mut groups = Vec::with_capacity(items.len());
    let mut seen = HashSet::new();
    for item in items.iter().filter(|item| !item.is_null()) {
        let raw = text(item).filter(|raw| raw.len() <= MAX_CLAIM_BYTES).ok_or(TokenFault::Claims)?;
        let raw = raw.trim();
        if raw.is_empty() {
            continue;
        }
        let group = pseudonyms.identifier(raw);
        if seen.insert(group.clone()) {
            groups.push(group);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use policies::pattern::Patterns;
    use serde_json::json;

    use super::*;

    fn issuer(paths: &[(&str, &str)]) -> JwtIssuer {
        JwtIssuer {
            name: Identifier::new("i").unwrap(),
            issuer: "https://i.example".into(),
            audience: vec!["gateway".into()],
            jwks: None,
            discovery: true,
            ca: None,
            algorithms: Vec::new(),
            leeway: Duration::ZERO,
            max_stale: Duration::ZERO,
            consumer_prefix: None,
            claims: paths.iter().map(|(fact, path)| ((*fact).to_owned(), (*path).to_owned())).collect(),
            require: BTreeMap::new(),
        }
    }

    fn of_issuer(claims: &Value, issuer: &JwtIssuer, deciding: &Deciding) -> Result<Told, TokenFault> {
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let text = format!("{}.{}.AAAA", part(r#"{"alg":"RS256"}"#.into()), part(claims.to_string()));
        told(&Token::read(&text).unwrap(), issuer, deciding, &Pseudonyms::new(&[1; 32]))
    }

    fn of(claims: &Value, paths: &[(&str, &str)]) -> Result<Told, TokenFault> {
        of_issuer(claims, &issuer(paths), &Deciding::default())
    }

    #[test]
    fn facts_are_identifiers_or_pseudonyms_and_a_subject_is_always_one() {
        let claims = json!({ "sub": "bot-1", "email": "ana@example.org", "dept": { "name": "Human Resources" }, "n": 7,
            "groups": ["eng", "on call", "", null, "eng"] });
        let paths = [
            ("consumer", "sub"),
            ("team", "dept.name"),
            ("system", "n"),
            ("subject", "email"),
            ("groups", "groups"),
        ];
        let told = of(&claims, &paths).unwrap();
        assert_eq!(told.consumer.as_str(), "bot-1");
        assert_eq!(told.attributes.system.as_ref().unwrap().as_str(), "7");
        for hidden in
            [told.attributes.team.as_ref().unwrap(), told.subject.as_ref().unwrap(), &told.groups[1]]
        {
            assert!(hidden.as_str().starts_with("p:"), "{hidden}");
        }
        assert_eq!((told.groups.len(), told.groups[0].as_str(), told.group_count), (2, "eng", None));
        assert!(told.attributes.purpose.is_none());
    }

    #[test]
    fn a_token_that_names_nobody_is_nobodys() {
        let table = [
            json!({}),
            json!({ "sub": "" }),
            json!({ "sub": " " }),
            json!({ "sub": {} }),
            json!({ "sub": "x".repeat(5000) }),
        ];
        for claims in table {
            assert_eq!(of(&claims, &[("consumer", "sub")]), Err(TokenFault::Consumer), "{claims}");
        }
    }

    #[test]
    fn more_than_32_groups_are_counted() {
        let many: Vec<String> = (0..40).map(|n| format!("g{n}")).collect();
        let told =
            of(&json!({ "sub": "a", "groups": many }), &[("consumer", "sub"), ("groups", "groups")]).unwrap();
        assert_eq!((told.groups.len(), told.group_count), (32, Some(40)));
        let one = of(&json!({ "sub": "a", "groups": "solo" }), &[("consumer", "sub"), ("groups", "groups")])
            .unwrap();
        assert_eq!((one.groups.len(), one.group_count), (1, None));
    }

    #[test]
    fn of_many_groups_those_that_decide_are_held_wherever_they_stand() {
        let mut many: Vec<String> = (0..40).map(|n| format!("g{n}")).collect();
        many.push("contractors".into());
        many.push("g0".into());
        let paths = [("consumer", "sub"), ("groups", "groups")];
        let claims = json!({ "sub": "a", "groups": many });
        let mut named = Patterns::default();
        assert!(named.add("contract*") && named.add("!g35"));
        let told =
            of_issuer(&claims, &issuer(&paths), &Deciding { decide: vec![named], ..Deciding::default() })
                .unwrap();
        assert_eq!((told.groups.len(), told.group_count), (32, Some(41)));
        let held = |group: &str| told.groups.iter().any(|held| held.as_str() == group);
        assert!(held("contractors") && held("g35") && held("g0") && !held("g39"));
        // Where more decide than a record holds, what they say would be nobody's to check.
        let each = (0..40).map(|n| {
            let mut one = Patterns::default();
            assert!(one.add(&format!("g{n}")));
            one
        });
        let each = Deciding { decide: each.collect(), ..Deciding::default() };
        assert_eq!(of_issuer(&claims, &issuer(&paths), &each), Err(TokenFault::Claims));
    }

    #[test]
    fn of_many_groups_all_are_counted_by_and_too_many_are_refused() {
        let paths = [("consumer", "sub"), ("groups", "groups")];
        let of = |count: usize, patterns: &[&str]| {
            let many: Vec<String> = (0..count).map(|n| format!("g{n}")).collect();
            let mut named = Patterns::default();
            assert!(patterns.iter().all(|pattern| named.add(pattern)));
            let deciding = Deciding { count: vec![named], ..Deciding::default() };
            let told = of_issuer(&json!({ "sub": "a", "groups": many }), &issuer(&paths), &deciding);
            told.map(|told| (told.groups.len(), told.counted.map(|counted| counted.len())))
        };
        assert_eq!(of(32, &[]), Ok((32, None)), "the record has all of them");
        assert_eq!(of(256, &[]), Ok((32, Some(256))));
        assert_eq!(of(257, &[]), Err(TokenFault::Claims));
        // Only groups that a rule fits are counted by.
        assert_eq!(of(1000, &["g39?", "!g398"]), Ok((32, Some(9))));
    }

    #[test]
    fn groups_that_cannot_all_be_told_are_refused() {
        let paths = [("consumer", "sub"), ("groups", "groups")];
        let table = [
            json!({ "sub": "a", "groups": ["x".repeat(5000)] }),
            json!({ "sub": "a", "groups": [{ "name": "contractors" }] }),
            json!({ "sub": "a", "groups": { "contractors": true } }),
            json!({ "sub": "a", "groups": vec![1; 4097] }),
            json!({ "sub": "a", "_claim_names": { "groups": "src1" } }),
        ];
        for claims in table {
            assert_eq!(of(&claims, &paths), Err(TokenFault::Claims));
        }
        assert!(of(&json!({ "sub": "a" }), &paths).unwrap().groups.is_empty());
    }

    #[test]
    fn two_issuers_name_two_consumers_and_a_pseudonym_is_nobodys_to_claim() {
        let paths = [("consumer", "sub")];
        let with = |prefix: Option<&str>, sub: &str| {
            let issuer = JwtIssuer { consumer_prefix: prefix.map(str::to_owned), ..issuer(&paths) };
            of_issuer(&json!({ "sub": sub }), &issuer, &Deciding::default()).unwrap().consumer.to_string()
        };
        assert_eq!(
            (with(Some("corp:"), "bot").as_str(), with(Some(""), "bot").as_str()),
            ("corp:bot", "bot")
        );
        let theirs = format!("p:{}", "0".repeat(32));
        assert!(with(None, &theirs).starts_with("p:") && with(None, &theirs) != theirs);
        assert!(
            with(Some("corp:"), "a b").starts_with("p:") && with(Some("corp:"), "a b") != with(None, "a b")
        );
    }
}
