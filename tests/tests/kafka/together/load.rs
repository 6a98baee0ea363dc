//! Callers that remember what they got.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tests::Dice;
use tests::client::{Call, Got, Leave, send_until};
use tokio::task::JoinSet;

use super::fleet::{Fleet, held};

/// How many callers each gateway has.
const CALLERS: u64 = 2;

/// One call to a gateway, and what its caller got.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) gateway: usize,
    pub(crate) tag: String,
    pub(crate) got: Got,
}

/// What all callers remember.
pub(crate) type Memory = Arc<Mutex<Vec<Remembered>>>;

fn call(key: &str, tag: &str, dice: &mut Dice) -> Call {
    // Some fit into no single message of the topic.
    let words = if dice.below(60) == 0 { 80_000 } else { dice.below(100) };
    let filler: String = (0..words).map(|_| format!("{:016x}", dice.next())).collect();
    let mut body = serde_json::json!({ "model": "gpt-4o-mini", "user": tag,
        "messages": [{ "role": "user", "content": format!("{tag} {filler}") }] });
    if dice.below(2) == 0 {
        body["stream"] = true.into();
        body["stream_options"] = serde_json::json!({ "include_usage": true });
    }
    Call::post("/openai/v1/chat/completions", key, body.to_string())
}

/// Starts the callers of all gateways; they end once told to.
pub(crate) fn start(fleet: &Fleet, dice: &mut Dice, stop: &Arc<AtomicBool>, memory: &Memory) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for (number, gateway) in fleet.gateways.iter().enumerate() {
        let (address, key) = {
            let gateway = held(gateway);
            (gateway.address, gateway.key.clone())
        };
        for caller in 0..CALLERS {
            let mut dice = Dice::new(dice.next());
            let (stop, memory, key) = (Arc::clone(stop), Arc::clone(memory), key.clone());
            callers.spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let tag = format!("tag-{number}-{caller}-{n}-end");
                    let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_secs(20)) };
                    let got = send_until(address, &call(&key, &tag, &mut dice), leave).await;
                    memory.lock().expect("no caller died").push(Remembered { gateway: number, tag, got });
                    n += 1;
                    tokio::time::sleep(Duration::from_millis(80)).await;
                }
            });
        }
    }
    callers
}
