use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionContext;
use schemas::columns::ColumnKind;
use schemas::record::{Admin, Body, Erasure};

use super::control::{self, Shelf, Standing};
use super::fact::{FACTS, Fact};
use super::pack::{Loaded, Pack};
use super::register::Given;
use super::result::Status;
use super::rows::{Rows, Value};
use super::run::Asked;
use super::tables::{Proven, Shown, Tables, Versions};
use super::{cases, packs, register};
use crate::finding::{Code, Finding, Place};
use crate::fixture::{Evidence, START, Writer, id, proven, small, trust};
use crate::mandate::Mandate;
use crate::report::Verdict;
use crate::source::MemorySource;
use crate::time::{self, SECOND};
use crate::verify::{NoSink, Options, run};

fn all() -> Vec<Loaded> {
    packs::all().unwrap()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

#[test]
fn every_pack_is_read_strictly_and_named_as_its_file() {
    for ((name, _), loaded) in packs::PACKS.iter().zip(all()) {
        assert_eq!(*name, loaded.pack.name);
    }
}

#[test]
fn every_case_of_every_pack_comes_out_as_it_says() {
    let engine = Arc::new(RuntimeEnv::default());
    let packs = all();
    let problems: Vec<String> =
        packs.iter().flat_map(|loaded| block(cases::run(&loaded.pack, &engine))).collect();
    let (controls, count) = packs.iter().fold((0, 0), |(controls, n), loaded| {
        (controls + loaded.pack.controls.len(), n + cases::count(&loaded.pack))
    });
    println!("{} packs, {controls} controls, {count} cases", packs.len());
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn no_pack_says_that_somebody_keeps_a_rule() {
    for (name, text) in packs::PACKS {
        let lower = text.to_lowercase();
        for word in
            ["compliant", "compliance with", "in compliance", "guarantee", "tamper-proof", "immutable"]
        {
            assert!(!lower.contains(word), "{name}: {word}");
        }
    }
}

const PACK: &str = r#"
v: 1
name: mine
title: Mine
about: What it is.
registers:
  owners: { about: Who owns what., columns: { consumer: text, since: time } }
settings:
  who: { about: A caller., default: tester }
controls:
  - id: one
    title: One
    rule: { source: House rules, article: "1", read: primary, on: "2026-11-21" }
    asks: Something.
    needs: [exchange, owners, settings]
    population: SELECT count(*) FROM exchange
    finds: SELECT e.exchange FROM exchange e LEFT ANTI JOIN owners o ON o.consumer = e.consumer JOIN settings s ON s.who = e.consumer
    fails: No way.
    supports: That there is an owner.
    leaves_open: Much.
    cases:
      - name: owned
        rows: { exchange: [{ exchange: e1, consumer: tester }], owners: [{ consumer: tester }] }
      - name: not owned
        rows: { exchange: [{ exchange: e1, consumer: tester }] }
        finds: [{ exchange: e1 }]
"#;

#[test]
fn a_wrong_pack_is_refused_with_key_value_and_wanted_form() {
    assert!(Loaded::parse(PACK, "mine.yaml").is_ok());
    for (from, to, wanted) in [
        ("v: 1", "v: 2", "v: `2`: wanted `1`"),
        ("name: mine", "name: My pack", "name: `My pack`: wanted `[a-z0-9_]+`"),
        ("needs: [exchange, ", "needs: [exchanges, ", "controls.one.needs: `exchanges` is no fact"),
        ("on: \"2026-11-21\"", "on: today", "controls.one.rule.on: `today`: wanted a day"),
        ("read: primary", "read: perhaps", "perhaps"),
        ("supports: That", "supports: It is compliant: that", "mine.yaml"),
        (
            "supports: That there is an owner.",
            "supports: Is compliant.",
            "controls.one.supports: `compliant`: wanted",
        ),
        (
            "        finds: [{ exchange: e1 }]\n",
            "",
            "controls.one.cases: wanted at least one with an exception",
        ),
        ("consumer: tester }]", "consumr: tester }]", "`consumr` is no column: wanted one of origin"),
        ("  owners: {", "  intent: {", "registers.intent: wanted a name"),
        ("since: time", "since: date", "mine.yaml"),
        ("title: Mine", "titel: Mine", "titel"),
        ("    fails: No way.\n", "", "fails"),
    ] {
        let text = PACK.replacen(from, to, 1);
        assert_ne!(text, PACK, "{from}");
        let problems = Loaded::parse(&text, "mine.yaml").unwrap_err();
        assert!(problems.contains(wanted), "{from} -> {to}: {wanted} not in {problems}");
    }
}

#[test]
fn a_case_that_does_not_come_out_is_told() {
    let engine = Arc::new(RuntimeEnv::default());
    let told = |from: &str, to: &str| {
        let text = PACK.replacen(from, to, 1);
        assert_ne!(text, PACK, "{from}");
        block(cases::run(&Loaded::parse(&text, "mine.yaml").unwrap().pack, &engine)).join("\n")
    };
    assert_eq!(told("title: Mine", "title: Yours"), "");
    let wrong = told("finds: [{ exchange: e1 }]", "finds: [{ exchange: e2 }]");
    assert!(wrong.contains("cases[not owned]") && wrong.contains("e1"), "{wrong}");
    let planless = told("SELECT e.exchange FROM", "SELECT e.nothing FROM");
    assert!(planless.contains("`finds`") && planless.contains("nothing"), "{planless}");
    // A table that the control does not name is not there.
    let undeclared = told("SELECT count(*) FROM exchange", "SELECT count(*) FROM intent");
    assert!(undeclared.contains("`population`") && undeclared.contains("intent"), "{undeclared}");
}

#[test]
fn a_register_is_read_strictly_and_every_wrong_value_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("owners.csv");
    let loaded = Loaded::parse(PACK, "mine.yaml").unwrap();
    let wanted = &loaded.pack.registers["owners"];
    let typed = format!("owners={}", file.display());
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Given::read(&typed).unwrap().rows(wanted).map(|rows| rows.count())
    };
    assert_eq!(read("\u{feff}since,consumer,more\n2026-11-01,tester,x\n,other,y\n"), Ok(2));
    let problem = read("consumer\ntester\n").unwrap_err();
    assert!(problem.contains("column `since` is missing") && problem.contains("`since` (time)"), "{problem}");
    let problem = read("consumer,since\na,2026-11-01\nb,soon\nc,later\n").unwrap_err();
    assert!(problem.contains("row 2, column `since`: `soon` is not a time"), "{problem}");
    assert!(problem.contains("row 3, column `since`: `later`"), "{problem}");
    std::fs::write(&file, "consumer,since,consumer\na,2026-11-01,b\n").unwrap();
    let problem = Given::read(&typed).unwrap_err().to_string();
    assert!(problem.contains("column 3: `consumer` is there twice"), "{problem}");
    std::fs::write(&file, "consumer,since\na,2026-11-01\n").unwrap();
    for wrong in ["owners", "owners=x.parquet", "=x.csv"] {
        assert!(Given::read(wrong).unwrap_err().to_string().contains("wanted `name=file.csv`"), "{wrong}");
    }
    let given = Given::read(&typed).unwrap();
    assert!(register::check(std::slice::from_ref(&given), &[&loaded.pack]).is_ok());
    let twice = register::check(&[given.clone(), given.clone()], &[&loaded.pack]).unwrap_err();
    assert!(twice.to_string().contains("given twice"), "{twice}");
    let gdpr = all().into_iter().find(|loaded| loaded.pack.name == "gdpr").unwrap();
    let unknown = register::check(&[given], &[&gdpr.pack]).unwrap_err();
    assert!(unknown.to_string().contains("`ropa`") || unknown.to_string().contains("ropa"), "{unknown}");
}

