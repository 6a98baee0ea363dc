//! Controls over the whole population, on evidence that a real gateway wrote: every verdict again, another policy, and a
//! sample that is drawn, proven and drawn again.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;

const POLICY: &str = "mode: enforce\ndefault: deny\nrules:\n- {id: chat, effect: allow, models: 'gpt-4o*'}\n";
/// Neither `gpt-4o` itself nor the default of the other.
const OTHER: &str = "mode: enforce\ndefault: allow\nrules:\n- {id: dear, effect: deny, models: gpt-4o}\n";

struct Auditor<'a>(&'a Gateway, &'a str);

impl Auditor<'_> {
    fn run(&self, command: &str, more: &[&str]) -> (i32, String) {
        let dir = &self.0.dir;
        let mut args = vec![command.to_owned(), self.0.store().display().to_string()];
        args.extend(["--trust".into(), dir.join("trust.yaml").display().to_string()]);
        args.extend(["--state".into(), dir.join(self.1).display().to_string()]);
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let (exit, out, err) = self.0.auditor(&args);
        (exit, format!("{out}{}", if exit == 2 { err } else { String::new() }))
    }
    fn json(&self, command: &str, more: &[&str]) -> (i32, Value) {
        let (exit, out) = self.run(command, &[&["--format", "json"], more].concat());
        (exit, serde_json::from_str(&out).unwrap_or_else(|_| panic!("exit {exit}: {out}")))
    }
}

/// Seven exchanges of two models, and two that the policy refuses.
async fn traffic(dir: &Path) -> Gateway {
    let provider = Provider::start([]).await;
    let setup = Setup {
        provider: provider.url(),
        rest: format!("policy: {}\n", dir.join("policy.yaml").display()),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir, &setup);
    std::fs::write(dir.join("policy.yaml"), POLICY).expect("a policy");
    gateway.serve();
    for n in 0..9 {
        let (model, status) = match n {
            0..4 => ("gpt-4o-mini", 200),
            4..7 => ("gpt-4o", 200),
            _ => ("o3", 403),
        };
        let body =
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"question {n}"}}]}}"#);
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, status, "{}", got.text());
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    gateway
}

fn reperformed(gateway: &Gateway, dir: &Path) {
    let auditor = Auditor(gateway, "state");
    let (exit, found) = auditor.json("reperform", &[]);
    assert_eq!((exit, &found["same"], &found["different"]), (0, &9.into(), &0.into()), "{found:#}");
    let other = dir.join("other.yaml");
    std::fs::write(&other, OTHER).expect("a policy");
    let other = other.display().to_string();
    let (exit, found) = auditor.json("reperform", &["--policy", &other]);
    assert_eq!((exit, &found["same"], &found["different"]), (1, &4.into(), &5.into()), "{found:#}");
    let group = |change: &str| {
        let groups = found["groups"].as_array().expect("groups");
        groups.iter().find(|group| group["change"] == change).expect("the group").clone()
    };
    let (denied, allowed) = (group("would_be_denied"), group("would_be_allowed"));
    assert_eq!((&denied["model"], &denied["rule"]), (&"gpt-4o".into(), &"dear".into()));
    assert_eq!((&denied["exchanges"], &denied["without_cost"]), (&3.into(), &0.into()));
    assert!(denied["cost"]["USD"].is_string(), "{denied:#}");
    assert_eq!((&allowed["model"], &allowed["without_cost"]), (&"o3".into(), &2.into()));
    let (exit, csv) = auditor.run("reperform", &["--policy", &other, "--format", "csv"]);
    assert_eq!((exit, csv.lines().count()), (1, 6), "{csv}");
    let (exit, text) = auditor.run("reperform", &["--policy", &other]);
    assert!(exit == 1 && text.contains("would_be_denied  team "), "{text}");
}

