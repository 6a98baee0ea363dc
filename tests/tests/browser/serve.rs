//! `auditor serve` as a process over what a real gateway wrote: who it answers, what it says, and its pages in Chromium.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tests::audited::path;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::process::{Process, free_port};
use tests::provider::Provider;

const HOSTILE: &str = "</pre><script>document.title='taken'</script><img src=//evil.example/x>\u{202e}";

/// Evidence of a gateway that answered, and refused.
struct Written {
    dir: tempfile::TempDir,
    store: PathBuf,
    exchanges: Vec<String>,
}

fn written() -> &'static Written {
    static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
        let made = || tokio::runtime::Runtime::new().expect("a runtime").block_on(write());
        std::thread::spawn(made).join().expect("evidence")
    });
    &WRITTEN
}

async fn write() -> Written {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let mut exchanges = Vec::new();
    for n in 0..60 {
        let model = ["gpt-4o-mini", "gpt-4o", "<b>odd</b>"][n % 3];
        let body = serde_json::json!({
            "model": model,
            "messages": [{ "role": "user", "content": format!("{n} {HOSTILE}") }],
        });
        let mut call = Call::post("/openai/v1/chat/completions", &gateway.key, body.to_string());
        call = call.header("user-agent", HOSTILE.replace('\u{202e}', ""));
        let got = send(gateway.address, &call).await;
        exchanges.extend(got.exchange().map(str::to_owned));
    }
    assert_eq!(exchanges.len(), 60);
    let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", "afk_none", "{}")).await;
    assert_eq!(got.status, 401);
    exchanges.extend(got.exchange().map(str::to_owned));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    Written { store: gateway.store(), exchanges, dir }
}

/// A page that is served.
struct Served {
    address: SocketAddr,
    process: Process,
    log: PathBuf,
    dir: tempfile::TempDir,
}

struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Served {
    fn start(more: &[&str]) -> Self {
        let (written, dir) = (written(), tempfile::tempdir().expect("a folder"));
        let (address, log) = (free_port(), dir.path().join("log"));
        let mut command = Command::new(tests::binary("auditor"));
        command.args([
            "serve",
            path(&written.store),
            "--trust",
            path(&written.dir.path().join("trust.yaml")),
        ]);
        command
            .args(["--state", path(&dir.path().join("state")), "--listen", &address.to_string()])
            .args(more);
        let process = Process::listening(&mut command, &log, address);
        Self { address, process, log, dir }
    }
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
    fn raw(&self, request: &str) -> Got {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let _ = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Got { status, head: head.into(), body: body.into() }
    }
    fn ask(&self, method: &str, target: &str, headers: &str) -> Got {
        self.raw(&format!(
            "{method} {target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n",
            self.address
        ))
    }
    fn get(&self, target: &str) -> Got {
        self.ask("GET", target, "")
    }
    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }
}

#[test]
fn it_answers_what_is_asked_under_its_own_name_and_nothing_else() {
    let served = Served::start(&[]);
    let page = served.get("/");
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("What this page rests on") && page.body.contains("verdict"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-")
            && policy.contains("frame-ancestors 'none'")
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name), Some(value), "{}", page.head);
    }
    // Rebinding: the name of another site that resolves to this address.
    let other = |host: &str| served.raw(&format!("GET / HTTP/1.1\r\n{host}connection: close\r\n\r\n"));
    assert_eq!(other("host: evil.example\r\n").status, 421);
    assert_eq!(other(&format!("host: evil.example:{}\r\n", served.address.port())).status, 421);
    assert_eq!(other("").status, 400);
    assert_eq!(other(&format!("host: localhost:{}\r\n", served.address.port())).status, 200);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let got = served.ask(method, "/", "content-length: 0\r\n");
        assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert!(got.header("content-security-policy").is_some());
    }
    let head = served.ask("HEAD", "/exchanges", "");
    assert!(head.status == 200 && head.body.is_empty(), "{}", head.body);
    for (target, status) in [
        ("/none", 404),
        ("/exchange/1", 404),
        ("/exchange/01a1fc23-fcba-7aed-b09b-6a27f061fc4c", 404),
        ("/controls/none", 404),
        ("/../etc/passwd", 404),
        ("/exchanges?team=%zz", 400),
        ("/exchanges?nothing=1", 400),
        ("/exchanges?after=x", 400),
        ("/verify", 400),
    ] {
        assert_eq!(served.get(target).status, status, "{target}");
    }
    // Bytes that are no request end their connection only.
    for odd in
        ["\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}", &"x".repeat(100_000)]
    {
        let _ = served.raw(odd);
    }
    assert_eq!(served.get("/").status, 200);
    let long = format!("/exchanges?team={}", "x".repeat(60_000));
    assert!([0, 400, 414, 431].contains(&served.get(&long).status));
    assert_eq!(served.process.stop(), Some(0));
}

