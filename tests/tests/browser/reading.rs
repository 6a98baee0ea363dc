//! `auditor/READING.md`: its words are those that the auditor prints, and its pictures show what pages look like.
//!
//! `BLESS=1` with the suite `browser` makes the pictures in `auditor/pictures` anew.

#![allow(clippy::panic, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use auditor::finding::CODES;
use auditor::mandate::{CLAIMS, Claim};
use auditor::paper::Data;
use auditor::paper::summary::{Summary, summary, verdict};
use auditor::report::Verdict;
use serde_json::Value;
use tests::audited::{auditor, path};
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::png::{Picture, size};
use tests::process::{Process, free_port, ran};
use tests::provider::Provider;

/// Three consumers' calls to four models, of which one is unknown to the price book, one fails; and one refusal.
struct Written {
    dir: tempfile::TempDir,
    store: PathBuf,
}

impl Written {
    fn shared() -> &'static Self {
        static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
            let made = || tokio::runtime::Runtime::new().expect("a runtime").block_on(write());
            std::thread::spawn(made).join().expect("evidence")
        });
        &WRITTEN
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// A copy of the store in which one byte of a file of records is another.
    fn changed(&self, to: &Path) {
        tests::copy(&self.store, to);
        let mut folders = vec![to.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let file = entry.expect("an entry").path();
                if file.is_dir() {
                    folders.push(file);
                } else if path(&file).ends_with(".records.parquet") {
                    let mut bytes = std::fs::read(&file).expect("records");
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    return std::fs::write(file, bytes).expect("changed records");
                }
            }
        }
        panic!("no file of records")
    }
}

async fn write() -> Written {
    let dir = tempfile::Builder::new().prefix("review-").tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { deployment: "acme".into(), provider: provider.url(), ..Setup::default() };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let mut keys = vec![gateway.key.clone()];
    for (consumer, team) in [("helpdesk", "support"), ("contracts", "legal")] {
        let mut issue = Command::new(tests::binary("gateway"));
        issue.args(["keys", "issue", "--file"]).arg(dir.path().join("keys.yaml"));
        let told = ran(issue.args(["--consumer", consumer, "--team", team, "--cost-centre", "cc-2"]));
        let key = told.split_whitespace().find(|word| word.starts_with("afk_")).expect("a key");
        keys.push(key.to_owned());
    }
    gateway.serve();
    for n in 0..12 {
        let model = ["gpt-4o-mini", "gpt-4o", "house-7b", "fail-429"][n % 4];
        let question = format!("Question {n}: what does the contract say about notice?");
        let body = serde_json::json!({ "model": model, "user": format!("{n}"), "messages": [{ "role": "user", "content": question }] });
        let call = Call::post("/openai/v1/chat/completions", &keys[n % 3], body.to_string());
        let got = send(gateway.address, &call).await;
        assert_eq!(got.status, if model == "fail-429" { 429 } else { 200 }, "{}", got.text());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", "afk_none", "{}")).await;
    assert_eq!(got.status, 401);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    Written { store: gateway.store(), dir }
}

/// The rows of the table of READING that is headed by `first`.
fn table(first: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(tests::root().join("auditor/READING.md")).expect("READING.md");
    let head = format!("| {first} |");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&head));
    assert!(lines.next().is_some(), "no table headed `{first}`");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The words in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether a text is what `pattern` says, whose `…` stand for anything.