/// A round of drand's quicknet that came out after the newest seal; the value is nobody's.
async fn round() -> String {
    tokio::time::sleep(Duration::from_secs(4)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    format!("drand:{}:{}", (now - 1_692_803_367) / 3 + 1, "5e".repeat(32))
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_evaluated_again_and_a_sample_is_drawn_proven_and_drawn_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = traffic(dir.path()).await;
    reperformed(&gateway, dir.path());
    let round = round().await;
    let auditor = Auditor(&gateway, "state");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("a paper");

    let early = format!("drand:1000:{}", "5e".repeat(32));
    let early = auditor.run("sample", &["--n", "5", "--seed-from", &early, "--out", &at("early")]);
    assert!(early.0 == 2 && early.1.contains("may have known"), "{early:?}");
    let words = ["--n", "5", "--by", "model", "--seed-from", &round, "--out"];
    let (exit, told) = auditor.run("sample", &[&words[..], &[&at("papers")]].concat());
    assert_eq!(exit, 0, "{told}");
    for stratum in ["model = gpt-4o-mini: 2 of 4", "model = gpt-4o: 2 of 3", "model = o3: 1 of 2"] {
        assert!(told.contains(stratum), "{stratum} in {told}");
    }
    let method: Value = serde_json::from_str(&file("papers/method.json")).expect("JSON");
    let seed = schemas::Sha256Hex::of(file("papers/seed.txt").as_bytes());
    assert_eq!(method["seed"], seed.to_string());

    // Another auditor, who was never there, draws the same.
    let other = Auditor(&gateway, "other-state");
    assert_eq!(other.run("sample", &[&words[..], &[&at("papers2")]].concat()).0, 0);
    assert_eq!(file("papers/sample.csv"), file("papers2/sample.csv"));
    let (exit, told) = other.run("sample", &["--check", &at("papers")]);
    assert!(exit == 0 && told.starts_with("HOLDS the same 5 of 9"), "{told}");
    // And nothing is written over.
    assert_eq!(other.run("sample", &[&words[..], &[&at("papers2")]].concat()).0, 2);

    let money = ["--n", "4", "--by-value", "cost", "--seed-from", &round, "--out"];
    let (exit, told) = auditor.run("sample", &[&money[..], &[&at("money")]].concat());
    assert!(exit == 0 && told.contains("2 without a cost"), "{told}");
    let (exit, told) = other.run("sample", &["--check", &at("money")]);
    assert!(exit == 0 && told.starts_with("HOLDS"), "{told}");

    let mut proofs = 0;
    for folder in ["papers", "money"] {
        for entry in std::fs::read_dir(dir.path().join(folder).join("proofs")).expect("proofs") {
            let proof = entry.expect("a proof").path().display().to_string();
            let trust = at("trust.yaml");
            let words = ["check-proof", &proof, "--trust", &trust].map(str::to_owned);
            let (exit, out, err) = gateway.auditor(&words);
            assert!(exit == 0 && out.starts_with("VERIFIED"), "{out}{err}");
            proofs += 1;
        }
    }
    assert!(proofs > 5, "{proofs}");

    // Whoever exchanges an item, a proof or the public value is found.
    let sample = file("papers/sample.csv");
    for (name, from, to) in [
        ("papers/sample.csv", "gpt-4o-mini", "gpt-4o"),
        ("papers/method.json", "5e5e5e", "5f5e5e"),
        ("papers/seed.txt", "n 5\n", "n 6\n"),
    ] {
        let whole = file(name);
        assert!(whole.contains(from), "{name}");
        std::fs::write(dir.path().join(name), whole.replacen(from, to, 1)).expect("a forged paper");
        let (exit, told) = other.run("sample", &["--check", &at("papers")]);
        assert!(exit == 1 && told.starts_with("DOES NOT HOLD"), "{name}: {told}");
        std::fs::write(dir.path().join(name), whole).expect("the paper");
    }
    let whole = file("papers/method.json");
    let earlier = whole.replace("affidavit/sample/v2", "affidavit/sample/v1");
    std::fs::write(dir.path().join("papers/method.json"), earlier).expect("a paper of an earlier version");
    let (exit, told) = other.run("sample", &["--check", &at("papers")]);
    assert!(exit == 2 && told.contains("this build draws by `affidavit/sample/v2`"), "{told}");
    std::fs::write(dir.path().join("papers/method.json"), whole).expect("the paper");
    let exchange = sample.lines().nth(1).and_then(|line| line.split(',').nth(1)).expect("an exchange");
    std::fs::remove_file(dir.path().join(format!("papers/proofs/{exchange}.json"))).expect("a proof");
    let (exit, told) = other.run("sample", &["--check", &at("papers")]);
    assert!(exit == 1 && told.contains(&format!("proof of {exchange}  WRONG")), "{told}");
    println!("9 verdicts evaluated again, {proofs} proofs checked, 4 forged folders found");
}