#[test]
fn exchanges_are_paged_filtered_told_and_exported() {
    let served = Served::start(&[]);
    let mut seen = BTreeSet::new();
    let mut target = "/exchanges?sort=dearest".to_owned();
    for pages in 1.. {
        let page = served.get(&target);
        assert_eq!(page.status, 200, "{target}: {}", page.body);
        let links = page.body.split("href=\"/exchange/").skip(1);
        let before = seen.len();
        seen.extend(links.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()));
        let links =
            page.body.split("<a href=\"").skip(1).map(|rest| rest.split("</a>").next().unwrap_or_default());
        let Some(next) = links.into_iter().find(|link| link.contains("rel=\"next\"")) else {
            assert_eq!(pages, 2, "60 exchanges are two pages");
            break;
        };
        assert_eq!(seen.len() - before, 50);
        target = next.split('"').next().unwrap_or_default().replace("&amp;", "&");
    }
    let known: BTreeSet<String> = written().exchanges.iter().cloned().collect();
    assert_eq!(seen, known);
    let some = served.get("/exchanges?consumer=tester&refused=no");
    assert!(some.body.contains("<strong>60 exchanges</strong>"), "{}", some.body);
    let file = served.get("/exchanges.csv?consumer=tester&refused=no");
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    let name = file.header("content-disposition").unwrap_or_default();
    assert!(name.starts_with("attachment; filename=\"exchanges-"), "{name}");
    assert_eq!(file.body.lines().filter(|line| line.starts_with("test/gw1/")).count(), 60, "{}", file.body);
    let story = served.get(&format!("/exchange/{}", written().exchanges[0]));
    assert!(
        story.status == 200 && story.body.contains("outcome") && story.body.contains("Content is not shown")
    );
    assert!(!story.body.contains("taken"), "content was shown");
    assert!(served.get("/cost").body.contains("By model"));
    let pack = served.get("/controls/soc2");
    assert!(pack.status == 200 && pack.body.contains("cc6.1-callers"));
}

#[test]
fn with_content_whoever_only_looks_whether_there_is_a_page_opens_none() {
    let table = written().dir.path().join("keytable");
    let served = Served::start(&["--key-table", path(&table), "--content", "--reason", "a test"]);
    let state = served.dir.path().join("state");
    let opened = |exchange: &str| {
        let mut command = Command::new(tests::binary("auditor"));
        let output = command.args(["access", "list", "--state", path(&state)]).output();
        let listed = String::from_utf8(output.expect("the auditor runs").stdout).expect("text");
        listed.matches(exchange).count()
    };
    let target = |n: usize| format!("/exchange/{}", written().exchanges[n]);
    for n in 0..3 {
        let head = served.ask("HEAD", &target(n), "");
        assert!(head.status == 200 && head.body.is_empty(), "{} {}", head.head, head.body);
        assert_eq!(opened(&written().exchanges[n]), 0, "looked for, and on record as shown");
    }
    // It says nothing of which exchanges there are, and another site's is refused as its GET is.
    assert_eq!(served.ask("HEAD", "/exchange/01a1fc23-fcba-7aed-b09b-6a27f061fc4c", "").status, 200);
    let others = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n";
    for method in ["HEAD", "GET"] {
        assert_eq!(served.ask(method, &target(0), others).status, 403, "{method}");
    }
    assert_eq!(opened(&written().exchanges[0]), 0);
    let shown = served.get(&target(1));
    assert!(shown.status == 200 && shown.body.contains("&lt;script&gt;"), "{}", shown.body);
    assert_eq!([0, 1, 2].map(|n| opened(&written().exchanges[n])), [0, 1, 0]);
    assert_eq!(served.process.stop(), Some(0));
}