fn rows(columns: &[(&str, ColumnKind)], rows: &[Vec<Value>]) -> Rows {
    let column =
        |(name, kind): &(&str, ColumnKind)| super::rows::Column { name: (*name).into(), kind: *kind };
    let mut out = Rows::new(columns.iter().map(column).collect());
    rows.iter().for_each(|row| out.push(row));
    out
}

fn asked(verdict: Verdict, exchanges: &[&str], owners: &[&str]) -> super::result::ControlResult {
    let pack = Loaded::parse(PACK, "mine.yaml").unwrap().pack;
    let text = |text: &str| Value::Text(text.into());
    let mut tables = Tables::default();
    let exchanges: Vec<Vec<Value>> = exchanges.iter().map(|id| vec![text(id), text("tester")]).collect();
    let owners: Vec<Vec<Value>> = owners.iter().map(|name| vec![text(name)]).collect();
    let columns = [("exchange", ColumnKind::Utf8), ("consumer", ColumnKind::Utf8)];
    tables.add("exchange", rows(&columns, &exchanges)).unwrap();
    tables.add("owners", rows(&columns[1..], &owners)).unwrap();
    tables.add("settings", super::run::settings_row(&pack, &[])).unwrap();
    let (proven, bucket) = ("proven rows of 1 log".into(), Shelf::default());
    let standing = Standing { verdict, proven, bucket, unjudged: 0 };
    let engine = Arc::new(RuntimeEnv::default());
    let mut all = 0;
    let mut sink = |_: &[String], _: &[Option<String>]| {
        all += 1;
        Ok(())
    };
    let result = block(control::run(&pack.controls[0], &tables, &engine, &standing, &mut sink)).unwrap();
    assert_eq!(all, result.exceptions);
    result
}

