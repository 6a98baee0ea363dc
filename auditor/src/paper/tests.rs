use std::collections::BTreeMap;

use schemas::Sha256Hex;
use schemas::note::{Ed25519Signer, Signer as _, VerifyingKey};

use super::chart::{Unit, bars};
use super::data::*;
use super::html::{Html, number, time};
use super::key::{self, ReportKey};
use super::page::page;
use super::signed;
use super::summary::summary;
use super::volumes::{Cost, Costs, Measured, Spent, Volume, Volumes};
use crate::decimal::Decimal;
use crate::time::DAY;

const HOSTILE: &str = "</title><script>alert(1)</script>\"'&<img src=x onerror=y>\u{202e}\u{1b}[31m";

fn report_key() -> ReportKey {
    let signer = Ed25519Signer::from_seed([5; 32]);
    ReportKey { verifier: VerifyingKey::new("reviewer", signer.public_key()).unwrap(), signer }
}

/// A report in which every text that comes from outside is `text`.
fn data(text: &str) -> Data {
    let text = || text.to_owned();
    let head = HeadLine {
        origin: text(),
        size: 7,
        root: Sha256Hex([1; 32]),
        seal: Sha256Hex([2; 32]),
        sealed_at: DAY,
    };
    let control = |id: &str, became, exceptions| ControlLine {
        id: id.into(),
        title: text(),
        rule: text(),
        read: false,
        on: "2026-11-21".into(),
        asks: text(),
        became,
        why: (became == Became::NotJudged).then(text),
        population: Some(1_234_567),
        exceptions,
        columns: vec![text(), "exchange".into()],
        rows: if exceptions > 0 { vec![vec![Some(text()), None]] } else { Vec::new() },
        rests: text(),
        supports: text(),
        leaves_open: text(),
        fails: text(),
        question_sha256: Sha256Hex([3; 32]),
    };
    let span = Span { from: 0, to: 90 * DAY };
    Data {
        v: VERSION,
        auditor: env!("CARGO_PKG_VERSION").into(),
        signer: report_key().verifier.to_string(),
        deployment: text(),
        store: text(),
        trust_fingerprint: text(),
        checked_at: 91 * DAY + 1,
        period_name: Some(text()),
        period: span,
        asked_to: Some(120 * DAY),
        verdict: "INCOMPLETE".into(),
        claims: [
            "signed",
            "append_only",
            "content",
            "witnessed",
            "timestamped",
            "retention_enforced",
            "reconciled",
        ]
        .map(|claim| ClaimLine { claim: claim.into(), reached: claim == "signed", text: text() })
        .to_vec(),
        gateways: vec![GatewayLine {
            gateway: text(),
            asked: Some(span),
            proven: Some(Span { from: DAY, to: 80 * DAY }),
            silences: vec![Span { from: 80 * DAY, to: 81 * DAY }],
            exposed_from: Some(80 * DAY),
            closed: false,
            logs: vec![LogLine {
                origin: text(),
                records: 7,
                batches: 2,
                proven: vec![Span { from: DAY, to: 80 * DAY }],
                closed: Some(text()),
                open_exchanges: 1,
                consistent_since: None,
            }],
        }],
        heads: vec![head.clone()],
        registry: Some(head),
        bucket: vec![text()],
        looked: Looked { records: 7, batches: 2, ..Looked::default() },
        findings: vec![FindingLine {
            code: text(),
            severity: "high".into(),
            note: false,
            place: text(),
            expected: text(),
            found: text(),
            hint: text(),
        }],
        finding_counts: BTreeMap::from([(text(), 300)]),
        not_checked: vec![text()],
        not_judged: BTreeMap::from([(text(), 2)]),
        measured: Measured {
            became: BTreeMap::from([(text(), 3)]),
            days: vec![(DAY, 2), (3 * DAY, 1)],
            volumes: vec![Volumes {
                by: "model".into(),
                rows: vec![Volume { name: Some(text()), exchanges: 3, ..Volume::default() }],
                more: true,
            }],
            spent: BTreeMap::from([(
                text(),
                Spent { exchanges: 1, cost: Decimal(5), not_final_cost: Decimal(0) },
            )]),
            unpriced: 5,
            no_usage: 2,
            cost_days: vec![(DAY, text(), Decimal(5))],
            costs: vec![Costs {
                by: "team".into(),
                rows: vec![Cost { name: Some(text()), currency: Some(text()), ..Cost::default() }],
                more: false,
            }],
            questions: BTreeMap::from([(text(), Sha256Hex([4; 32]))]),
        },
        registers: vec![RegisterLine { name: text(), file: text(), rows: 1, sha256: Sha256Hex([5; 32]) }],
        exceptions_file: Some(text()),
        packs: vec![PackLine {
            name: text(),
            title: text(),
            about: text(),
            from: text(),
            sha256: Sha256Hex([6; 32]),
            settings: BTreeMap::from([(text(), text())]),
            controls: vec![
                control("one", Became::Met, 0),
                control("two", Became::Exceptions, 40),
                control("three", Became::NotJudged, 0),
                control("four", Became::Stated, 0),
            ],
            cannot_show: vec![Cannot { article: text(), why: text() }],
        }],
    }
}

