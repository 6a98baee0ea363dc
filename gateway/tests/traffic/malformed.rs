//! Bodies whose facts cannot be read: refused where a policy is enforced, elsewhere passed and recorded as they came.

use bytes::Bytes;
use http_body_util::Full;
use schemas::record::{Body, End, Intent, PartName};

use crate::provider::{COMPLETION, Provider, whole};
use crate::rig::{Evidence, Rig, Setup, read};

/// Two models (the denied one first), streams said and unsaid, no JSON, no UTF-8.
const BODIES: [&[u8]; 4] = [
    br#"{"model":"o1-pro","messages":[],"model":"gpt-4.1-mini"}"#,
    br#"{"model":"gpt-4.1-mini","stream":true,"messages":[],"stream":false}"#,
    br#"{"model":"gpt-4.1-mini","#,
    b"\xff\xfe{}",
];

const ENFORCED: &str =
    "mode: enforce\ndefault: allow\nrules:\n  - { id: no-pro, effect: deny, models: [\"o1-*\"] }\n";

async fn provider() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

async fn send_all(rig: &Rig) -> Vec<(u16, Option<String>)> {
    let mut answers = Vec::new();
    for body in BODIES {
        let request = rig.post("/openai/v1/chat/completions").body(Full::new(Bytes::from_static(body)));
        let (status, headers, _) = read(rig.send(request.unwrap()).await).await;
        let reason = headers.get("x-affidavit-reason").map(|name| name.to_str().unwrap().to_owned());
        answers.push((status, reason));
    }
    answers
}

fn intents(evidence: &Evidence) -> Vec<&Intent> {
    let intents = evidence.records.iter();
    intents.filter_map(|record| if let Body::Intent(it) = &record.body { Some(it) } else { None }).collect()
}

fn passed_as_they_came(provider: &Provider, evidence: &Evidence) {
    let sent: Vec<Bytes> = provider.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(sent, BODIES, "byte for byte, nothing spliced in");
    for (intent, body) in intents(evidence).into_iter().zip(BODIES) {
        let parts: Vec<_> = intent.parts.iter().map(|part| (part.part, part.length)).collect();
        assert_eq!(parts[1..], [(PartName::ClientRequest, body.len() as u64)]);
    }
    assert!(evidence.outcomes().iter().all(|outcome| outcome.end == End::Complete));
    assert_eq!((evidence.outcomes().len(), evidence.count("refusal")), (4, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_they_pass_byte_for_byte_and_are_recorded() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    assert_eq!(send_all(&rig).await, vec![(200, None); 4]);
    let evidence = rig.stop().await;
    passed_as_they_came(&provider, &evidence);
    assert!(intents(&evidence).iter().all(|intent| intent.verdict.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_enforced_policy_they_are_refused_before_the_provider_sees_them() {
    let provider = provider().await;
    let setup = Setup { policy: Some(ENFORCED.into()), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    assert_eq!(send_all(&rig).await, vec![(400, Some("malformed_body".to_owned())); 4]);
    assert!(provider.seen().is_empty());
    let evidence = rig.stop().await;
    let refusals = evidence.refusals();
    assert_eq!((refusals.len(), evidence.count("intent")), (4, 0));
    for (refusal, body) in refusals.into_iter().zip(BODIES) {
        let kept = refusal.parts.iter().find(|part| part.part == PartName::ClientRequest).unwrap();
        assert_eq!(kept.length, body.len() as u64, "what was refused is kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_observed_policy_they_pass() {
    let provider = provider().await;
    let policy = ENFORCED.replace("enforce", "observe");
    let rig = Rig::start(&provider, Setup { policy: Some(policy), ..Setup::default() }).await;
    assert_eq!(send_all(&rig).await, vec![(200, None); 4]);
    let evidence = rig.stop().await;
    passed_as_they_came(&provider, &evidence);
    assert!(intents(&evidence).iter().all(|intent| intent.verdict.is_some()));
}
