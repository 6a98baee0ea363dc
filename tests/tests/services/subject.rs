//! Everything of one end user, handed over from what the real gateway wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::client::{Call, Got, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn all_of_one_person_is_handed_over_as_it_crossed_and_nothing_of_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup {
        provider: provider.url(),
        evidence: "  pseudonym_key: pseudonym.key\n".into(),
        route: "    asserted_headers: { subject: x-user }\n".into(),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let made = Command::new(tests::binary("gateway"))
        .args(["keygen", "--deployment", "test", "--gateway", "gw1", "--out"])
        .arg(dir.path().join("unused.key"))
        .arg("--pseudonym-key")
        .arg(dir.path().join("pseudonym.key"))
        .output()
        .expect("the gateway's binary");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    gateway.serve();
    let mut got: BTreeMap<String, (String, Got)> = BTreeMap::new();
    for (n, (who, stream)) in
        [("alice", false), ("bob", false), ("alice", true), ("bob", true), ("alice", false)]
            .into_iter()
            .enumerate()
    {
        let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": stream, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": format!("a secret of {who}, {n}") }] })
        .to_string();
        let call =
            Call::post("/openai/v1/chat/completions", &gateway.key, body.clone()).header("x-user", who);
        let answer = send(gateway.address, &call).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.exchange().expect("an exchange").to_owned();
        got.insert(id, (body, answer));
    }
    let of = |who: &str| {
        let secret = format!("a secret of {who},");
        got.iter()
            .filter(|(_, (body, _))| body.contains(&secret))
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>()
    };
    let (alice, bob) = (of("alice"), of("bob"));
    assert_eq!((alice.len(), bob.len()), (3, 2));
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let (code, said) = gateway.run(&["erase", "--exchange", &alice[0], "--reason", "request"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let path = |name: &str| gateway.dir.join(name).display().to_string();
    let store = gateway.store().display().to_string();
    let mut words: Vec<String> =
        ["subject", &store, "--trust", &path("trust.yaml"), "--state", &path("auditor-state")]
            .map(str::to_owned)
            .to_vec();
    words.extend(
        ["--key-table", &path("keytable"), "--subject", "alice", "--out", &path("alice")].map(str::to_owned),
    );
    words.extend(["--pseudonym-key", &path("pseudonym.key")].map(str::to_owned));
    let (code, _, err) = gateway.auditor(&words);
    assert_eq!(code, 2, "no reason, no content: {err}");
    words.extend(["--reason", "access request 17"].map(str::to_owned));
    let (code, out, err) = gateway.auditor(&words);
    assert_eq!(code, 0, "{out}{err}");

    let folder = gateway.dir.join("alice");
    let table = std::fs::read(folder.join("exchanges.json")).expect("a table");
    let table: Vec<Value> = serde_json::from_slice(&table).expect("a table");
    let ids: Vec<_> = table.iter().filter_map(|one| one["exchange"].as_str()).collect();
    assert_eq!(ids.len(), 3);
    assert!(alice.iter().all(|id| ids.contains(&id.as_str())));
    for one in &table {
        let id = one["exchange"].as_str().expect("an id");
        let (body, answer) = &got[id];
        for part in one["parts"].as_array().expect("parts") {
            let is_erased = id == alice[0];
            assert_eq!(part["state"], if is_erased { "erased" } else { "proven" }, "{id} {part}");
            assert_eq!(part["file"].is_null(), is_erased);
            let Some(file) = part["file"].as_str() else { continue };
            let bytes = std::fs::read(folder.join(file)).expect("content");
            match part["part"].as_str().expect("a part") {
                "client_request" => assert_eq!(bytes, body.as_bytes()),
                "provider_response" => assert_eq!(bytes, answer.body),
                _ => {}
            }
        }
    }
    let mut written = Vec::new();
    files(&folder, &mut written);
    for file in &written {
        let bytes = std::fs::read(file).expect("a file");
        assert!(!has(&bytes, "a secret of bob"), "{}", file.display());
        assert!(bob.iter().all(|id| !has(&bytes, id)), "{}", file.display());
    }
    let check =
        || gateway.auditor(&["check-subject".into(), path("alice"), "--trust".into(), path("trust.yaml")]);
    let (code, out, err) = check();
    assert_eq!(code, 0, "{out}{err}");
    let content =
        written.iter().find(|file| file.to_string_lossy().contains("client_request.json")).expect("content");
    std::fs::write(content, "{}").expect("a file");
    let (code, out, _) = check();
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("DOES NOT HOLD"), "{out}");
}
