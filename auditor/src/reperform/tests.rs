use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::physical_plan::{ExecutionPlan, collect};
use policies::policy::Policy;
use schemas::Sha256Hex;
use schemas::record::{
    Attempt, AttemptNumber, Attributed, Body, Caller, Cost, Decision, Intent, Outcome, Record, Refusal,
    Source, Usage, UsageRole, UsageSource,
};

use super::compare::{Policies, compare};
use super::exchange::{COMES_IN, Exchange, InForce, Took, each, question, read};
use super::result::{Change, Found, LISTED, Reperformed};
use super::what_if::what_if;
use crate::fixture::{START, Writer, exchange_id, id, proven};
use crate::report::Verdict as Proven;
use crate::source::MemorySource;
use crate::time::SECOND;

const RULES: &str = "mode: enforce\ndefault: deny\nrules:\n- {id: quality, effect: allow, when: {team: quality}, \
                     operations: chat.completions, models: 'gpt-4o*'}\n";
const ORIGIN: &str = "acme/gw1/20260921t133320z-00000001";

fn policy(yaml: &str) -> Policy {
    Policy::parse(yaml.as_bytes()).unwrap()
}

fn config() -> Sha256Hex {
    Sha256Hex::of(b"config")
}

/// What was asked, judged by the rules, as an intent or as the refusal that follows.
fn judged(team: &str) -> Exchange {
    let caller =
        Caller { team: Some(Attributed { value: id(team), source: Source::Key }), ..Writer::caller() };
    let mut first =
        leaf(Body::Intent(Intent { caller: caller.clone(), ..Writer::intent_of(exchange_id(1)) }));
    let verdict = policy(RULES).evaluate(&first.facts().unwrap());
    if verdict.decision == Decision::Deny {
        first = leaf(Body::Refusal(Refusal {
            exchange: Some(exchange_id(1)),
            reason: id("policy_denied"),
            status: 403,
            caller: Some(caller),
            asked: Some(Writer::asked()),
            ..Writer::refusal(None)
        }));
    }
    Exchange { verdict: Some(verdict), ..first }
}

fn leaf(body: Body) -> Exchange {
    let record = Record { v: 1, at: 1_790_000_000_000_000, config: config(), body };
    read((ORIGIN, 7), &schemas::leaf::encode(&record).unwrap()).unwrap().unwrap()
}

fn evidence() -> (InForce, BTreeMap<Sha256Hex, String>) {
    let hash = policy(RULES).hash();
    (took(&[(config(), Some(hash))]), BTreeMap::from([(hash, RULES.to_owned())]))
}

/// These configurations took effect, one a second before the exchange.
fn took(configs: &[(Sha256Hex, Option<Sha256Hex>)]) -> InForce {
    let at = |n: i64| 1_789_999_990_000_000 + n * 1_000_000;
    let took = configs.iter().zip(0..).map(|((config, policy), n)| Took {
        position: n + 1,
        at: at(n.cast_signed()),
        config: *config,
        policy: *policy,
    });
    InForce(BTreeMap::from([(ORIGIN.to_owned(), took.collect())]))
}

fn found(exchange: &Exchange) -> Found {
    let (in_force, texts) = evidence();
    compare(exchange, &in_force, &mut Policies::new(&texts))
}