#[test]
fn nothing_to_look_at_and_evidence_that_is_not_whole_are_never_a_pass() {
    assert_eq!(asked(Verdict::Verified, &["e1"], &["tester"]).status, Status::Met);
    assert_eq!(asked(Verdict::Policy, &["e1"], &["tester"]).status, Status::Met);
    let none = asked(Verdict::Verified, &[], &["tester"]);
    assert_eq!((none.status, none.population), (Status::NotJudged, Some(0)));
    for verdict in [Verdict::Incomplete, Verdict::Invalid, Verdict::Diverged, Verdict::CouldNotJudge] {
        let open = asked(verdict, &["e1"], &["tester"]);
        assert_eq!(open.status, Status::NotJudged);
        assert!(open.why.unwrap().contains(verdict.as_str()));
        assert!(
            open.rests.contains(verdict.as_str()) && open.rests.contains("no evidence"),
            "{}",
            open.rests
        );
        assert_eq!(asked(verdict, &["e1"], &[]).status, Status::Exceptions);
    }
}

/// What becomes of a control of a pack over these rows, each table with its first columns.
fn judged(
    pack: &str,
    id: &str,
    given: &[(&str, Vec<Vec<Value>>)],
    standing: &Standing,
) -> super::result::ControlResult {
    let text = packs::PACKS.iter().find(|(name, _)| *name == pack).unwrap().1;
    let pack = Loaded::parse(text, "built in").unwrap().pack;
    let control = pack.controls.iter().find(|control| control.id == id).unwrap();
    let mut tables = Tables::default();
    for name in &control.needs {
        let mut rows = Rows::new(pack.columns(name).unwrap());
        let found = given.iter().find(|(given, _)| given == name);
        found.into_iter().flat_map(|(_, rows)| rows).for_each(|row| rows.push(row));
        tables.add(name, rows).unwrap();
    }
    let mut sink = |_: &[String], _: &[Option<String>]| Ok(());
    block(control::run(control, &tables, &Arc::new(RuntimeEnv::default()), standing, &mut sink)).unwrap()
}

#[test]
fn what_could_not_be_judged_is_never_a_pass_whatever_the_verdict_names() {
    let text = |text: &str| Value::Text(text.into());
    let rows = [
        ("log", vec![vec![text("acme/gw1/e1")]]),
        ("claim", vec![vec![text("signed"), Value::Bool(true), text("signed")]]),
    ];
    for (verdict, unjudged, wanted) in [
        (Verdict::Verified, 0, Status::Met),
        (Verdict::Policy, 0, Status::Met),
        (Verdict::Policy, 2, Status::NotJudged),
        // The report's own claims are no pass where records are missing.
        (Verdict::Incomplete, 0, Status::NotJudged),
        (Verdict::CouldNotJudge, 1, Status::NotJudged),
    ] {
        let standing = Standing { verdict, proven: String::new(), bucket: Shelf::default(), unjudged };
        let found = judged("cfr_21_11", "11.10-a-altered", &rows, &standing);
        assert_eq!(found.status, wanted, "{verdict:?} {unjudged}: {:?}", found.why);
    }
}

