//! A full disk refuses traffic before anything is lost, and traffic resumes when there is space.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

/// A small tmpfs; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&at).expect("a mount point");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&at)
            .status();
        assert!(done.is_ok_and(|s| s.success()), "mounting a tmpfs needs root");
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root to mount a tmpfs; the test command runs it"]
async fn a_full_disk_refuses_before_anything_is_lost_and_traffic_resumes_with_space() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SmallDisk::mount(dir.path().join("disk"), "48m");
    let provider = Provider::start([]).await;
    let setup = Setup {
        provider: provider.url(),
        evidence: "  segment: 2MiB\n".into(),
        evidence_dir: Some(disk.0.clone()),
        ..Setup::default()
    };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    let mut n = 0;
    let body = |n: u64| {
        // Incompressible, so that the store fills as well.
        let mut dice = tests::Dice::new(n + 1);
        let noise: String = (0..6000).map(|_| format!("{:016x}", dice.next())).collect();
        serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": format!("tag-{n}-end {noise}") }] }).to_string()
    };
    let start = Instant::now();
    while refused < 20 {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "the disk never filled: {} answers",
            acknowledged.len()
        );
        let got =
            send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body(n))).await;
        match got.status {
            200 => {
                assert!(got.whole);
                acknowledged.push((n, got));
            }
            503 => {
                assert!(got.header("retry-after").is_some(), "{:?}", got.headers);
                assert!(got.header("x-affidavit-reason").is_some(), "{:?}", got.headers);
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => std::panic::panic_any(format!("status {other}: {}\n{}", got.text(), gateway.log())),
        }
        n += 1;
    }
    let answered = acknowledged.len();
    assert_eq!(
        provider.seen().len(),
        answered,
        "a refused request reached the provider, or an answered one did not"
    );
    // Space comes back.
    let grown = Command::new("mount").args(["-o", "remount,size=400m"]).arg(&disk.0).status();
    assert!(grown.is_ok_and(|s| s.success()));
    let start = Instant::now();
    loop {
        let got =
            send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body(n))).await;
        n += 1;
        if got.status == 200 && got.whole {
            acknowledged.push((n - 1, got));
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "traffic did not resume:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    for (n, got) in &acknowledged {
        let id = got.exchange().expect("every answer names its exchange");
        assert_eq!(evidence.outcome(id).expect("an outcome")["end"], "complete");
        assert!(evidence.content(id, "client_request").is_some_and(|c| *c == body(*n).into_bytes()));
        assert!(evidence.content(id, "provider_response").is_some_and(|c| *c == got.body));
    }
    eprintln!(
        "{answered} answers until full, {refused} refused with 503, then {} more",
        acknowledged.len() - answered
    );
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
}