#[test]
fn it_verifies_again_once_when_it_is_asked_on_the_page_itself() {
    let served = Served::start(&[]);
    let refused =
        served.ask("GET", "/verify?after=1", "sec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n");
    assert_eq!(refused.status, 403);
    assert_eq!(served.ask("HEAD", "/verify?after=1", "").status, 200);
    assert!(served.get("/").body.contains("/verify?after=1\""));
    let got = served.get("/verify?after=1");
    assert_eq!((got.status, got.header("location")), (303, Some("/")));
    for _ in 0..5 {
        served.get("/verify?after=1");
    }
    let begun = Instant::now();
    while !served.get("/").body.contains("/verify?after=2\"") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", served.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Whoever loads an old link again does nothing.
    served.get("/verify?after=1");
    std::thread::sleep(Duration::from_millis(300));
    assert!(served.get("/").body.contains("/verify?after=2\""));
    assert_eq!(served.log().matches("verified again").count(), 1, "{}", served.log());
    assert_eq!(served.process.stop(), Some(0));
}

#[test]
fn others_need_a_link_that_works_once() {
    let served = Served::start(&["--login"]);
    assert_eq!(served.get("/").status, 401);
    assert_eq!(served.get("/exchanges.csv").status, 401);
    assert_eq!(served.get("/login?token=0000").status, 401);
    // Whoever may not ask holds no connection, and one peer not all of them.
    let refused = served.raw(&format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", served.address));
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")), "{}", refused.head);
    let held: Vec<_> = (0..16).map(|_| TcpStream::connect(served.address).expect("a connection")).collect();
    assert_eq!(served.get("/").status, 0, "one more than a peer may have");
    drop(held);
    let begun = Instant::now();
    while served.get("/").status == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", served.log());
    }
    let link = |nth: usize| {
        let log = served.log();
        let at = log.split("/login?token=").nth(nth).unwrap_or_default();
        format!("/login?token={}", at.lines().next().unwrap_or_default())
    };
    let first = link(1);
    assert_eq!(served.ask("HEAD", &first, "").status, 200);
    let entered = served.get(&first);
    assert_eq!(entered.status, 303, "{}", entered.body);
    let cookie = entered.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap_or_default();
    assert_eq!(served.ask("GET", "/", &format!("cookie: {cookie}\r\n")).status, 200);
    assert_eq!(served.ask("GET", "/", &format!("cookie: {cookie}0\r\n")).status, 401);
    assert_eq!(served.get(&first).status, 401, "a link works twice");
    assert_eq!(served.get(&link(2)).status, 303);
    // Elsewhere than on loopback it does not listen unless somebody says how it is reached.
    let written = written();
    let (exit, told) = tests::audited::auditor(&[
        "serve",
        path(&written.store),
        "--trust",
        path(&written.dir.path().join("trust.yaml")),
        "--listen",
        "0.0.0.0:0",
    ]);
    assert!(exit == 2 && told.as_str().is_some_and(|told| told.contains("wanted `--origin URL`")), "{told}");
}