#[test]
fn what_only_the_users_registers_say_is_not_met_by_evidence() {
    let text = |text: &str| Value::Text(text.into());
    let standing = Standing {
        verdict: Verdict::Verified,
        proven: "proven rows".into(),
        bucket: Shelf::default(),
        unjudged: 0,
    };
    let day = vec![vec![Value::Int(START)]];
    let review = |who: Value| vec![vec![Value::Int(START), who]];
    for (who, wanted) in [(text("ann"), Status::Stated), (Value::Null, Status::Exceptions)] {
        let period =
            vec![vec![Value::Int(START), Value::Int(START + time::DAY), Value::Int(START + time::DAY)]];
        let rows = [("day", day.clone()), ("review", review(who)), ("period", period)];
        let found = judged("pci_dss", "10.4.1-daily", &rows, &standing);
        assert_eq!(found.status, wanted, "{:?}", found.why);
        assert!(
            !found.rests.contains("proven rows") && found.rests.contains("no evidence"),
            "{}",
            found.rests
        );
    }
    let decided = [("sysreg", vec![vec![text("hr"), text("in use")]])];
    assert_eq!(judged("iso42001", "a.6.2.8-decision", &decided, &standing).status, Status::Stated);
}

#[test]
fn locks_that_were_not_read_are_never_a_pass() {
    let gdpr = packs::PACKS.iter().find(|(name, _)| *name == "hipaa").unwrap().1;
    let pack = Loaded::parse(gdpr, "built in").unwrap().pack;
    let control = pack.controls.iter().find(|control| control.id == "164.316-six-years").unwrap();
    let text = |text: &str| Value::Text(text.into());
    let mut objects = Rows::new(super::fact::fact("obj").unwrap().columns());
    let at = |days: i64| Value::Int(START + days * time::DAY);
    objects.push(&[
        text("a.seal"),
        text("v1"),
        text("seal"),
        Value::Int(5),
        at(0),
        at(0),
        text("STANDARD"),
        Value::Bool(true),
        Value::Bool(true),
        text("COMPLIANCE"),
        at(3650),
        Value::Bool(false),
    ]);
    let mut tables = Tables::default();
    tables.add("obj", objects).unwrap();
    let engine = Arc::new(RuntimeEnv::default());
    for (verdict, unread, wanted) in [
        (Verdict::Verified, 0, Status::Met),
        (Verdict::Verified, 3, Status::NotJudged),
        (Verdict::Incomplete, 0, Status::NotJudged),
    ] {
        let bucket = Shelf { text: "2 versions".into(), unread };
        let standing = Standing { verdict, proven: String::new(), bucket, unjudged: 0 };
        let mut sink = |_: &[String], _: &[Option<String>]| Ok(());
        let result = block(control::run(control, &tables, &engine, &standing, &mut sink)).unwrap();
        assert_eq!(result.status, wanted, "{verdict:?} {unread}: {:?}", result.why);
        assert!(result.rests.contains("2 versions"), "{}", result.rests);
    }
}

