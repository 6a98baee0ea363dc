use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::entry::tests::leaf;
use super::*;

/// A push as it came: head in lower case, positions and time of its entries.
#[derive(Debug, Clone)]
struct Push {
    head: String,
    kind: String,
    entries: Vec<(u64, i64)>,
}

type Pushes = Arc<Mutex<Vec<Push>>>;

fn read(socket: &mut TcpStream) -> Option<Push> {
    let (mut seen, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        if let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..at]).to_lowercase();
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
            if seen.len() >= at + 4 + length {
                let mut text = String::new();
                flate2::read::GzDecoder::new(&seen[at + 4..]).read_to_string(&mut text).unwrap();
                return Some(parse(head, &serde_json::from_str(&text).unwrap()));
            }
        }
        match socket.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(n) => seen.extend_from_slice(&chunk[..n]),
        }
    }
}

fn parse(head: String, body: &Value) -> Push {
    let [stream] = body["streams"].as_array().unwrap().as_slice() else {
        panic!("one stream a push: {body}")
    };
    let entry = |value: &Value| {
        let position = value[2]["position"].as_str().unwrap().parse().unwrap();
        (position, value[0].as_str().unwrap().parse::<i64>().unwrap() / 1000)
    };
    let entries = stream["values"].as_array().unwrap().iter().map(entry).collect();
    Push { head, kind: stream["stream"]["kind"].as_str().unwrap().into(), entries }
}

/// A Loki that answers as `answer` says, with the sink that pushes there.
fn loki(answer: impl Fn(&Push) -> (u16, String) + Send + 'static) -> (Loki, Pushes) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/prefix", listener.local_addr().unwrap());
    let pushes = Pushes::default();
    let book = Arc::clone(&pushes);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            while let Some(push) = read(&mut socket) {
                let (status, body) = answer(&push);
                book.lock().unwrap().push(push);
                let length =
                    if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
                let text = format!("HTTP/1.1 {status} x\r\n{length}retry-after: 3\r\n\r\n{body}");
                socket.write_all(text.as_bytes()).unwrap();
            }
        }
    });
    let typed = TapLoki {
        url: crate::config::BaseUrl::parse(&url).unwrap(),
        tls: crate::config::ClientTls::default(),
        tenant: Some("team-a".into()),
        user: Some("gw1".into()),
        password: None,
        token: None,
        batch: 1 << 20,
        wait: Duration::from_secs(600),
        timeout: Duration::from_secs(5),
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let settings = Settings {
        name: "loki".into(),
        typed,
        password: Secret::new("geheim"),
        token: None,
        tls: Arc::new(tls),
        figures: Arc::default(),
    };
    (Loki::new(settings), pushes)
}

fn taken() -> (u16, String) {
    (204, String::new())
}

fn refusals(from: u64, to: u64) -> Vec<TapItem> {
    let at = |position: u64| i64::try_from(position).unwrap() * 1_000_000;
    (from..to).map(|n| leaf(n, "refusal", at(n), json!({ "reason": "draining" }))).collect()
}

fn positions(pushes: &Pushes) -> Vec<Vec<u64>> {
    let pushes = pushes.lock().unwrap();
    pushes.iter().map(|push| push.entries.iter().map(|(position, _)| *position).collect()).collect()
}

fn passed_by(sink: &Loki) -> Vec<(&'static str, u64)> {
    sink.settings.figures.counts().passed_by.into_iter().collect()
}

#[test]
fn entries_wait_for_others_and_go_out_by_stream_with_tenant_and_password() {
    let (mut sink, pushes) = loki(|_| taken());
    let stop = Stop::default();
    assert!(sink.confirm(false, &stop).unwrap(), "nothing waits");
    sink.send(&refusals(0, 3), &stop).unwrap();
    sink.send(&[leaf(3, "heartbeat", 3_000_000, json!({}))], &stop).unwrap();
    assert!(!sink.confirm(false, &stop).unwrap());
    assert!(pushes.lock().unwrap().is_empty());
    assert!(sink.confirm(true, &stop).unwrap());
    let book = pushes.lock().unwrap().clone();
    let came: Vec<_> = book.iter().map(|push| (push.kind.as_str(), push.entries.len())).collect();
    assert_eq!(came, [("heartbeat", 1), ("refusal", 3)]);
    for header in [
        "post /prefix/loki/api/v1/push ",
        "x-scope-orgid: team-a",
        "content-encoding: gzip",
        "content-type: application/json",
        // printf gw1:geheim | base64, in lower case
        "authorization: basic z3cxomdlagvpbq==",
    ] {
        assert!(book[0].head.contains(header), "{header}: {}", book[0].head);
    }
}