fn chromium(profile: &Path, more: &[&str]) -> String {
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .output()
        .expect("`chromium` in PATH");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What pages ask for by themselves, as Chromium's own log of its network says it.
fn asked_for(log: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(log).expect("a log of the network");
    let mut out = BTreeSet::new();
    for line in text.lines().filter(|line| line.contains("\"initiator\":\"http")) {
        let urls = line.split("\"url\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        out.extend(urls.map(str::to_owned));
    }
    out
}

#[test]
#[ignore = "needs Chromium"]
fn in_chromium_every_page_is_quiet_asks_for_nothing_and_fits_the_screen() {
    let table = written().dir.path().join("keytable");
    let served = Served::start(&["--key-table", path(&table), "--content", "--reason", "a test"]);
    let dir = tempfile::tempdir().expect("a folder");
    let profile = dir.path().join("profile");
    let exchange = format!("/exchange/{}", written().exchanges[1]);
    let pages = [
        "/",
        "/exchanges",
        &exchange,
        "/cost",
        "/controls",
        "/controls/soc2",
        "/exchanges?team=none",
        "/none",
    ];
    let mut frames = String::new();
    for (n, target) in pages.iter().enumerate() {
        let log = dir.path().join(format!("{n}.net"));
        let told = chromium(
            &profile,
            &[&format!("--log-net-log={}", log.display()), "--dump-dom", &served.url(target)],
        );
        assert!(!told.contains("CONSOLE"), "{target}: {told}");
        assert!(told.contains("<main id=\"main\">"), "{target}: {told}");
        let elsewhere: Vec<String> =
            asked_for(&log).into_iter().filter(|url| !url.starts_with(&served.url("/"))).collect();
        assert!(elsewhere.is_empty(), "{target}: {elsewhere:?}");
        for attribute in ["href=\"", "src=\"", "action=\""] {
            for value in told.split(attribute).skip(1) {
                assert!(
                    value.starts_with('/') || value.starts_with('#'),
                    "{target}: {attribute}{}",
                    &value[..40]
                );
            }
        }
        assert!(!told.contains("<title>taken"), "{target}");
        // Frames are refused by the server: what is measured is the same page from a file.
        let file = format!("{n}.html");
        std::fs::write(dir.path().join(&file), served.get(target).body).expect("a file");
        frames.push_str(&format!("\"{file}\","));
    }
    let story = served.get(&exchange).body;
    let state = served.dir.path().join("state");
    let listed =
        Command::new(tests::binary("auditor")).args(["access", "list", "--state", path(&state)]).output();
    let listed = String::from_utf8(listed.expect("the auditor runs").stdout).expect("text");
    assert!(listed.contains("a test") && listed.contains(&written().exchanges[1]), "{listed}");
    assert!(story.contains("&lt;script&gt;document.title=&#39;taken&#39;"), "{story}");
    measure(dir.path(), &profile, &frames, pages.len());
    for target in ["/", "/exchanges", &exchange, "/cost", "/controls/soc2"] {
        let shots = [("1280,1000", "1"), ("390,1600", "1"), ("390,1600", "0")].map(|(size, scheme)| {
            let image = dir.path().join("shot.png");
            let shot = format!("--screenshot={}", image.display());
            let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
            chromium(&profile, &[&scheme, &format!("--window-size={size}"), &shot, &served.url(target)]);
            std::fs::read(image).expect("a picture")
        });
        assert!(shots.iter().all(|shot| shot.len() > 15_000), "{target}: blank");
        assert_ne!(shots[1], shots[2], "{target}: dark and light are the same");
    }
    println!("{} pages, at three widths, light and dark", pages.len());
}

/// Says how wide pages are in frames of several widths.
fn measure(dir: &Path, profile: &Path, frames: &str, pages: usize) {
    let frame = format!(
        r#"<!DOCTYPE html><body><script>
for (const width of [1280, 390, 320]) for (const file of [{frames}]) {{
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "800px"; frame.style.border = "0";
  frame.onload = () => {{
    const root = frame.contentDocument.documentElement;
    const said = document.createElement("p");
    said.textContent = `width ${{width}} ${{file}}: ${{root.scrollWidth}} of ${{root.clientWidth}};`;
    document.body.append(said);
  }};
  frame.src = file;
  document.body.append(frame);
}}
</script></body>"#
    );
    std::fs::write(dir.join("frame.html"), frame).expect("a page");
    let url = format!("file://{}", path(&dir.join("frame.html")));
    let told = chromium(
        profile,
        &[
            "--allow-file-access-from-files",
            "--virtual-time-budget=20000",
            "--dump-dom",
            "--window-size=1400,900",
            &url,
        ],
    );
    let lines: Vec<&str> =
        told.split("<p>width ").skip(1).filter_map(|rest| rest.split(';').next()).collect();
    assert_eq!(lines.len(), pages * 3, "{told}");
    for line in lines {
        let (wide, screen) =
            line.split_once(": ").and_then(|(_, sizes)| sizes.split_once(" of ")).expect("two widths");
        assert_eq!(wide, screen, "{line}");
    }
}

#[test]
#[ignore = "needs Chromium"]
fn in_chromium_the_policy_stops_what_would_get_into_a_page() {
    let served = Served::start(&[]);
    let page = served.get("/");
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    let injected = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><style>main{display:none}</style>\
        <form action=//evil.example></form><base href=//evil.example/>";
    let body = page.body.replace("<main id=\"main\">", &format!("<main id=\"main\">{injected}"));
    assert_ne!(body, page.body);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-security-policy: {policy}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let told = chromium(&dir.path().join("profile"), &["--dump-dom", &format!("http://{address}/")]);
    assert!(told.contains("Content Security Policy"), "{told}");
    assert!(!told.contains("<title>taken"), "{told}");
}