#[test]
fn all_exceptions_are_counted_and_told_and_the_first_are_kept() {
    let ids: Vec<String> = (0..250).map(|n| format!("e{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = asked(Verdict::Verified, &ids, &[]);
    assert_eq!((found.exceptions, found.population), (250, Some(250)));
    assert_eq!((found.shown.rows.len(), found.shown.exchanges.len()), (control::SHOWN, control::EXCHANGES));
}

impl Evidence {
    /// The tables of all facts.
    async fn tables(
        &self,
        asked: (Option<i64>, Option<i64>),
        bucket: Result<Versions<'_>, String>,
    ) -> Tables {
        let proven = Proven { session: &self.session, records: &self.records, folder: self.folder.path() };
        let shown = Shown { report: &self.report, asked, bucket };
        let all = FACTS.iter().map(|fact| fact.name).collect();
        Tables::new(&proven, &shown, &all).await.unwrap()
    }
}

/// Of a log with an administrator's act and an erasure.
async fn evidence() -> Evidence {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.push(Body::Admin(Admin {
        action: id("key_issued"),
        actor: Some(id("root")),
        object: Some(id("k1")),
    }));
    let erasure = Erasure {
        exchange: crate::fixture::exchange_id(1),
        origin: writer.origin.clone(),
        position: 2,
        content_key: id("key"),
        reason: id("request"),
        actor: None,
    };
    writer.push(Body::Erasure(erasure));
    writer.push(Body::Admin(Admin { action: id("config_refused"), actor: Some(id("root")), object: None }));
    let refusal = Writer::refusal(None);
    let exchange = Some(crate::fixture::exchange_id(2));
    let content_key = Some(writer.key().to_identifier());
    writer.push(Body::Refusal(schemas::record::Refusal {
        exchange,
        content_key,
        retention: Some(id("short")),
        ..refusal
    }));
    let refusal = Writer::refusal(Some(1));
    writer.push(Body::Refusal(schemas::record::Refusal {
        first: Some(writer.now),
        last: Some(writer.now),
        ..refusal
    }));
    writer.heartbeat();
    writer.seal();
    writer.close();
    proven(&writer).await
}

async fn ask(context: &SessionContext, tables: &Tables, name: &str, sql: &str) -> String {
    let own =
        SessionContext::new_with_config_rt(datafusion::prelude::SessionConfig::new(), context.runtime_env());
    own.register_table(name, tables.table(name).unwrap()).unwrap();
    let batches = own.sql(sql).await.unwrap().collect().await.unwrap();
    datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

#[test]
fn every_fact_has_the_columns_that_it_says_and_can_be_asked() {
    block(async {
        let evidence = evidence().await;
        let whole = (Some(START - SECOND), Some(START + 60 * SECOND));
        for asked in [(None, None), whole] {
            let tables = evidence.tables(asked, Err("a folder".to_owned())).await;
            for fact in FACTS.iter().filter(|fact| fact.name != "obj") {
                let table = tables.table(fact.name).unwrap();
                let schema = table.schema();
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let wanted = fact.columns();
                let wanted_names: Vec<&str> = wanted.iter().map(|column| column.name.as_str()).collect();
                assert_eq!(names, wanted_names, "{}", fact.name);
                for (field, column) in schema.fields().iter().zip(&wanted) {
                    let found = field.data_type();
                    let fits = match column.kind {
                        ColumnKind::Utf8 => found.is_string(),
                        kind => *found == crate::cache::data_type(kind),
                    };
                    assert!(fits, "{}.{}: {found}", fact.name, column.name);
                }
                ask(&evidence.session, &tables, fact.name, &format!("SELECT * FROM {}", fact.name)).await;
            }
            assert_eq!(tables.table("obj").unwrap_err(), "a folder");
        }
    });
}

#[test]
fn a_time_without_records_stands_once_under_its_gateway() {
    block(async {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        for n in 1..4 {
            writer.exchange(n, b"q", b"a");
            writer.seal();
            writer.now += 40 * SECOND;
        }
        writer.close();
        writer.store.objects.retain(|name, _| !name.contains("/0000000001"));
        let mut evidence = proven(&writer).await;
        let findings = &mut evidence.report.findings;
        let of_gateway =
            |finding: &&Finding| finding.code == Code::PeriodNotProven && finding.during.is_some();
        assert_eq!(findings.iter().filter(of_gateway).count(), 1, "{findings:?}");
        // Of a gateway whose last log is closed.
        let place = Place::default().of_item("gateway gw1");
        findings.push(Finding::new(Code::TailUnproven, place, "", "").during(START, START + 300 * SECOND));
        let tables = evidence.tables((None, None), Err(String::new())).await;
        let sql = "SELECT concat(gateway, ' ', kind) AS silence FROM silence";
        let answer = ask(&evidence.session, &tables, "silence", sql).await;
        for wanted in ["gw1 hole", "gw1 unexplained"] {
            assert_eq!(answer.matches(wanted).count(), 1, "{wanted}: {answer}");
        }
        assert_eq!(answer.lines().count(), 6, "{answer}");
    });
}

#[test]
fn facts_say_what_the_leaves_say() {
    block(async {
        let evidence = evidence().await;
        let report = &evidence.report;
        assert_eq!(report.verdict, Verdict::Verified, "{:?}", report.findings);
        let tables = evidence.tables((None, None), Err("a folder".to_owned())).await;
        for (name, sql, wanted) in [
            ("admin", "SELECT action, actor, object FROM admin", vec!["key_issued     | root  | k1"]),
            ("erasure", "SELECT reason, log, of_position FROM erasure", vec!["request", "acme/gw1", "| 2 "]),
            ("boot", "SELECT encryption, heartbeat_bound_ms FROM boot", vec!["aes_256_gcm", "300000"]),
            ("close", "SELECT reason, alive_until FROM close", vec!["shutdown", "2026-09-21T"]),
            (
                "heartbeat",
                "SELECT exchanges, outcomes, refusals FROM heartbeat",
                vec!["| 1         | 1        | 2"],
            ),
            ("exchange", "SELECT state, consumer FROM exchange", vec!["ended   | tester"]),
            ("refusal", "SELECT reason, status FROM refusal", vec!["unauthenticated | 401"]),
            ("verdict", "SELECT verdict FROM verdict", vec!["VERIFIED"]),
            ("claim", "SELECT claim FROM claim WHERE reached", vec!["signed"]),
            ("log", "SELECT gateway, closed FROM log", vec!["gw1", "shutdown"]),
            ("day", "SELECT day FROM day", vec!["2026-09-21T00:00:00Z"]),
            ("seal_key", "SELECT gateway, revoked FROM seal_key", vec!["gw1     | false"]),
            (
                "event",
                "SELECT kind, actor, action, result FROM event ORDER BY position",
                vec!["boot    | gateway", "outcome | tester", "admin   | root", "unauthenticated", "erasure"],
            ),
            ("event", "SELECT result FROM event WHERE action = 'key_issued'", vec!["done"]),
            ("event", "SELECT result FROM event WHERE action = 'config_refused'", vec!["refused"]),
            (
                "content",
                "SELECT kind, retention FROM content ORDER BY position",
                vec!["intent  | standard", "refusal | short"],
            ),
            // A caller without a gateway key: the source is the log.
            ("event", "SELECT source FROM event WHERE kind = 'outcome'", vec!["acme/gw1/"]),
        ] {
            let answer = ask(&evidence.session, &tables, name, sql).await;
            for wanted in wanted {
                assert!(answer.contains(wanted), "{sql}: {wanted} not in\n{answer}");
            }
        }
        // What was before the interval still counts where it lasts.
        let later = (Some(START + 50 * SECOND), None);
        let tables = evidence.tables(later, Err(String::new())).await;
        let count = |name: &'static str| {
            let (context, tables) = (&evidence.session, &tables);
            async move { ask(context, tables, name, &format!("SELECT count(*) AS n FROM {name}")).await }
        };
        assert!(count("erasure").await.contains("| 1 |"));
        assert!(count("admin").await.contains("| 2 |"));
        assert!(count("content").await.contains("| 2 |"));
        assert!(count("refusal").await.contains("| 0 |"));
    });
}

/// An exchange that a rule would have refused: its intent says so, and its outcome does not say it again.
fn observed(writer: &mut Writer, n: u64) {
    use schemas::record::{Decision, Intent, Verdict};
    let exchange = crate::fixture::exchange_id(n);
    let verdict = Verdict {
        decision: Decision::WouldDeny,
        policy: writer.config,
        rules: vec![],
        rule_count: None,
        facts: BTreeMap::new(),
    };
    let key = writer.key();
    let position =
        writer.push(Body::Intent(Intent { verdict: Some(verdict), ..Writer::intent_of(exchange) }));
    writer.outcome(n, position, &key, b"a");
}

/// Two logs, with exchanges that overlap, that are refused and that do not end.
fn tangled() -> Writer {
    let mut first = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let (left, left_key) = first.intent(100, b"q");
    let mut open = Vec::new();
    for n in 0..12 {
        open.push((n, first.intent(n, b"q")));
        first.now += SECOND;
        if n % 3 == 2 {
            for (n, (position, key)) in open.drain(..).rev() {
                first.outcome(n, position, &key, b"a");
            }
            first.seal();
        }
    }
    first.outcome(100, left, &left_key, b"a");
    first.close();
    let predecessor = first.as_predecessor();
    let mut second =
        Writer::boot("20260921t140000z-00000002", first.now + SECOND, Some(predecessor), first.store);
    second.intent(200, b"q");
    second.seal();
    let refusal = Writer::refusal(None);
    let exchange = Some(crate::fixture::exchange_id(201));
    second.push(Body::Refusal(schemas::record::Refusal { exchange, ..refusal }));
    second.exchange(202, b"q", b"a");
    second.intent(203, b"q");
    observed(&mut second, 204);
    second.seal();
    second
}

#[test]
fn the_exchanges_that_are_made_in_one_pass_are_those_of_the_join() {
    block(async {
        let evidence = proven(&tangled()).await;
        let columns: Vec<String> =
            super::fact::fact("exchange").unwrap().fields.iter().map(|f| format!("\"{}\"", f.name)).collect();
        let rows = async |session: &SessionContext, table: &str| {
            let sql = format!("SELECT {} FROM {table} ORDER BY origin, position", columns.join(", "));
            let batches = session.sql(&sql).await.unwrap().collect().await.unwrap();
            datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
        };
        let joined = rows(&evidence.session, "exchanges").await;
        let tables = evidence.tables((None, None), Err(String::new())).await;
        let own = crate::query::like(&evidence.session);
        own.register_table("exchange", tables.table("exchange").unwrap()).unwrap();
        assert_eq!(rows(&own, "exchange").await, joined);
        for (word, count) in [("ended", 15), ("refused", 1), ("open", 2), ("would_deny", 1)] {
            assert_eq!(joined.matches(&format!("| {word} ")).count(), count, "{word}\n{joined}");
        }
    });
}

/// An exchange whose first target failed, and that `second` answered.
fn turned(writer: &mut Writer, n: u64, first: &str, second: &str) {
    use schemas::record::{Attempt, AttemptNumber, Usage, UsageRole, UsageSource};
    let exchange = || crate::fixture::exchange_id(n);
    let mut asked = Writer::asked();
    asked.provider = Some(id(first));
    let position = writer.push(Body::Intent(schemas::record::Intent {
        asked: asked.clone(),
        ..Writer::intent_of(exchange())
    }));
    let attempt = |number, phase, provider| Attempt {
        intent_position: position,
        phase: id(phase),
        provider: Some(id(provider)),
        ..Attempt::new(exchange(), AttemptNumber::new(number).unwrap(), id(provider), id("fallback"))
    };
    let failed = Attempt {
        end: Some(schemas::record::End::Complete),
        status: Some(500),
        usage: Some(Usage::of(UsageSource::Unknown, UsageRole::Incurred)),
        ..attempt(0, "end", first)
    };
    writer.push(Body::Attempt(failed));
    writer.push(Body::Attempt(attempt(1, "open", second)));
    let usage = Usage::of(UsageSource::NotApplicable, UsageRole::None);
    let mut outcome = writer.outcome_of(exchange(), position, None, vec![], usage);
    outcome.asked = asked;
    outcome.served = Some(attempt(1, "open", second).served());
    writer.push(Body::Outcome(outcome));
}

#[test]
fn what_was_sent_names_every_provider_that_got_it_whoever_answered() {
    block(async {
        let mut writer = tangled();
        let before = crate::fixture::exchange_id(300).to_string();
        turned(&mut writer, 300, "forbidden", "allowed");
        turned(&mut writer, 301, "allowed", "forbidden");
        writer.seal();
        let evidence = proven(&writer).await;
        let tables = evidence.tables((None, None), Err(String::new())).await;
        let sql = "SELECT provider, \"number\", count(*) AS n, count(consumer) AS known FROM sent \
                   WHERE provider IN ('allowed', 'forbidden') GROUP BY 1, 2 ORDER BY 1, 2";
        let answer = ask(&evidence.session, &tables, "sent", sql).await;
        let rows: Vec<String> = answer.lines().filter(|line| line.contains(" 1 ")).map(words).collect();
        let wanted = ["allowed 0 1 1", "allowed 1 1 1", "forbidden 0 1 1", "forbidden 1 1 1"];
        assert_eq!(rows, wanted, "{answer}");
        let sql = format!("SELECT first_provider FROM sent WHERE exchange = '{before}'");
        let answer = ask(&evidence.session, &tables, "sent", &sql).await;
        assert_eq!(answer.matches("forbidden").count(), 2, "{answer}");
        // Every exchange that was not refused is there once with what it tried first.
        let all =
            ask(&evidence.session, &tables, "sent", "SELECT count(*) FROM sent WHERE \"number\" = 0").await;
        assert!(all.contains("| 19 "), "{all}");
        let sql = format!("SELECT provider FROM exchange WHERE exchange = '{before}'");
        assert!(ask(&evidence.session, &tables, "exchange", &sql).await.contains("allowed"));
    });
}

/// A row of a printed table, its cells apart by a space.
fn words(line: &str) -> String {
    line.split(['|', ' ']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn more_open_exchanges_than_memory_holds_are_an_error_and_no_crash() {
    block(async {
        let evidence = proven(&tangled()).await;
        let fact = super::fact::fact("exchange").unwrap();
        let small: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let problem =
            super::exchanges::write(&evidence.records, fact, evidence.folder.path(), &small).unwrap_err();
        assert!(format!("{problem:#}").contains("exchanges without an end"), "{problem:#}");
    });
}

#[test]
fn controls_that_ask_the_same_of_the_same_tables_are_asked_once_and_each_is_told() {
    block(async {
        let evidence = proven(&tangled()).await;
        let proven =
            Proven { session: &evidence.session, records: &evidence.records, folder: evidence.folder.path() };
        let bucket = Err(String::new());
        let shown = Shown { report: &evidence.report, asked: (None, None), bucket };
        let text =
            PACK.replacen(" JOIN settings s ON s.who = e.consumer", "", 1).replacen(", settings]", "]", 1);
        let packs = [text.as_str(), &text.replacen("name: mine", "name: yours", 1)]
            .map(|text| Loaded::parse(text, "mine.yaml").unwrap());
        let owners = evidence.folder.path().join("owners.csv");
        std::fs::write(&owners, "consumer,since\nsomebody,2026-01-01\n").unwrap();
        let registers = [Given::read(&format!("owners={}", owners.display())).unwrap()];
        let asked =
            Asked { packs: &packs, registers: &registers, settings: &[], only: &[], exceptions_file: None };
        let mut told = Vec::new();
        let mut sink = |pack: &str, _: &str, _: &[String], row: &[Option<String>]| {
            told.push((pack.to_owned(), row.to_vec()));
            Ok(())
        };
        let assessment = super::run::assess(&proven, &shown, &asked, &mut sink).await.unwrap();
        assert_eq!(told.len(), 2 * 18);
        // Row by row, and not pack by pack: the question was asked once.
        for pair in told.chunks(2) {
            assert_eq!((pair[0].0.as_str(), pair[1].0.as_str()), ("mine", "yours"));
            assert_eq!(pair[0].1, pair[1].1);
        }
        for (_, control) in assessment.controls() {
            let found = (control.status, control.population, control.exceptions);
            assert_eq!(found, (Status::Exceptions, Some(18), 18), "{control:?}");
        }
    });
}

#[test]
fn the_versions_of_a_bucket_are_rows_with_their_locks() {
    use crate::bucket::kept::{Kept, Seen};
    use crate::source::s3::{Listing, Named, Version};
    let version = |id: &str| Version {
        id: id.into(),
        length: 5,
        storage_class: "STANDARD".into(),
        ..Version::default()
    };
    let mut listing = Listing::default();
    let named = Named { versions: vec![version("v1"), version("v2")], ..Named::default() };
    listing.objects.insert("acme/gw1/e1/0000000000.seal".into(), named);
    let seen = Seen {
        mode: "COMPLIANCE".into(),
        until: START,
        hold: false,
        at: START,
        sealed_at: Some(START),
        clean: true,
    };
    let mut kept = Kept::default();
    kept.versions.insert("acme/gw1/e1/0000000000.seal".into(), BTreeMap::from([("v1".to_owned(), seen)]));
    block(async {
        let evidence = evidence().await;
        let tables = evidence.tables((None, None), Ok((&listing, kept))).await;
        let sql = "SELECT version, kind, \"read\", mode, retain_until, hold FROM obj ORDER BY version";
        let answer = ask(&evidence.session, &tables, "obj", sql).await;
        assert!(answer.contains("v1      | seal | true  | COMPLIANCE | 2026-09-21T"), "{answer}");
        assert!(answer.contains("v2      | seal | false |"), "{answer}");
    });
}

#[test]
fn the_schema_of_packs_is_what_the_types_say_and_names_every_key() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/pack.schema.json");
    let text = crate::commands::assess::schema();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let same = std::fs::read_to_string(&path).unwrap_or_default() == text;
    assert!(same, "schemas/json/pack.schema.json differs from the types; run with BLESS=1");
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pack: Pack = all().remove(0).pack;
    for (key, _) in serde_json::to_value(&pack).unwrap().as_object().unwrap() {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn an_open_fact_names_no_time_that_is_not_there() {
    // A report without gateways has an interval of no length, and no days.
    let (trust, mandate) = (trust(), Mandate::default());
    let options = Options::new(&trust, &mandate, START);
    let (report, _) = run(&MemorySource::default(), &options, &mut NoSink);
    assert_eq!(super::tables::period(&report, (None, None)).0, START);
    let whole = small();
    let options = Options::new(&trust, &mandate, START + 20 * SECOND);
    let (report, _) = run(&whole.store, &options, &mut NoSink);
    let (from, to) = super::tables::period(&report, (None, Some(START + SECOND)));
    assert!(from <= START && to == START + SECOND, "{} {}", time::text(from), time::text(to));
    // Nor one that is yet to come.
    let asked = (Some(START), Some(START + 90 * time::DAY));
    assert_eq!(super::tables::period(&report, asked), (START, report.checked_at));
    let facts: Vec<&str> = FACTS.iter().map(|fact: &Fact| fact.name).collect();
    assert_eq!(facts.len(), facts.iter().collect::<std::collections::BTreeSet<_>>().len());
}
