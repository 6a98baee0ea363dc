//! `auditor report` and `check-report` as processes, over evidence that a real gateway wrote; and the page in Chromium.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::audited::{Evidence, auditor, path};

/// A folder with the gateway's objects, a state and reports.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        for (name, bytes) in &Evidence::shared().objects {
            let file = place.path("store").join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(file, bytes).expect("an object");
        }
        place
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// Writes a report with a state of its own; gives the exit code, what was printed, and the page.
    fn report(&self, state: &str, name: &str, more: &[&str]) -> (i32, String, String) {
        let (store, state, out) = (self.path("store"), self.path(state), self.path(name));
        let trust = &Evidence::shared().trust;
        let words =
            ["report", path(&store), "--trust", path(trust), "--state", path(&state), "--out", path(&out)];
        let (exit, told) = auditor(&[&words[..], more].concat());
        let page = std::fs::read_to_string(&out).unwrap_or_default();
        (exit, told.as_str().unwrap_or_default().to_owned(), page)
    }
    fn key(&self, state: &str) -> String {
        let told = auditor(&["report-key", "--state", path(&self.path(state))]).1;
        told.as_str().expect("a key").trim().to_owned()
    }
    fn check(&self, name: &str, key: &str) -> (i32, String) {
        let (exit, told) = auditor(&["check-report", path(&self.path(name)), "--key", key]);
        (exit, told.as_str().expect("text").to_owned())
    }
    fn data(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path(&format!("{name}.json"))).expect("the data");
        serde_json::from_str(&text).expect("JSON")
    }
}

#[test]
fn a_report_of_real_evidence_is_signed_and_any_change_of_it_is_found() {
    let place = Place::new();
    let to = ["--to", &Evidence::shared().to, "--pack", "soc2"];
    let (exit, told, page) = place.report("state", "report.html", &to);
    assert_eq!(exit, 1, "no policy is in force, and one control asks for it: {told}");
    assert!(told.starts_with("VERIFIED "), "{told}");
    for wanted in [
        "What was proven",
        "What to ask the operator next",
        "gpt-4o-mini",
        "cc6.1-callers",
        "met by evidence",
    ] {
        assert!(page.contains(wanted), "{wanted} not in\n{page}");
    }
    assert!(!page.contains("<script") && !page.to_lowercase().contains("compliant"));
    let data = place.data("report.html");
    assert_eq!(data["measured"]["became"]["complete"], 2, "{data:#}");
    let key = place.key("state");
    assert_eq!(place.check("report.html", &key).0, 0);
    let file = place.path("report.html");
    std::fs::write(&file, page.replacen("VERIFIED", "VERIFIED!", 1)).expect("a changed page");
    let (exit, told) = place.check("report.html", &key);
    assert!(exit == 1 && told.starts_with("INVALID") && told.contains("page: signed were"), "{told}");
    std::fs::write(&file, &page).expect("the page");
    let stranger = place.key("another");
    assert_eq!(place.check("report.html", &stranger).0, 1);
}

#[test]
fn two_reports_of_one_period_differ_in_nothing_but_the_time_of_the_check_and_the_key() {
    let place = Place::new();
    let to = ["--to", &Evidence::shared().to, "--pack", "soc2"];
    let pages = ["one", "two"].map(|state| {
        let name = format!("{state}.html");
        let page = place.report(state, &name, &to).2;
        let mut data = place.data(&name);
        let fields = data.as_object_mut().expect("an object");
        fields.remove("checked_at");
        fields.remove("signer");
        (page, data)
    });
    assert_eq!(pages[0].1, pages[1].1);
    // A period by its name bounds what is counted.
    let (_, told, page) = place.report("one", "early.html", &["--period", "2020-Q3"]);
    assert!(page.contains("2020-Q3 (2020-07-01 00:00:00 to 2020-10-01 00:00:00)"), "{told}");
    assert!(page.contains("No exchange began in the period."));
    assert_eq!(place.report("one", "bad.html", &["--period", "2020-Q5"]).0, 2);
}

