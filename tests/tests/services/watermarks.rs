//! Progress only moves forward, and in order (DU-1): read from the metrics while traffic runs, through kills and restarts.

use std::time::{Duration, Instant};

use tests::Dice;
use tests::client::{Call, Leave, send_until};
use tests::gateway::{Gateway, Setup};
use tests::marks::{self, Watch};
use tests::provider::Provider;

const LIVES: u64 = 6;

/// Callers of one life; they end when the gateway does.
fn load(gateway: &Gateway, seed: u64) -> tokio::task::JoinSet<u64> {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4 {
        let (address, key, mut dice) = (gateway.address, gateway.key.clone(), Dice::new(seed + caller));
        callers.spawn(async move {
            let mut answered = 0;
            loop {
                let filler = "x".repeat(dice.below(20_000) as usize);
                let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": dice.below(2) == 0,
                    "messages": [{ "role": "user", "content": filler }] });
                let call = Call::post("/openai/v1/chat/completions", &key, body.to_string());
                let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_secs(20)) };
                match send_until(address, &call, leave).await.status {
                    0 => break answered,
                    _ => answered += 1,
                }
            }
        });
    }
    callers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "kills a real process; the test command runs it"]
async fn watermarks_only_move_forward_and_in_order_through_kills() {
    let mut dice = Dice::new(20_261_121);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), evidence: "  segment: 4MiB\n".into(), ..Setup::default() };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let (mut readings, mut behind, mut answered) = (0, 0, 0);
    for life in 0..LIVES {
        let watch = Watch::start(gateway.admin);
        gateway.serve();
        let mut callers = load(&gateway, life * 100);
        tokio::time::sleep(Duration::from_millis(700 + dice.below(2000))).await;
        gateway.kill();
        while let Some(done) = callers.join_next().await {
            answered += done.expect("a caller");
        }
        let read = watch.end();
        readings += read.len();
        behind += read.iter().filter(|reading| reading[0] > reading[3]).count();
    }
    // The last life recovers and rests: everything gets to the end.
    let watch = Watch::start(gateway.admin);
    gateway.serve();
    let begun = Instant::now();
    while !marks::read(gateway.admin).is_some_and(|marks| marks[0] > 0 && marks[0] == marks[3]) {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}\n{}",
            marks::read(gateway.admin),
            gateway.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    readings += watch.end().len();
    eprintln!(
        "{LIVES} lives, {answered} answers, {readings} readings, in {behind} archived was behind journaled"
    );
    assert!(readings > 100 && behind > 20 && answered > 50, "progress was seen while there was some");
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
}