fn says(pattern: &str, text: &str) -> bool {
    let (mut parts, mut rest) = (pattern.split('…').peekable(), text);
    if let Some(first) = parts.next() {
        let Some(after) = rest.strip_prefix(first) else { return false };
        rest = after;
        if parts.peek().is_none() {
            return rest.is_empty();
        }
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    true
}

/// The texts of claims that the auditor's code holds, a `…` for each gap: not all are reached by the runs below.
fn texts_of_the_code() -> Vec<String> {
    let files = ["verify/mod.rs", "bucket/claim.rs", "reconcile/result.rs"];
    let code = files.map(|file| {
        std::fs::read_to_string(tests::root().join("auditor/src").join(file)).expect("the auditor's code")
    });
    let texts = code.iter().flat_map(|code| code.split('"').skip(1));
    texts
        .map(|text| {
            let mut pieces = text.split('{');
            let mut out = pieces.next().unwrap_or_default().to_owned();
            for piece in pieces {
                let rest = piece.split_once('}').map_or(piece, |(_, rest)| rest);
                out.push('…');
                out.push_str(rest);
            }
            out
        })
        .collect()
}

/// What the report says of a claim by itself, of which the verification says `text`.
fn told(data: &Data, claim: Claim, reached: bool, text: &str) -> Summary {
    let mut data = data.clone();
    data.claims.retain(|line| line.claim == claim.as_str());
    assert_eq!(data.claims.len(), 1, "{}", claim.as_str());
    data.claims[0].reached = reached;
    text.clone_into(&mut data.claims[0].text);
    data.looked.batches = 0;
    data.gateways.clear();
    data.findings.clear();
    data.packs.clear();
    data.measured.spent.clear();
    data.measured.unpriced = 0;
    summary(&data)
}

/// A report up to the newest record: until when a gateway that stopped asserts that nothing came, nobody knows.
fn report(name: &str) -> (String, Data) {
    let written = Written::shared();
    let (state, out, trust) = (written.path("reporter"), written.path(name), written.path("trust.yaml"));
    let store = [path(&written.store), "--trust", path(&trust)];
    let known = written.path("known");
    let seen = auditor(&[&["verify"], &store[..], &["--state", path(&known), "--format", "json"]].concat()).1;
    let to = seen["gateways"][0]["proven"]["to"].as_i64().expect("something is proven");
    let to = jiff::Timestamp::from_microsecond(to).expect("a time").to_string();
    let more = ["--pack", "soc2", "--to", &to, "--state", path(&state), "--out", path(&out)];
    let (_, told) = auditor(&[&["report"], &store[..], &more].concat());
    let page = std::fs::read_to_string(&out).unwrap_or_else(|_| panic!("{told}"));
    let data = std::fs::read_to_string(written.path(&format!("{name}.json"))).expect("the data");
    (page, serde_json::from_str(&data).expect("the data of a report"))
}

/// Claims of a first visit, of a second, of one with the content's keys, and of a store that was changed.
fn claims_of_visits() -> Vec<Value> {
    let written = Written::shared();
    let changed = written.path("changed");
    written.changed(&changed);
    let (trust, state, keys) = (written.path("trust.yaml"), written.path("state"), written.path("keytable"));
    let visit = |store: &Path, more: &[&str]| {
        let words = ["verify", path(store), "--trust", path(&trust), "--state", path(&state)];
        let report = auditor(&[&words[..], &["--format", "json"], more].concat()).1;
        report["claims"].as_array().unwrap_or_else(|| panic!("no claims: {report}")).clone()
    };
    [
        visit(&written.store, &[]),
        visit(&written.store, &[]),
        visit(&written.store, &["--key-table", path(&keys)]),
        visit(&changed, &[]),
    ]
    .concat()
}

#[test]
fn reading_explains_every_claim_in_the_words_of_the_first_line_and_of_the_report() {
    let (_, data) = report("words.html");
    let (reached, open) = (table("Reached"), table("Not reached"));
    // Of history there are three ways not to know it.
    let ways = |claim: Claim| if claim == Claim::AppendOnly { 3 } else { 1 };
    assert_eq!(reached.len(), CLAIMS.len());
    assert_eq!(open.len(), CLAIMS.into_iter().map(ways).sum::<usize>());
    let mut open = open.iter();
    let code = texts_of_the_code();
    let seen = claims_of_visits();
    let texts = |claim: Claim, reached: bool| {
        let of = seen.iter().filter(move |state| state["claim"] == claim.as_str());
        of.filter(move |state| state["reached"] == reached).map(|state| state["text"].as_str().expect("text"))
    };
    let mut printed = 0;
    for (n, line) in data.claims.iter().enumerate() {
        let claim = CLAIMS.into_iter().find(|claim| claim.as_str() == line.claim).expect("a claim");
        let proven = told(&data, claim, true, "");
        assert_eq!(reached[n][1..], proven.proven[..], "{}", line.claim);
        let open: Vec<_> = open.by_ref().take(ways(claim)).collect();
        for row in &open {
            for word in quoted(&row[0]) {
                let not = told(&data, claim, false, word);
                assert_eq!(row[1..], [not.open[0].clone(), not.ask[0].clone()], "{word}");
            }
        }
        for (rows, reached) in [(vec![&reached[n]], true), (open, false)] {
            let words: Vec<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
            assert!(!words.is_empty(), "{rows:?}");
            for word in &words {
                let known = texts(claim, reached).any(|text| says(word, text))
                    || code.iter().any(|text| says(word, text));
                assert!(known, "the auditor never says `{word}`");
            }
            for text in texts(claim, reached) {
                assert!(words.iter().any(|word| says(word, text)), "not explained: `{text}`");
                printed += 1;
            }
        }
    }
    assert_eq!(printed, 4 * CLAIMS.len());
    println!("{printed} texts of claims, as printed in four visits, are explained");
}

#[test]
fn reading_explains_every_verdict() {
    let mut verdicts: Vec<Verdict> = CODES.iter().map(|code| code.effect().into()).collect();
    verdicts.sort();
    verdicts.dedup();
    let rows = table("Verdict");
    let wanted: Vec<Vec<String>> = verdicts
        .iter()
        .map(|of| {
            vec![format!("`{}`", of.as_str()), of.exit_code().to_string(), verdict(of.as_str()).to_owned()]
        })
        .collect();
    assert_eq!(rows, wanted);
}

fn get(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
        .expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{target}: {head}");
    body.to_owned()
}

/// What is pictured: the name, the page, what it must say, and up to the end of what it is shown.
fn pages() -> Vec<(&'static str, String, &'static str, &'static str)> {
    let written = Written::shared();
    let address = free_port();
    let (trust, state) = (written.path("trust.yaml"), written.path("server"));
    let mut serve = Command::new(tests::binary("auditor"));
    serve.args(["serve", path(&written.store), "--trust", path(&trust), "--state", path(&state)]);
    serve.args(["--listen", &address.to_string()]);
    let process = Process::listening(&mut serve, &written.path("serve.log"), address);
    let out = vec![
        ("report", report("report.html").0, "What to ask the operator next", "#summary"),
        ("evidence", get(address, "/"), "NOT witnessed", "#claims"),
        ("exchanges", get(address, "/exchanges"), "contracts", "main table"),
        ("controls", get(address, "/controls/soc2"), "cc6.1-callers", "main table"),
    ];
    assert_eq!(process.stop(), Some(0));
    out
}

fn chromium(profile: &Path, more: &[&str]) -> String {
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args([
            "--hide-scrollbars",
            "--blink-settings=preferredColorScheme=1",
            "--force-device-scale-factor=1",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .output()
        .expect("`chromium` in PATH");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How far down `selector` goes in a page of 1280 px.
fn height(dir: &Path, file: &str, selector: &str) -> usize {
    let frame = format!(
        r#"<!DOCTYPE html><body><script>
const frame = document.createElement("iframe");
frame.style.width = "1280px"; frame.style.height = "800px"; frame.style.border = "0";
frame.onload = () => {{
  const said = document.createElement("p");
  const shown = frame.contentDocument.querySelector("{selector}");
  said.textContent = `down to ${{Math.ceil(shown.getBoundingClientRect().bottom)}};`;
  document.body.append(said);
}};
frame.src = "{file}";
document.body.append(frame);
</script></body>"#
    );
    std::fs::write(dir.join("frame.html"), frame).expect("a page");
    let url = format!("file://{}", path(&dir.join("frame.html")));
    let flags = ["--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom"];
    let told =
        chromium(&dir.join("profile"), &[&flags[..], &["--window-size=1400,900", url.as_str()]].concat());
    let down = told.split("<p>down to ").nth(1).and_then(|rest| rest.split(';').next());
    down.and_then(|down| down.parse().ok()).unwrap_or_else(|| panic!("{file} has no `{selector}`: {told}"))
}

#[test]
#[ignore = "needs Chromium"]
fn in_chromium_pages_have_the_form_of_their_pictures_in_reading() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(tests::root().join("auditor/READING.md")).expect("READING.md");
    let kept = tests::root().join("auditor/pictures");
    let mut named = Vec::new();
    for (name, page, must, selector) in pages() {
        assert!(page.contains(must), "{name}: {must} not in\n{page}");
        let file = format!("{name}.html");
        std::fs::write(dir.path().join(&file), page).expect("a page");
        let down = height(dir.path(), &file, selector) + 2;
        let shot = dir.path().join(format!("{name}.png"));
        let url = format!("file://{}", path(&dir.path().join(&file)));
        let flags = [format!("--window-size=1280,{down}"), format!("--screenshot={}", shot.display()), url];
        chromium(&dir.path().join("profile"), &flags.each_ref().map(String::as_str));
        let made = Picture::read(&std::fs::read(&shot).expect("a picture"));
        assert_eq!((made.width, made.height), (1280, down), "{name}");
        assert!(made.inked() > 20, "{name} is blank: {} of 1000 pixels", made.inked());
        let (small, picture) = (made.small(), kept.join(format!("{name}.png")));
        assert!(small.len() < 120_000, "{name}: {} bytes", small.len());
        if std::env::var("BLESS").is_ok_and(|bless| bless == "1") {
            std::fs::create_dir_all(&kept).expect("a folder");
            std::fs::write(&picture, small).expect("the picture in the docs");
        }
        let shown = std::fs::read(&picture).expect("the picture in the docs; `BLESS=1` makes it");
        let (wide, high) = size(&shown);
        // An eighth: other fonts.
        let like = wide == 1280 && high.abs_diff(down) <= high / 8;
        assert!(
            like,
            "{name} is {down} px high, in the docs {high}: look at it, and make it anew (`BLESS=1`)"
        );
        assert!(text.contains(&format!("(pictures/{name}.png)")), "{name} is not in READING.md");
        named.push(format!("{name} {wide}x{high}, {} kB", shown.len() / 1000));
    }
    let files = std::fs::read_dir(kept).expect("pictures").count();
    assert_eq!(files, named.len(), "a picture that no page has");
    println!("{}", named.join("; "));
}