#[test]
fn a_statement_says_verdict_and_ends_of_the_logs_under_the_same_key() {
    let place = Place::new();
    let (store, state, file) = (place.path("store"), place.path("state"), place.path("statement"));
    let evidence = Evidence::shared();
    let words = ["verify", path(&store), "--trust", path(&evidence.trust), "--state", path(&state)];
    let (exit, told) = auditor(&[&words[..], &["--to", &evidence.to, "--statement", path(&file)]].concat());
    assert_eq!(exit, 0, "{told}");
    let key = place.key("state");
    let (exit, told) = place.check("statement", &key);
    assert!(exit == 0 && told.contains("\nverdict VERIFIED\nclaim signed reached: signed\n"), "{told}");
    assert!(told.contains("\nlog test/gw1/") && told.contains(" root "), "{told}");
    let text = std::fs::read_to_string(&file).expect("a statement");
    std::fs::write(&file, text.replace("claim witnessed not reached", "claim witnessed reached"))
        .expect("a file");
    let (exit, told) = place.check("statement", &key);
    assert!(exit == 1 && told.starts_with("INVALID"), "{told}");
}

fn chromium(profile: &Path, more: &[&str]) -> String {
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .output()
        .expect("`chromium` in PATH");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A page that shows the report in frames of several widths and says how wide what is in them is.
const FRAME: &str = r#"<!DOCTYPE html><body><script>
for (const width of [1280, 390, 320]) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "800px"; frame.style.border = "0";
  frame.onload = () => {
    const root = frame.contentDocument.documentElement;
    const said = document.createElement("p");
    said.textContent = `width ${width}: ${root.scrollWidth} of ${root.clientWidth}, tables ${frame.contentDocument.querySelectorAll("table").length};`;
    document.body.append(said);
  };
  frame.src = "report.html";
  document.body.append(frame);
}
</script></body>"#;

#[test]
#[ignore = "needs Chromium"]
fn in_chromium_nothing_is_wider_than_the_screen_nothing_complains_and_it_prints() {
    let place = Place::new();
    let to = ["--to", &Evidence::shared().to, "--pack", "all"];
    place.report("state", "report.html", &to);
    std::fs::write(place.path("frame.html"), FRAME).expect("a page");
    let url = |name: &str| format!("file://{}", path(&place.path(name)));
    let profile = place.path("profile");
    let dump = [
        "--allow-file-access-from-files",
        "--virtual-time-budget=20000",
        "--dump-dom",
        "--window-size=1400,900",
    ];
    let told = chromium(&profile, &[&dump[..], &[&url("frame.html")]].concat());
    for width in ["1280", "390", "320"] {
        let line = told.split(&format!("width {width}: ")).nth(1).and_then(|rest| rest.split(';').next());
        let line = line.unwrap_or_else(|| std::panic::panic_any(format!("no width {width} in {told}")));
        // A scroll bar takes its place from both.
        let (wide, rest) = line.split_once(" of ").expect("two widths");
        let (screen, tables) = rest.split_once(", tables ").expect("tables");
        assert_eq!(wide, screen, "at {width} px");
        assert!(tables.parse::<u32>().is_ok_and(|tables| tables > 20), "{line}");
        println!("at {width} px: {line}");
    }
    let pdf = place.path("report.pdf");
    let print = format!("--print-to-pdf={}", pdf.display());
    let log = chromium(
        &profile,
        &["--enable-logging=stderr", "--no-pdf-header-footer", &print, &url("report.html")],
    );
    assert!(!log.contains("CONSOLE"), "{log}");
    let pdf = std::fs::read(pdf).expect("a PDF");
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 50_000, "{} bytes", pdf.len());
    // 0 is dark, 1 is light: the same page in the colours that a reader's system asks for.
    let shots = ["0", "1"].map(|scheme| {
        let image = place.path(&format!("{scheme}.png"));
        let (shot, scheme) = (
            format!("--screenshot={}", image.display()),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        );
        chromium(&profile, &[&scheme, "--window-size=390,2000", &shot, &url("report.html")]);
        std::fs::read(image).expect("a picture")
    });
    assert!(shots.iter().all(|shot| shot.len() > 20_000));
    assert_ne!(shots[0], shots[1], "dark and light are the same");
}
