//! A host dies with records that its bucket does not have: its journal is closed from another machine, with the log's own
//! key or with a closing key that the root key named, and with no other.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tests::client::{Call, send};
use tests::copy;
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::registrar::Registrar;
use tests::services::{Fault, FaultProxy, Minio, S3Server};

const BUCKET: &str = "evidence";

fn out(endpoint: &str) -> String {
    format!(
        "{{ s3: {{ bucket: {BUCKET}, prefix: llm, region: us-east-1, endpoint: '{endpoint}', path_style: true, timeout: 3s, \
         retention: {{ records: 2d, content: 1d }} }} }}"
    )
}

fn environment() -> Vec<(String, String)> {
    S3Server::environment().map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// A gateway of a registered key that died: what its disk holds, and how many calls were answered.
struct Dead {
    server: S3Server,
    deployment: Deployment,
    registrar: Registrar,
    gateway: Gateway,
    entry: PathBuf,
    closing: PathBuf,
    answered: usize,
    dir: tempfile::TempDir,
}

async fn calls(gateway: &Gateway, count: usize) {
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"before the end"}]}"#;
    for _ in 0..count {
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
}

async fn dies() -> Dead {
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultProxy::start(server.address);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup {
        provider: provider.url(),
        out: out(&proxy.endpoint()),
        environment: environment(),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(&dir.path().join("host"), &setup);
    let deployment = Deployment::new(&dir.path().join("registry"));
    let mut registrar = deployment.registrar("registrar", &out(&server.endpoint()), &environment());
    let closing = deployment.key("closing.key");
    let own = gateway.seal_key();
    let entry = deployment.sign(
        "add",
        &["enroll", "--gateway", "gw1", "--key", &own, "--closer", &closing.display().to_string()],
    );
    registrar.spawn();
    gateway.serve();
    calls(&gateway, 5).await;
    let dead = Dead { server, deployment, registrar, gateway, entry, closing, answered: 0, dir };
    dead.registrar.until_said(&|| dead.audit(), &|_, said| {
        said.contains("1 keys, 1 logs") && said.contains("5 intent")
    });
    let mut dead = dead;
    proxy.set(Fault::Down);
    calls(&dead.gateway, 7).await;
    // Some of it is sealed and waits in the spool, some is in the journal only.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    calls(&dead.gateway, 3).await;
    dead.gateway.kill();
    dead.answered = 15;
    dead
}

impl Dead {
    /// A command of the auditor over the bucket.
    fn ask(&self, command: &[&str], trust: &Path, more: &[&str]) -> Output {
        let of = trust.parent().and_then(Path::file_name).expect("a folder of the trust file");
        let state = self.dir.path().join("states").join(of);
        Command::new(tests::binary("auditor"))
            .args(command)
            .args(["s3://evidence/llm", "--path-style", "--endpoint-url", &self.server.endpoint()])
            .arg("--trust")
            .arg(trust)
            .arg("--state")
            .arg(state)
            .args(more)
            .envs(S3Server::environment())
            .output()
            .expect("the auditor's binary")
    }

    fn audit_with(&self, trust: &Path) -> (i32, String) {
        let output = self.ask(&["verify"], trust, &[]);
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// A bundle of the last exchange, which the closer sealed, checked with the trust file that the registry resolves to
    /// and with the same without closers. Gives the first.
    fn proof_of_the_end(&self, closer: &str) -> PathBuf {
        let trust = self.deployment.trust_file();
        let resolved = self.ask(&["trust", "resolve"], &trust, &[]);
        assert!(resolved.status.success(), "{}", said(&resolved));
        let file = |name: &str, bytes: &[u8]| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        };
        let named = file("resolved.json", &resolved.stdout);
        let text = String::from_utf8_lossy(&resolved.stdout).into_owned();
        assert!(text.contains(closer), "{text}");
        let mut without: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for gateway in without["gateways"].as_array_mut().expect("gateways") {
            gateway.as_object_mut().expect("an entry").remove("closers");
        }
        let without = file("without.json", without.to_string().as_bytes());
        let answer = self.dir.path().join("last.csv");
        let sql = "SELECT exchange FROM exchanges ORDER BY position DESC LIMIT 1";
        let out = answer.display().to_string();
        let asked = self.ask(&["query"], &trust, &["--format", "csv", "--out", &out, sql]);
        assert!(asked.status.success(), "{}", said(&asked));
        let answer = std::fs::read_to_string(answer).expect("an answer");
        let exchange = answer.lines().nth(1).expect("an exchange");
        let bundle = self.dir.path().join("bundle.json").display().to_string();
        let proved = self.ask(&["prove"], &trust, &["--out", &bundle, exchange]);
        assert!(proved.status.success(), "{}", said(&proved));
        let check = |trust: &Path| {
            let checked = Command::new(tests::binary("auditor"))
                .args(["check-proof", &bundle, "--trust"])
                .arg(trust)
                .output()
                .expect("the auditor's binary");
            (checked.status.code(), said(&checked))
        };
        let (code, text) = check(&named);
        assert!(code == Some(0) && text.contains(&format!("by the closer {closer}")), "{text}");
        let (code, text) = check(&without);
        assert!(code == Some(1) && text.contains("WRONG"), "{text}");
        named
    }

    fn audit(&self) -> (i32, String) {
        self.audit_with(&self.deployment.trust_file())
    }

    /// Another machine: the dead host's journal and key table, a configuration of its own, and this seal key.
    fn machine(&self, name: &str, seal_key: &Path) -> PathBuf {
        let (host, machine) = (&self.gateway.dir, self.dir.path().join(name));
        copy(&host.join("journal"), &machine.join("found"));
        copy(&host.join("keytable"), &machine.join("keytable"));
        std::fs::copy(seal_key, machine.join("seal.key")).expect("a key");
        for file in ["provider.key", "keys.yaml"] {
            std::fs::copy(host.join(file), machine.join(file)).expect("a file");
        }
        let text = std::fs::read_to_string(host.join("gateway.yaml")).expect("the configuration");
        let text = text.replace(&host.display().to_string(), &machine.display().to_string());
        let at = text.find("endpoint: '").expect("an endpoint") + "endpoint: '".len();
        let end = at + text[at..].find('\'').expect("its end");
        let text = format!("{}{}{}", &text[..at], self.server.endpoint(), &text[end..]);
        std::fs::write(machine.join("gateway.yaml"), text).expect("the configuration");
        machine
    }

    fn salvage(&self, machine: &Path, more: &[&str]) -> Output {
        Command::new(tests::binary("gateway"))
            .current_dir(machine)
            .args(["salvage", "found", "-c", "gateway.yaml"])
            .args(more)
            .envs(S3Server::environment())
            .output()
            .expect("the gateway's binary")
    }

    /// The second verifier's word on a copy of the bucket, then on the gateway's logs alone with this trust file.
    async fn second_opinion(&self, resolved: &Path) -> [(bool, String); 2] {
        let folder = self.dir.path().join("copy");
        let client = self.server.client();
        let mut next = None;
        loop {
            let page =
                client.list_objects_v2().bucket(BUCKET).prefix("llm/").set_continuation_token(next.take());
            let page = page.send().await.expect("a listing");
            for key in page.contents().iter().filter_map(|object| object.key()) {
                let body = client.get_object().bucket(BUCKET).key(key).send().await.expect("an object").body;
                let path = folder.join(key.strip_prefix("llm/").expect("all is below the prefix"));
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                std::fs::write(path, body.collect().await.expect("its body").into_bytes()).expect("a copy");
            }
            next = page.next_continuation_token().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        let python = std::env::var_os("AFFIDAVIT_PYTHON").expect("AFFIDAVIT_PYTHON, as `tests/run` sets it");
        let judge = |trust: &Path| {
            let output = Command::new(&python)
                .arg(tests::root().join("tests/second/verify.py"))
                .arg(&folder)
                .arg("--trust")
                .arg(trust)
                .output()
                .expect("the second verifier");
            (output.status.success(), said(&output))
        };
        let whole = judge(&self.deployment.trust_file());
        std::fs::remove_dir_all(folder.join("test/registry")).expect("the registry's copy");
        [whole, judge(resolved)]
    }

    async fn objects(&self) -> usize {
        let mut pages = 0;
        let client = self.server.client();
        let (mut key, mut version) = (None, None);
        loop {
            let page = client
                .list_object_versions()
                .bucket(BUCKET)
                .prefix("llm/test/gw1/")
                .set_key_marker(key.take())
                .set_version_id_marker(version.take())
                .send()
                .await
                .expect("a listing");
            pages += page.versions().len();
            if page.is_truncated() != Some(true) {
                return pages;
            }
            key = page.next_key_marker().map(str::to_owned);
            version = page.next_version_id_marker().map(str::to_owned);
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn public(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a key's file");
    let line = text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("its public key");
    line.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_dead_hosts_journal_is_shipped_from_another_machine_with_its_own_key() {
    let dead = dies().await;
    let machine = dead.machine("other", &dead.gateway.dir.join("seal.key"));
    let begun = Instant::now();
    let output = dead.salvage(&machine, &[]);
    assert!(
        output.status.success() && said(&output).contains("all of it is in the store"),
        "{}",
        said(&output)
    );
    eprintln!("salvaged into MinIO in {} ms", begun.elapsed().as_millis());
    let own = public(&dead.gateway.dir.join("seal.key"));
    dead.deployment.sign("revoke", &["revoke-key", "--gateway", "gw1", "--key", &own]);
    // Everything that a caller was told is there, and the key's end does not touch what was registered before.
    let wanted = |code: i32, text: &str| code == 0 && text.contains("closed (salvaged)");
    let text = dead.registrar.until_said(&|| dead.audit(), &wanted);
    assert!(text.starts_with("VERIFIED"), "{text}");
    assert!(text.contains(&format!("{} intent", dead.answered)), "{text}");
    assert!(text.contains(&format!("{} outcome", dead.answered)) && text.contains("1 admin"), "{text}");
    // The journal that was left behind is never served over, and a repeat finds nothing to do.
    let objects = dead.objects().await;
    let output = dead.salvage(&machine, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(dead.objects().await, objects, "a repeat puts nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_closing_key_closes_a_log_whose_own_key_is_gone_and_no_other_key_does() {
    let dead = dies().await;
    let stranger = dead.deployment.key("stranger.key");
    let machine = dead.machine("other", &stranger);
    let before = dead.objects().await;
    // The stranger's key is not the log's, nor one of its closers: nothing is put.
    let output = dead.salvage(&machine, &[]);
    assert!(!output.status.success() && said(&output).contains("closing key"), "{}", said(&output));
    let path = |path: &Path| path.display().to_string();
    let (entry, root) = (path(&dead.entry), path(&dead.deployment.dir.join("root.pub")));
    let with = |key: &Path| {
        let key = path(key);
        dead.salvage(&machine, &["--closing-key", &key, "--enrolled-by", &entry, "--root-key", &root])
    };
    let output = with(&stranger);
    assert!(!output.status.success() && said(&output).contains("closers"), "{}", said(&output));
    assert_eq!(dead.objects().await, before, "nothing was sealed by a key that may not");
    // The host and its key are lost: the key is revoked, and counts up to what was registered.
    let own = public(&dead.gateway.dir.join("seal.key"));
    dead.deployment.sign("revoke", &["revoke-key", "--gateway", "gw1", "--key", &own]);
    dead.registrar
        .until_said(&|| dead.audit(), &|_, text| text.contains("3 entries") || !text.contains("2 entries"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let output = with(&dead.closing);
    assert!(
        output.status.success() && said(&output).contains("all of it is in the store"),
        "{}",
        said(&output)
    );
    let closer = public(&dead.closing);
    let wanted = |code: i32, text: &str| {
        code == 0 && text.contains(&format!("closed (salvaged by the closer {closer})"))
    };
    let text = dead.registrar.until_said(&|| dead.audit(), &wanted);
    assert!(text.starts_with("VERIFIED"), "{text}");
    assert!(text.contains(&format!("{} outcome", dead.answered)) && text.contains("1 admin"), "{text}");
    let resolved = dead.proof_of_the_end(&closer);
    for (sound, told) in dead.second_opinion(&resolved).await {
        assert!(sound && told.contains("VERIFIED"), "{told}");
    }
    // Who is told of no closers takes the seal for what it is then: a stranger's.
    let (code, text) = dead.audit_with(&dead.gateway.dir.join("trust.yaml"));
    assert!(code == 1 && text.contains("UNTRUSTED_KEY"), "{text}");
    // The log's own key has no word any more.
    let back = dead.machine("back", &dead.gateway.dir.join("seal.key"));
    let objects = dead.objects().await;
    let output = dead.salvage(&back, &[]);
    assert!(!output.status.success(), "{}", said(&output));
    assert_eq!(dead.objects().await, objects);
}