/// Every tag of a page, without what stands between them.
fn tags(page: &str) -> Vec<&str> {
    let body = page.split_once("</style>").unwrap().1;
    body.split('<').skip(1).map(|rest| rest.split(['>', ' ']).next().unwrap()).collect()
}

#[test]
fn hostile_text_stays_text_wherever_it_stands() {
    let (hostile, plain) = (page(&data(HOSTILE)), page(&data("plain")));
    assert_eq!(tags(&hostile), tags(&plain));
    for never in ["<script", "<img", "onerror=y>", "\u{202e}", "\u{1b}", "javascript:"] {
        assert!(!hostile.contains(never), "{never}");
    }
    assert!(hostile.matches("&lt;script&gt;").count() > 50);
    assert!(plain.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    for never in ["<script", "http://", "https://", " style=", " onload", "url(", "@import"] {
        assert!(!plain.contains(never), "{never}");
    }
    let mut html = Html::default();
    html.element("p", &[("title", "a\"b'<>&")], "a\"b'<>&\u{202e}");
    assert_eq!(
        html.finish(),
        "<p title=\"a&quot;b&#39;&lt;&gt;&amp;\">a&quot;b&#39;&lt;&gt;&amp;\\u{202e}</p></body>\n</html>\n"
    );
}

#[test]
fn the_same_data_gives_the_same_bytes_also_when_it_was_read_back() {
    let first = data("plain");
    let read: Data = serde_json::from_str(&first.json().unwrap()).unwrap();
    assert_eq!(read, first);
    assert_eq!(page(&read), page(&first));
    assert!(page(&first).contains(", asked to 1970-05-01 00:00:00: cut at"));
    let over = Data { asked_to: None, ..data("plain") };
    assert!(!over.json().unwrap().contains("asked_to") && !page(&over).contains("asked to"));
    assert_eq!(serde_json::from_str::<Data>(&over.json().unwrap()).unwrap(), over);
    let hostile = data(HOSTILE);
    assert_eq!(serde_json::from_str::<Data>(&hostile.json().unwrap()).unwrap(), hostile);
}

#[test]
fn the_top_says_what_was_proven_what_not_and_what_to_ask() {
    let top = summary(&data("plain"));
    let has = |list: &[String], text: &str| {
        assert!(list.iter().any(|line| line.contains(text)), "{text}: {list:#?}")
    };
    has(&top.proven, "7 records in 2 batches of 1 log");
    has(&top.proven, "1 control with something to look at and no exception: one.");
    has(&top.open, "Finding plain (300 times)");
    has(&top.open, "records after 1970-03-22 00:00:00 could be cut off");
    has(&top.open, "Control two: 40 exceptions.");
    has(&top.open, "1 control not judged: three.");
    has(&top.open, "What 3 answers with usage cost: the price book has no price");
    has(&top.open, "What 2 answers with unknown usage cost");
    has(&top.ask, "Which prices apply to the 3 answers without one?");
    has(&top.ask, "usage exports");
    has(&top.ask, "To judge three: plain.");
    let text = page(&data("plain"));
    assert!(text.contains("3 answers with usage have no price, 2 have unknown usage."), "{text}");
    let text = text.to_lowercase();
    let text = text.split_once("</style>").unwrap().1;
    for never in ["compliant", "compliance with", "tamper-proof", "guarantee", "certif"] {
        assert!(!text.contains(never), "{never}");
    }
    assert_eq!(text.matches("utc").count(), 1);
}

#[test]
fn bars_are_whole_units_and_lose_nothing() {
    let days = [(0, 1_u128), (DAY, 2), (40 * DAY, 3)];
    let sum = |bars: &[(i64, u128)]| bars.iter().map(|bar| bar.1).sum::<u128>();
    for (length, unit, wanted) in
        [(41, Unit::Day, 41), (92, Unit::Week, 14), (800, Unit::Month, 27), (9000, Unit::Year, 1)]
    {
        let period = Span { from: 0, to: length * DAY };
        assert_eq!(Unit::of(period), unit);
        let bars = bars(period, days.into_iter());
        assert_eq!((bars.len(), sum(&bars)), (wanted, 6), "{unit:?}");
        assert!(bars.is_sorted_by(|a, b| a.0 < b.0));
    }
    let hostile = Span { from: i64::MIN, to: i64::MAX };
    assert!(bars(hostile, std::iter::empty()).len() <= 400);
    assert_eq!(
        (number(1_234_567), number(12), time(1)),
        ("1,234,567".into(), "12".into(), "1970-01-01 00:00:00".into())
    );
}

#[test]
fn a_changed_page_data_or_signature_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let key = report_key();
    signed::write(&path, &data("plain"), &key).unwrap();
    let read = |path| std::fs::read(path).unwrap();
    let (page, json, note) =
        (read(path.clone()), read(signed::data_path(&path)), read(signed::note_path(&path)));
    let sound = signed::check(&page, &json, &note, &key.verifier);
    assert_eq!((sound.wrong.len(), sound.open.len()), (0, 0), "{sound:?}");
    let with = |bytes: &[u8]| [bytes, b" "].concat();
    assert!(!signed::check(&with(&page), &json, &note, &key.verifier).wrong.is_empty());
    assert!(!signed::check(&page, &with(&json), &note, &key.verifier).wrong.is_empty());
    let stranger = VerifyingKey::new("reviewer", [9; 32]).unwrap();
    assert!(!signed::check(&page, &json, &note, &stranger).wrong.is_empty());
    // Signed by the key, and yet the page says something else than its data.
    let other = super::page::page(&data("other"));
    let text = signed::text(&data("plain"), other.as_bytes(), &json);
    let note = schemas::note::sign(&text, &[("reviewer", &key.signer)]).unwrap();
    let checked = signed::check(other.as_bytes(), &json, &note, &key.verifier);
    assert_eq!(checked.wrong, ["page: the data gives another page"]);
    // Another version may write another page.
    let newer = Data { auditor: "9.9.9".into(), ..data("plain") };
    signed::write(&path, &newer, &key).unwrap();
    let (page, json, note) =
        (read(path.clone()), read(signed::data_path(&path)), read(signed::note_path(&path)));
    let checked = signed::check(&page, &json, &note, &key.verifier);
    assert_eq!((checked.wrong.len(), checked.open.len()), (0, 1), "{checked:?}");
}

