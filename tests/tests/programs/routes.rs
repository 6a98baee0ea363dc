//! A gateway that is killed between two attempts: what was sent is in the log, and the log is whole.

use std::time::Duration;

use tests::client::{Call, Leave, send, send_until};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}"#;

/// A target of the scripted provider that behaves so.
fn target(name: &str, script: &str, priority: u64) -> String {
    format!(
        "      - {{ name: {name}, provider: openai, priority: {priority}, headers: {{ set: {{ x-replay: 'script:{script}' }} }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_between_two_attempts_has_recorded_both_and_verifies() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let routes = format!(
        "  - name: hangs\n    path: /hangs\n    targets:\n{}{}  - name: turns\n    path: /turns\n    targets:\n{}{}",
        target("broken", "status:503", 0),
        target("silent", "silent", 1),
        target("broken", "status:503", 0),
        target("quick", "fast:3", 1),
    );
    let setup = Setup { provider: provider.url(), routes, ..Setup::default() };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    gateway.serve();
    let call = |route: &str| Call::post(&format!("/{route}/v1/chat/completions"), &gateway.key, QUESTION);
    let turned = send(gateway.address, &call("turns")).await;
    assert_eq!(turned.status, 200, "{}", turned.text());
    let leave = Leave { after_silence: Some(Duration::from_secs(30)), ..Leave::default() };
    let (hanging, address) = (call("hangs"), gateway.address);
    let caller = tokio::spawn(async move { send_until(address, &hanging, leave).await });
    // Both targets of the one, and both of the other.
    for _ in 0..500 {
        if provider.seen().len() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(provider.seen().len(), 4);
    gateway.kill();
    assert_eq!(caller.await.expect("the caller").status, 0);
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let evidence = Evidence::read(&gateway);
    let of = |exchange: &str| -> Vec<String> {
        let of = evidence.leaves.iter().filter(|leaf| leaf.value["exchange"] == exchange);
        of.map(|leaf| {
            let value = &leaf.value;
            match value["kind"].as_str().unwrap_or_default() {
                "attempt" => format!("{} {} {}", value["number"], value["phase"], value["target"]),
                kind => format!("{kind} {}", value["end"]),
            }
        })
        .collect()
    };
    let turned = turned.exchange().expect("an id").to_owned();
    let hung = evidence.exchanges("intent").into_iter().find(|id| *id != turned).expect("the other one");
    let told = |end: &str, next: &str| {
        vec![
            "intent null".to_owned(),
            "0 \"end\" \"broken\"".to_owned(),
            format!("1 \"open\" \"{next}\""),
            format!("outcome \"{end}\""),
        ]
    };
    assert_eq!(of(&turned), told("complete", "quick"));
    assert_eq!(of(&hung), told("interrupted", "silent"));
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("VERIFIED"), "{out}");
}