fn change(found: &Found) -> Change {
    match found {
        Found::Different(_, difference) => difference.change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_verdict_that_the_policy_gives_again_is_the_same() {
    let same = Found::Same(policy(RULES).hash());
    assert_eq!((found(&judged("quality")), found(&judged("sales"))), (same.clone(), same));
}

#[test]
fn every_change_of_a_verdict_or_of_what_followed_it_is_a_difference() {
    type Forge = fn(&mut Exchange);
    let cases: [(&str, Forge, Change); 8] = [
        (
            "quality",
            |it| it.verdict.as_mut().unwrap().decision = Decision::WouldDeny,
            Change::DecisionDiffers,
        ),
        ("sales", |it| it.verdict.as_mut().unwrap().decision = Decision::Allow, Change::DecisionDiffers),
        ("quality", |it| it.verdict.as_mut().unwrap().rules.clear(), Change::RuleDiffers),
        ("quality", |it| it.verdict.as_mut().unwrap().facts.clear(), Change::RuleDiffers),
        (
            "quality",
            |it| it.verdict.as_mut().unwrap().policy = Sha256Hex::of(b"other"),
            Change::PolicyDiffers,
        ),
        ("sales", |it| it.refused = None, Change::SentThoughDenied),
        ("quality", |it| it.refused = Some("policy_denied".into()), Change::RefusedThoughAllowed),
        ("quality", |it| it.verdict = None, Change::NoVerdict),
    ];
    for (n, (team, forge, wanted)) in cases.into_iter().enumerate() {
        let mut exchange = judged(team);
        forge(&mut exchange);
        assert_eq!(change(&found(&exchange)), wanted, "case {n}");
    }
    // The facts are the record's: other facts under the same verdict do not fit either.
    let mut exchange = judged("quality");
    exchange.caller.team = None;
    assert_eq!(change(&found(&exchange)), Change::DecisionDiffers);
    // A denial without any verdict.
    let mut exchange = judged("sales");
    exchange.verdict = None;
    assert_eq!(change(&found(&exchange)), Change::RefusedThoughAllowed);
}

/// An attempt of `of` at a provider with a model, judged by the rules.
fn further(of: &Exchange, provider: &str, model: &str) -> Exchange {
    let attempt = Attempt {
        intent_position: of.position,
        provider: Some(id(provider)),
        model: Some(id(model)),
        phase: id("open"),
        ..Attempt::new(exchange_id(1), AttemptNumber::new(1).unwrap(), id("second"), id("fallback"))
    };
    let record = Record { v: 1, at: of.at + 5, config: config(), body: Body::Attempt(attempt) };
    let leaf = schemas::leaf::encode(&record).unwrap();
    let mut further = of.further(9, &leaf).unwrap().unwrap();
    further.verdict = Some(policy(RULES).evaluate(&further.facts().unwrap()));
    further
}

#[test]
fn the_verdict_on_a_further_target_is_given_again_for_its_provider_and_its_model() {
    let first = judged("quality");
    let fine = further(&first, "other", "gpt-4o-mini");
    assert_eq!(found(&fine), Found::Same(policy(RULES).hash()));
    let asked = fine.asked.as_ref().unwrap();
    assert_eq!(
        (asked.provider.as_ref(), asked.sent_model.as_ref()),
        (Some(&id("other")), Some(&id("gpt-4o-mini")))
    );
    // The model that was asked for is no other one.
    assert_eq!(further(&first, "other", "gpt-4o").asked.unwrap().sent_model, None);
    // It went to a target that the policy refuses.
    let denied = further(&first, "other", "claude-opus");
    match found(&denied) {
        Found::Different(_, difference) => {
            assert_eq!(difference.change, Change::SentThoughDenied);
            assert_eq!((difference.attempt, difference.position, difference.at), (1, 9, first.at + 5));
        }
        other => panic!("{other:?}"),
    }
    // Nor does a verdict on another model do.
    let mut forged = denied.clone();
    forged.verdict.clone_from(&fine.verdict);
    assert_eq!(change(&found(&forged)), Change::DecisionDiffers);
    let unjudged = Exchange { verdict: None, ..fine.clone() };
    assert_eq!(change(&found(&unjudged)), Change::NoVerdict);
    let no_other =
        policy("mode: enforce\ndefault: allow\nrules:\n- {id: no-other, effect: deny, providers: other}\n");
    assert_eq!(what_if(&first, &no_other), Found::Same(no_other.hash()));
    assert_eq!(change(&what_if(&fine, &no_other)), Change::WouldBeDenied);
}

#[test]
fn a_verdict_that_did_not_weigh_the_output_bound_in_its_dialect_differs() {
    let rules =
        "mode: enforce\ndefault: deny\nrules:\n- {id: short, effect: allow, max_output_tokens: 1000}\n";
    let own = policy(rules);
    let in_force = took(&[(config(), Some(own.hash()))]);
    let texts = BTreeMap::from([(own.hash(), rules.to_owned())]);
    for (output, wanted) in [(Some(10), Change::RuleDiffers), (None, Change::DecisionDiffers)] {
        let mut exchange = judged("quality");
        let asked = exchange.asked.as_mut().unwrap();
        (asked.operation, asked.max_output_tokens) = (Some(id("models.generate_content")), output);
        let mut verdict = own.evaluate(&exchange.facts().unwrap());
        let is_refused = verdict.decision == Decision::Deny;
        exchange.refused = is_refused.then(|| "policy_denied".to_owned());
        exchange.verdict = Some(verdict.clone());
        let again = |exchange: &Exchange| compare(exchange, &in_force, &mut Policies::new(&texts));
        assert_eq!((again(&exchange), is_refused), (Found::Same(own.hash()), output.is_none()));
        // As an earlier gateway had it.
        verdict.decision = Decision::Allow;
        verdict.facts.retain(|name, _| name == "decided_by");
        (exchange.verdict, exchange.refused) = (Some(verdict), None);
        assert_eq!(change(&again(&exchange)), wanted);
    }
}

#[test]
fn of_a_caller_with_more_groups_than_a_record_holds_only_the_policy_that_chose_them_is_judged() {
    let by_groups =
        "mode: enforce\ndefault: allow\nrules:\n- {id: out, effect: deny, when: {groups: contractors}}\n";
    let own = policy(by_groups);
    let mut exchange = judged("quality");
    exchange.caller.groups = (0..32).map(|n| id(&format!("g{n}"))).collect();
    exchange.caller.group_count = Some(41);
    exchange.verdict = Some(own.evaluate(&exchange.facts().unwrap()));
    let in_force = took(&[(config(), Some(own.hash()))]);
    let texts = BTreeMap::from([(own.hash(), by_groups.to_owned())]);
    let again = compare(&exchange, &in_force, &mut Policies::new(&texts));
    assert_eq!(again, Found::Same(own.hash()), "those that decide were held");
    assert_eq!(what_if(&exchange, &own), Found::Same(own.hash()));
    let other =
        policy("mode: enforce\ndefault: allow\nrules:\n- {id: out, effect: deny, when: {groups: interns}}\n");
    match what_if(&exchange, &other) {
        Found::NotJudged(why) => assert!(why.contains("32 of the caller's 41 groups"), "{why}"),
        found => panic!("who is in the others is not known: {found:?}"),
    }
    let without = policy("mode: enforce\ndefault: allow\n");
    assert_eq!(what_if(&exchange, &without), Found::Same(without.hash()));
    exchange.caller.group_count = None;
    assert_eq!(what_if(&exchange, &other), Found::Same(other.hash()));
}

#[test]
fn what_the_record_or_the_evidence_does_not_hold_is_not_judged() {
    let (in_force, texts) = evidence();
    let why = |exchange: &Exchange, in_force: &InForce, texts: &BTreeMap<_, _>| match compare(
        exchange,
        in_force,
        &mut Policies::new(texts),
    ) {
        Found::NotJudged(why) => why,
        other => panic!("{other:?}"),
    };
    let exchange = judged("quality");
    assert!(why(&exchange, &in_force, &BTreeMap::new()).contains("not in the evidence"));
    assert!(why(&exchange, &InForce::default(), &texts).contains("no proven record says"));
    let unread = texts.keys().map(|hash| (*hash, "mode: some_day".to_owned())).collect();
    assert!(why(&exchange, &in_force, &unread).contains("does not read"));
    let unknown = Exchange { unknown_key: Some("asked.dose".into()), ..exchange.clone() };
    assert!(why(&unknown, &in_force, &texts).contains("`asked.dose`"));
    let mut vague = exchange.clone();
    vague.asked.as_mut().unwrap().operation = None;
    assert!(why(&vague, &in_force, &texts).contains("operation"));
    assert!(matches!(what_if(&vague, &policy(RULES)), Found::NotJudged(_)));
    // Nobody was to judge these.
    let none = took(&[(config(), None)]);
    let plain = Exchange { verdict: None, ..exchange };
    assert_eq!(compare(&plain, &none, &mut Policies::new(&texts)), Found::WithoutPolicy);
    let stranger = leaf(Body::Refusal(Writer::refusal(Some(9))));
    assert_eq!(compare(&stranger, &in_force, &mut Policies::new(&texts)), Found::RefusedOtherwise);
    assert_eq!(stranger.count, 9);
}

#[test]
fn a_request_that_came_in_while_the_policy_changed_may_be_judged_by_the_one_before_for_a_while() {
    let (_, texts) = evidence();
    let (old, new) = (policy(RULES).hash(), Sha256Hex::of(b"new"));
    let changed = took(&[(Sha256Hex::of(b"before"), Some(old)), (config(), Some(new))]);
    let mut exchange = judged("quality");
    let judge = |exchange: &Exchange| compare(exchange, &changed, &mut Policies::new(&texts));
    assert_eq!(judge(&exchange), Found::Same(old));
    exchange.at += COMES_IN;
    assert_eq!(change(&judge(&exchange)), Change::PolicyDiffers);
    let without = took(&[(Sha256Hex::of(b"before"), None), (config(), Some(old))]);
    let mut plain = Exchange { verdict: None, ..judged("quality") };
    assert_eq!(compare(&plain, &without, &mut Policies::new(&texts)), Found::WithoutPolicy);
    plain.at += COMES_IN;
    assert_eq!(change(&compare(&plain, &without, &mut Policies::new(&texts))), Change::NoVerdict);
}

#[test]
fn another_policy_is_held_against_what_became_of_the_exchange() {
    let (sent, refused) = (judged("quality"), judged("sales"));
    let all = policy("mode: enforce\ndefault: allow\n");
    let none = policy("mode: enforce\ndefault: deny\n");
    let watches = policy("mode: observe\ndefault: deny\n");
    assert_eq!(what_if(&sent, &all), Found::Same(all.hash()));
    assert_eq!(change(&what_if(&sent, &none)), Change::WouldBeDenied);
    assert_eq!(change(&what_if(&refused, &all)), Change::WouldBeAllowed);
    assert_eq!(what_if(&refused, &none), Found::Same(none.hash()));
    assert_eq!(change(&what_if(&sent, &watches)), Change::WouldBeFlagged);
    assert_eq!(change(&what_if(&refused, &watches)), Change::WouldBeAllowed);
    let mut flagged = sent.clone();
    flagged.verdict.as_mut().unwrap().decision = Decision::WouldDeny;
    assert_eq!(change(&what_if(&flagged, &all)), Change::NoLongerFlagged);
    assert_eq!(what_if(&flagged, &watches), Found::Same(watches.hash()));
    let late = Exchange { refused: Some("malformed_body".into()), ..sent };
    assert_eq!(what_if(&late, &none), Found::RefusedOtherwise);
}

#[test]
fn a_pass_needs_something_evaluated_and_nothing_left_open() {
    let hash = policy(RULES).hash();
    let mut found = Reperformed::default();
    assert_eq!(found.exit_code(Proven::Verified), 2);
    found.add(Found::Same(hash), 1);
    assert_eq!((found.exit_code(Proven::Verified), found.exit_code(Proven::Invalid)), (0, 1));
    assert_eq!(found.exit_code(Proven::CouldNotJudge), 2);
    found.add(Found::NotJudged("why".into()), 1);
    assert_eq!(found.exit_code(Proven::Verified), 2);
    let cost = crate::decimal::Decimal::parse("0.25").map(|cost| ("USD".to_owned(), cost));
    for cost in [cost.clone(), cost, None] {
        let exchange = Exchange { cost, ..judged("quality") };
        found.add(what_if(&exchange, &policy("mode: enforce\ndefault: deny\n")), 1);
    }
    assert_eq!(found.exit_code(Proven::Verified), 1);
    let (group, sums) = found.groups.first_key_value().unwrap();
    assert_eq!((group.1.as_deref(), group.3.as_deref()), (Some("quality"), Some("default")));
    assert_eq!((sums.exchanges, sums.without_cost, sums.cost["USD"].to_string()), (3, 1, "0.5".into()));
    assert!(found.different <= LISTED as u64 && found.differences.len() == 3);
}

/// How many rows the scans of a plan gave.
fn scanned(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let children = plan.children();
    let own = plan.metrics().filter(|_| children.is_empty()).and_then(|metrics| metrics.output_rows());
    own.unwrap_or(0) + children.into_iter().map(scanned).sum::<usize>()
}

#[test]
fn an_interval_is_reperformed_from_its_own_rows() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let cost = Cost {
        currency: id("USD"),
        total: "1".into(),
        classes: [("input".to_owned(), "1".to_owned())].into(),
        price_book: config(),
        price_row: id("row"),
    };
    for n in 1..=20 {
        writer.now = START + i64::try_from(n).unwrap() * SECOND / 2;
        let position = writer.push(Body::Intent(Writer::intent_of(exchange_id(n))));
        let (number, phase) = (AttemptNumber::new(1).unwrap(), id("open"));
        let attempt = Attempt::new(exchange_id(n), number, id("second"), id("fallback"));
        writer.push(Body::Attempt(Attempt { intent_position: position, phase, ..attempt }));
        let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
        let outcome = writer.outcome_of(exchange_id(n), position, None, vec![], usage);
        writer.push(Body::Outcome(Outcome { cost: Some(cost.clone()), unpriced: None, ..outcome }));
        writer.seal();
    }
    let tenth = (Some(START + 5 * SECOND), Some(START + 5 * SECOND + 1));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let evidence = proven(&writer).await;
        let session = &evidence.session;
        let mut rows = Vec::new();
        for bounds in [(None, None), tenth] {
            let mut found = Vec::new();
            each(session, bounds, |exchange| {
                found.push((exchange.id.clone().unwrap(), exchange.further.is_some()));
            })
            .await
            .unwrap();
            let sql = question(bounds.0, bounds.1);
            let plan = session.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
            collect(plan.clone(), session.task_ctx()).await.unwrap();
            rows.push((found, scanned(&plan)));
        }
        let [(all, of_all), (one, of_one)] = &rows[..] else { unreachable!() };
        let id = exchange_id(10).to_string();
        assert_eq!((all.len(), &one[..]), (40, &[(id.clone(), false), (id, true)][..]));
        assert!(*of_all >= 80 && *of_one <= 5, "{of_all} rows for all, {of_one} for one");
    });
}