#[test]
fn a_key_is_made_once_and_read_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = key::of_state(folder.path());
    let made = key::make(&path, "acme-audit").unwrap();
    let read = key::read(&path).unwrap();
    assert_eq!((read.verifier.clone(), read.signer.public_key()), (made.clone(), *made.key()));
    assert!(key::make(&path, "acme-audit").is_err());
    assert_eq!(key::verifier(&made.to_string()).unwrap(), made);
    assert_eq!(key::verifier(path.to_str().unwrap()).unwrap(), made);
    assert!(key::verifier("no key").is_err());
    let other = key::make(&folder.path().join("other"), "other").unwrap();
    let text = std::fs::read_to_string(&path).unwrap().replace(&made.to_string(), &other.to_string());
    std::fs::write(&path, text).unwrap();
    assert!(key::read(&path).is_err());
}

/// Every way to a value that is no list and no object.
fn places(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| places(item, &format!("{at}/{n}"), found));
        }
        serde_json::Value::Object(members) => members.iter().for_each(|(name, item)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            places(item, &format!("{at}/{name}"), found);
        }),
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn data_with_any_value_in_any_place_is_refused_or_makes_a_page_that_holds() {
    use serde_json::json;

    let whole: serde_json::Value = serde_json::from_str(&data("x").json().unwrap()).unwrap();
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!(HOSTILE),
        json!([]),
        json!({}),
    ];
    let (key, mut refused, mut made) = (report_key(), 0, 0);
    for place in &all {
        for value in &values {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = value.clone();
            let Ok(data) = serde_json::from_value::<Data>(changed) else {
                refused += 1;
                continue;
            };
            summary(&data);
            let (page, json) = (page(&data), data.json().unwrap());
            assert!(!page.contains("<script"), "{place} {value}");
            let text = signed::text(&data, page.as_bytes(), json.as_bytes());
            // A text of several lines is in no signature.
            if let Ok(note) = schemas::note::sign(&text, &[(key.verifier.name(), &key.signer)]) {
                let checked = signed::check(page.as_bytes(), json.as_bytes(), &note, &key.verifier);
                assert!(checked.wrong.is_empty(), "{place} {value}: {:?}", checked.wrong);
            }
            made += 1;
        }
    }
    assert!(refused > all.len() && made > all.len(), "{refused} refused, {made} made");
}