#[test]
fn what_is_over_the_bound_goes_at_once_and_what_waited_long_enough_too() {
    let (mut sink, pushes) = loki(|_| taken());
    sink.settings.typed.batch = 1000;
    sink.send(&refusals(0, 30), &Stop::default()).unwrap();
    assert_eq!(pushes.lock().unwrap().len(), 1);
    assert!(sink.confirm(false, &Stop::default()).unwrap(), "all of it is acknowledged");
    sink.settings.typed.wait = Duration::ZERO;
    sink.send(&refusals(30, 31), &Stop::default()).unwrap();
    assert!(sink.confirm(false, &Stop::default()).unwrap());
    assert_eq!(positions(&pushes)[1], [30]);
}

#[test]
fn what_is_too_old_is_passed_by_once_and_all_else_is_taken() {
    let (mut sink, pushes) = loki(|push| {
        let old = push.entries.iter().any(|(_, at_us)| *at_us < 7_500_000);
        // 7 s and a half: Loki tells whole seconds.
        let said = "entry for stream '{}' has timestamp too old: x, oldest acceptable timestamp is: 1970-01-01T00:00:07Z";
        if old { (400, said.into()) } else { taken() }
    });
    sink.send(&refusals(0, 20), &Stop::default()).unwrap();
    assert!(sink.confirm(true, &Stop::default()).unwrap());
    assert_eq!(passed_by(&sink), [("too_old", 8)]);
    let last: Vec<u64> = positions(&pushes).into_iter().flatten().filter(|n| *n > 7).collect();
    assert!((8..20).all(|n| last.contains(&n)), "{last:?}");
    assert!(pushes.lock().unwrap().len() < 12, "{:?}", positions(&pushes));
}

#[test]
fn one_entry_that_is_refused_for_an_unknown_reason_keeps_no_other() {
    let (mut sink, pushes) = loki(|push| {
        let bad = push.entries.iter().any(|(position, _)| *position == 5);
        if bad { (400, "no idea".into()) } else { taken() }
    });
    sink.send(&refusals(0, 16), &Stop::default()).unwrap();
    assert!(sink.confirm(true, &Stop::default()).unwrap());
    assert_eq!(passed_by(&sink), [("other", 1)]);
    let order: Vec<u64> =
        positions(&pushes).into_iter().filter(|push| !push.contains(&5)).flatten().collect();
    assert_eq!(order, (0..16).filter(|n| *n != 5).collect::<Vec<_>>(), "in their order");
}

#[test]
fn where_nothing_is_taken_it_is_not_the_entries_and_they_are_kept() {
    let (mut sink, pushes) = loki(|_| (400, "structured metadata is disallowed".into()));
    sink.send(&refusals(0, 64), &Stop::default()).unwrap();
    let error = sink.confirm(true, &Stop::default()).unwrap_err();
    assert_eq!(error.reason, "refused");
    assert!(error.detail.contains("disallowed"), "{}", error.detail);
    assert!(pushes.lock().unwrap().len() < 20);
    sink.reset();
    sink.send(&refusals(0, 1), &Stop::default()).unwrap();
    assert!(sink.confirm(true, &Stop::default()).is_err(), "nor is a single one passed by");
    assert_eq!(passed_by(&sink), []);
}

#[test]
fn pushes_get_smaller_where_they_do_not_get_through_and_nothing_is_counted_twice() {
    let (mut sink, pushes) = loki(|push| match push.entries.len() {
        _ if push.entries.iter().any(|(position, _)| *position == 9) => (413, String::new()),
        0..=4 => taken(),
        5..=8 => (429, "ingestion rate limit exceeded".into()),
        _ => (413, String::new()),
    });
    let (mut tries, mut waited) = (0, 0);
    loop {
        sink.send(&refusals(0, 20), &Stop::default()).unwrap();
        match sink.confirm(true, &Stop::default()) {
            Ok(confirmed) => break assert!(confirmed),
            Err(error) => {
                assert_eq!((error.reason, error.retry_after), ("throttled", Some(Duration::from_secs(3))));
                waited += 1;
                sink.reset();
            }
        }
        tries += 1;
        assert!(tries < 20, "{:?}", positions(&pushes));
    }
    assert!(waited > 0);
    assert_eq!(passed_by(&sink), [("too_large", 1)]);
}
