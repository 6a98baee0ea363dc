//! The runbook's commands do what it says: each section is followed in a situation that really is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::answering::Answering;
use tests::client::{Call, send};
use tests::copy;
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::process::Process;
use tests::provider::Provider;
use tests::registrar::directory;
use tests::runbook::{Host, sections};
use tests::tapped::{Mood, WebhookSink};

/// Sections whose situation a test here makes.
const SITUATIONS: [&str; 15] = [
    "disk-full",
    "fsync-error",
    "unrecorded-traffic",
    "store-away",
    "process-gone",
    "tap-behind",
    "tap-passed-by",
    "collector-away",
    "cost-spike",
    "unknown-prices",
    "refusals",
    "provider-fails",
    "refused-fork",
    "lost-key",
    "lost-log",
];

/// Sections whose commands only look: they are run where nothing is wrong.
const LOOKS: [&str; 12] = [
    "spool-full",
    "traffic-refused",
    "unsealed",
    "recovery-stuck",
    "key-destruction",
    "registrar-silent",
    "registry-damaged",
    "witness-fork",
    "clock",
    "reload-refused",
    "certificate",
    "logs",
];

/// Sections that `kafka_runbook` follows.
const WITH_KAFKA: [&str; 8] = [
    "stuck-receipts",
    "forged-receipts",
    "archiver-lag",
    "quarantine",
    "tap-gap",
    "no-lease",
    "fenced",
    "forged-commit-messages",
];

#[test]
fn every_section_is_followed_by_a_test() {
    let written: BTreeSet<String> = sections().into_iter().map(|section| section.anchor).collect();
    let followed = SITUATIONS.into_iter().chain(LOOKS).chain(WITH_KAFKA).map(str::to_owned).collect();
    assert_eq!(written, followed);
    let steps: usize = sections().iter().map(|section| section.steps.len()).sum();
    assert!(steps > 40, "{steps} blocks of commands");
}

/// A gateway that is prepared, on a host. The host ends before its folder does.
struct World {
    host: Host,
    gateway: Gateway,
    _provider: Provider,
    dir: tempfile::TempDir,
}

impl World {
    /// `evidence_dir`: where the evidence goes, below the folder; empty: into the folder.
    async fn prepare(evidence_dir: &str, setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let provider = Provider::start([]).await;
        let evidence = dir.path().join(evidence_dir);
        let setup = Setup {
            provider: provider.url(),
            evidence_dir: Some(evidence.clone()),
            rest: format!("log: {{ format: json }}\n{}", setup.rest),
            ..setup
        };
        let gateway = Gateway::prepare(dir.path(), &setup);
        let mut host = Host::new(dir.path());
        host.serves(&gateway, &evidence);
        Self { host, gateway, _provider: provider, dir }
    }

    async fn start(setup: Setup) -> Self {
        let world = Self::prepare("", setup).await;
        world.host.start_gateway();
        world
    }

    /// A call; its status and the reason of a refusal.
    async fn call(&self) -> (u16, String) {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"runbook"}]}"#;
        let got =
            send(self.gateway.address, &Call::post("/openai/v1/chat/completions", &self.gateway.key, body))
                .await;
        (got.status, got.header("x-affidavit-reason").unwrap_or_default().to_owned())
    }

    async fn calls(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.call().await.0, 200, "{}", self.host.log("gateway"));
        }
    }

    /// Calls until one is refused for this reason.
    async fn refused(&self, reason: &str) {
        let begun = Instant::now();
        loop {
            let (status, said) = self.call().await;
            if status == 503 && said == reason {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{status} {said}:\n{}",
                self.host.log("gateway")
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn metric(&self, line: &str) -> f64 {
        let text = self.gateway.admin_get("/metrics").unwrap_or_default();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}:\n{}", self.host.log("gateway"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn archived(&self) {
        self.until("everything archived", |world| {
            world.metric("gateway_records{mark=\"archived\"}") >= 4.0
                && world.metric("gateway_records_behind{mark=\"archived\"}") == 0.0
        });
    }

    /// From now on every sync of the gateway fails, until what is returned is dropped.
    fn failing_disk(&self) -> Process {
        let pid = self.host.pid("gateway").expect("a process").to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &pid, "-e", "trace=fdatasync,fsync", "-o", "/dev/null"]);
        strace.args(["-e", "inject=fdatasync,fsync:error=EIO"]);
        let mut strace = Process::start(&mut strace, &self.dir.path().join("strace.log"));
        let status = format!("/proc/{pid}/status");
        strace.until("it is attached", || {
            std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0"))
        });
        std::thread::sleep(Duration::from_millis(300));
        strace
    }
}

