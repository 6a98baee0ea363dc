//! A store that loses what it had confirmed: the auditor says so, and `gateway reship` puts it there again, as it was.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use schemas::seal;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;

async fn calls(gateway: &Gateway, count: usize) {
    for n in 0..count {
        let body = serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": format!("call {n}") }] });
        let call = Call::post("/openai/v1/chat/completions", &gateway.key, body.to_string());
        let got = send(gateway.address, &call).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let begun = Instant::now();
    loop {
        if let Some([journaled, .., archived]) = tests::marks::read(gateway.admin)
            && journaled > 0
            && archived >= journaled
        {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "not archived:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The logs in the store, oldest first.
fn logs(gateway: &Gateway) -> Vec<String> {
    let list = std::fs::read_dir(gateway.store().join("test/gw1")).expect("the gateway's logs");
    let mut logs: Vec<String> =
        list.map(|entry| format!("test/gw1/{}", entry.expect("a log").file_name().display())).collect();
    logs.sort();
    logs
}

fn objects(gateway: &Gateway, log: &str) -> Vec<PathBuf> {
    let list = std::fs::read_dir(gateway.store().join(log)).expect("a log");
    let mut objects: Vec<PathBuf> = list.map(|entry| entry.expect("an object").path()).collect();
    objects.sort();
    objects
}

fn lose(objects: &[PathBuf]) {
    objects.iter().for_each(|path| std::fs::remove_file(path).expect("an object"));
}

fn verdict(gateway: &Gateway, wanted: &str, code: i32) -> String {
    let (found, out, err) = gateway.verify(&[]);
    assert_eq!(found, code, "{out}{err}");
    assert!(out.starts_with(wanted), "{out}{err}");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_from_the_store_is_put_again_and_verifies() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    calls(&gateway, 2).await;
    calls(&gateway, 1).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    verdict(&gateway, "VERIFIED", 0);

    // The gateway is down: the command itself puts it.
    let first = logs(&gateway).remove(0);
    let all = objects(&gateway, &first);
    let seal = std::fs::read(all.iter().find(|path| path.ends_with("0000000001.seal")).expect("a seal"));
    let sealed = seal::parse_unverified(&seal.expect("a seal")).expect("a seal");
    let lost: Vec<PathBuf> = all
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("0000000001")))
        .cloned()
        .collect();
    assert_eq!(lost.len(), sealed.files.len() + 1);
    lose(&lost);
    verdict(&gateway, "INCOMPLETE", 1);
    let (code, said) = gateway.run(&["reship", "--missing"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{first} batch 1 put again: {} objects", lost.len())), "{said}");
    assert!(said.contains("1 batches put again, 0 were there, 0 failed"), "{said}");
    assert_eq!(objects(&gateway, &first), all);
    verdict(&gateway, "VERIFIED", 0);

    // A gateway that serves is asked, also for what the one before it kept; one that died in between too.
    gateway.serve();
    calls(&gateway, 2).await;
    gateway.kill();
    gateway.serve();
    calls(&gateway, 1).await;
    let known = logs(&gateway);
    assert_eq!(known.len(), 3, "{known:?}");
    let before: Vec<Vec<PathBuf>> = known.iter().map(|log| objects(&gateway, log)).collect();
    for (at, objects) in before.iter().enumerate() {
        // Of each log another kind of loss: the first object, everything, the last.
        match at {
            0 => lose(&objects[..1]),
            1 => lose(objects),
            _ => lose(&objects[objects.len() - 1..]),
        }
    }
    let (code, said) = gateway.run(&["reship", "--missing"]);
    assert_eq!(code, 0, "{said}\n{}", gateway.log());
    assert!(!said.contains("no gateway serves here"), "{said}");
    assert!(known.iter().all(|log| said.contains(&format!("{log} batch "))), "{said}");
    for (log, before) in known.iter().zip(&before) {
        assert_eq!(objects(&gateway, log), *before);
    }
    let metrics = gateway.admin_get("/metrics").expect("metrics");
    let of = |name: &str| -> u64 {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| std::panic::panic_any(format!("{name} is not in {metrics}")))
    };
    assert!(of("gateway_batches_reshipped_total ") >= 3, "{said}");
    assert!(of("gateway_spool_kept_bytes ") > 0);
    assert_eq!(of("gateway_spool_bytes "), 0);

    // What is there is said to be there; what is not kept is an error.
    let (code, said) = gateway.run(&["reship", "--batch", &format!("{first}:0")]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{first} batch 0 is there")), "{said}");
    let (code, said) = gateway.run(&["reship", "--batch", &format!("{first}:77"), "--since", "1h"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("{first} batch 77 NOT put again: it is not kept here")), "{said}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    verdict(&gateway, "VERIFIED", 0);
}