/// A small tmpfs; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(&self, options: &str) {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "mounting a tmpfs needs root");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_and_a_process_that_is_gone() {
    let world = World::start(Setup::default()).await;
    world.calls(2).await;
    world.archived();
    let (store, away) = (world.gateway.store(), world.dir.path().join("away"));
    std::fs::rename(&store, &away).expect("the store goes");
    std::fs::write(&store, "no folder").expect("a file in its place");
    world.calls(2).await;
    world.until("trouble", |world| world.metric("gateway_oldest_unshipped_seconds") > 1.0);
    assert!(world.metric("gateway_oldest_unarchived_seconds") > 1.0);
    world.host.follow("store-away", 0..1);
    std::fs::remove_file(&store).expect("the file goes");
    std::fs::rename(&away, &store).expect("the store comes back");
    world.host.follow_from("store-away", 1);
    assert!(world.metric("gateway_oldest_unarchived_seconds") < 1.0);
    world.calls(1).await;
    world.host.signal("gateway", Signal::KILL);
    std::thread::sleep(Duration::from_millis(300));
    world.host.follow_from("process-gone", 0);
    world.calls(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_of_the_tap_that_takes_nothing_gets_everything_when_it_is_back() {
    let hook = WebhookSink::start(|_| Mood::Fail).await;
    let url = format!("http://{}/in", hook.address);
    let evidence = format!("  tap: [ {{ name: siem, webhook: {{ url: \"{url}\", timeout: 1s }} }} ]\n");
    let world = World::start(Setup { evidence, ..Setup::default() }).await;
    world.calls(2).await;
    world.until("the sink to fail", |world| {
        world.metric("gateway_tap_errors_total{sink=\"siem\",reason=\"unavailable\"}") > 0.0
    });
    world.host.follow("tap-behind", 0..1);
    hook.set(|_| Mood::Take);
    world.host.follow_from("tap-behind", 1);
    assert!(hook.book.all().len() >= 6, "boot, config and two exchanges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_calls_cost_what_has_no_price_what_is_refused_and_a_provider_that_fails() {
    let world = World::start(Setup::default()).await;
    world.calls(2).await;
    let of = |key: &str, model: &str, stream: bool| {
        let messages = serde_json::json!([{ "role": "user", "content": "runbook" }]);
        let body = serde_json::json!({ "model": model, "stream": stream, "messages": messages });
        Call::post("/openai/v1/chat/completions", key, body.to_string())
    };
    let key = world.gateway.key.as_str();
    for (key, model, stream, status) in [
        (key, "gpt-4o-mini", true, 200),
        (key, "new-1", false, 200),
        (key, "fail-500", false, 500),
        ("afk_nobody", "gpt-4o-mini", false, 401),
    ] {
        assert_eq!(send(world.gateway.address, &of(key, model, stream)).await.status, status, "{model}");
    }
    world.archived();
    for section in ["cost-spike", "unknown-prices", "refusals", "provider-fails"] {
        world.host.follow_from(section, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loki_never_takes_is_read_from_the_archive() {
    // Loki's answer to what is older than it takes.
    let loki = Answering::start(
        "400 Bad Request",
        "entry for stream '{}' has timestamp too old: x, oldest acceptable timestamp is: 2999-01-01T00:00:00Z",
    );
    let tap =
        format!("  tap: [ {{ name: loki, loki: {{ url: \"http://{}\", wait: 100ms }} }} ]\n", loki.address);
    let world = World::start(Setup { evidence: tap, ..Setup::default() }).await;
    world.calls(2).await;
    world.archived();
    world.until("leaves passed by", |world| {
        world.metric("gateway_tap_passed_by_total{sink=\"loki\",reason=\"too_old\"}") >= 6.0
    });
    world.host.follow_from("tap-passed-by", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_gets_what_waited_when_it_is_back() {
    let collector = tests::process::free_port();
    let rest = format!("telemetry:\n  otlp:\n    endpoint: http://{collector}\n    interval: 200ms\n");
    let world = World::start(Setup { rest, ..Setup::default() }).await;
    world.calls(2).await;
    world.archived();
    world.until("the collector to be missed", |world| {
        world.metric("gateway_otlp_failures_total{signal=\"traces\",reason=\"connect\"}") > 0.0
    });
    world.host.follow("collector-away", 0..1);
    let _collector = Answering::on(collector, "200 OK", "");
    world.host.follow_from("collector-away", 1);
    assert_eq!(world.metric("gateway_otlp_exchanges_total{result=\"sent\"}"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_of_a_running_machine_is_found_and_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    let setup =
        Setup { out: format!("{{ directory: {} }}", text(&dir.path().join("store"))), ..Setup::default() };
    let mut world = World::prepare("host1", setup).await;
    world.host.set("STORE", text(&dir.path().join("store")));
    world.host.start_gateway();
    world.calls(2).await;
    world.archived();
    // A snapshot is started as a second machine while the first one stands still.
    world.host.signal("gateway", Signal::STOP);
    let (first, second) = (world.dir.path().join("host1"), world.dir.path().join("host2"));
    copy(&first, &second);
    let config = std::fs::read_to_string(world.gateway.dir.join("gateway.yaml")).expect("the configuration");
    let (address, admin) = (tests::process::free_port(), tests::process::free_port());
    let config = config
        .replace(&text(&first), &text(&second))
        .replace(&world.gateway.address.to_string(), &address.to_string())
        .replace(&world.gateway.admin.to_string(), &admin.to_string());
    let path = world.dir.path().join("clone.yaml");
    std::fs::write(&path, config).expect("the clone's configuration");
    world.host.unit("clone", &format!("gateway serve -c {}", text(&path)));
    world.host.does(&format!(
        "systemctl start affidavit-clone; for _ in {{1..300}}; do curl -sf http://{admin}/readyz && exit 0; sleep 0.1; done; exit 1"
    ));
    world.host.signal("gateway", Signal::CONT);
    world.calls(1).await;
    world.refused("store_refused").await;
    assert_eq!(world.metric("gateway_evidence_unavailable{reason=\"store_refused\"}"), 1.0);
    world.host.follow("refused-fork", 0..1);
    world.host.does("systemctl stop affidavit-clone");
    world.host.follow_from("refused-fork", 1);
    world.calls(1).await;
    let kept: Vec<PathBuf> = std::fs::read_dir(world.dir.path().join("kept"))
        .expect("what was kept")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(kept.iter().any(|path| path.join("lock").exists()), "{kept:?}");
}

/// A world with a registry that has enrolled its key and a closing key.
async fn registered(setup: Setup) -> (World, Deployment, tests::registrar::Registrar, PathBuf) {
    let mut world = World::prepare("", setup).await;
    let deployment = Deployment::new(&world.dir.path().join("deployment"));
    let closing = deployment.key("closing.key");
    let (key, closer) = (world.gateway.seal_key(), text(&closing));
    let enroll = ["enroll", "--gateway", "gw1", "--key", &key, "--closer", &closer];
    let entry = deployment.sign("gw1", &enroll);
    let mut registrar = deployment.registrar("registrar", &directory(&world.gateway.store()), &[]);
    world.host.set("TRUST", text(&deployment.trust_file()));
    world.host.set("ENTRY", text(&entry));
    world.host.set("ENTRIES", text(&deployment.dir.join("entries")));
    world.host.set("CLOSING_KEY", text(&closing));
    world.host.set("ROOT_KEY", text(&deployment.dir.join("root.key")));
    world.host.set("ROOT_PUB", text(&deployment.dir.join("root.pub")));
    world.host.set("REGISTRAR", registrar.metrics);
    world.host.start_gateway();
    registrar.spawn();
    deployment.settle(&registrar, &world.gateway.store());
    (world, deployment, registrar, closing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_lost_is_replaced_and_its_log_closed() {
    let (mut world, _deployment, _registrar, _closing) = registered(Setup::default()).await;
    world.calls(2).await;
    let trust = std::fs::read_to_string(world.gateway.dir.join("trust.yaml")).expect("the first trust file");
    let lost = trust.lines().find_map(|line| line.trim().strip_prefix("key: ")).expect("the public key");
    world.host.set("LOST", lost.trim_matches('"'));
    world.host.signal("gateway", Signal::KILL);
    std::fs::remove_file(world.gateway.seal_key()).expect("the key goes");
    world.host.follow_from("lost-key", 0);
    world.calls(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_come_back_is_found_lost_and_its_log_closed_elsewhere() {
    let setup = Setup { evidence: "  heartbeat: 1s\n".into(), ..Setup::default() };
    let (mut world, _deployment, registrar, _closing) = registered(setup).await;
    world.calls(2).await;
    world.host.signal("gateway", Signal::KILL);
    let found = world.dir.path().join("found");
    std::fs::rename(world.dir.path().join("journal"), &found).expect("the disk is found");
    world.host.set("FOUND", text(&found));
    registrar.until("the log to be lost", || {
        registrar.metrics().contains("gateway_registrar_logs{gateway=\"gw1\",state=\"lost\"} 1")
    });
    world.host.follow_from("lost-log", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_that_look_show_what_they_say_where_nothing_is_wrong() {
    let (world, _deployment, _registrar, _closing) = registered(Setup::default()).await;
    world.calls(2).await;
    for anchor in LOOKS {
        world.host.follow_from(anchor, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs strace, and the right to trace; the test command runs it"]
async fn a_disk_whose_syncs_fail_ends_with_a_restart() {
    let world = World::start(Setup::default()).await;
    world.calls(2).await;
    let failing = world.failing_disk();
    world.refused("journal_failed").await;
    world.host.follow("fsync-error", 0..1);
    drop(failing);
    world.host.follow_from("fsync-error", 1);
    world.calls(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs strace, and the right to trace; the test command runs it"]
async fn what_passed_unrecorded_is_counted_and_the_auditor_says_so() {
    let world = World::start(Setup { route: "    fail_mode: open\n".into(), ..Setup::default() }).await;
    world.calls(2).await;
    let failing = world.failing_disk();
    world.calls(3).await;
    assert!(world.metric("gateway_unrecorded_exchanges_total") >= 3.0);
    world.host.follow("unrecorded-traffic", 0..1);
    drop(failing);
    world.host.follow_from("unrecorded-traffic", 1);
    assert_eq!(world.metric("gateway_unrecorded_exchanges_untold"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root to mount a tmpfs; the test command runs it"]
async fn a_full_disk_passes_with_space() {
    let setup = Setup { evidence: "  segment: 2MiB\n".into(), ..Setup::default() };
    let world = World::prepare("disk", setup).await;
    let disk = world.dir.path().join("disk");
    std::fs::create_dir_all(&disk).expect("a mount point");
    let mounted = Mounted(disk.clone());
    mounted.mount("size=48m");
    world.host.start_gateway();
    world.calls(2).await;
    let filler = disk.join("somebody-elses");
    let fill = format!("dd if=/dev/zero of={} bs=64k", text(&filler));
    let filled = Command::new("bash").args(["-c", &fill]).stderr(Stdio::null()).status();
    assert!(filled.is_ok_and(|status| !status.success()), "the disk is full");
    world.refused("disk_full").await;
    assert_eq!(world.metric("gateway_evidence_unavailable{reason=\"disk_full\"}"), 1.0);
    assert!(world.metric("gateway_disk_free_bytes{folder=\"journal\"}") < 4e6);
    world.host.follow("disk-full", 0..1);
    mounted.mount("remount,size=400m");
    world.host.follow_from("disk-full", 1);
    world.calls(1).await;
    world.host.does("systemctl stop affidavit-gateway");
}
