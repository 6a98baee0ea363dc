//! The sections of the page.

use super::chart::{self, Bar, Unit};
use super::data::{Became, ControlLine, Data, HeadLine, PackLine, Span};
use super::html::{Cell, Html, count, number, time, words};
use super::page::described;
use super::volumes::ROWS;
use crate::cost::spend::share;
use crate::decimal::Decimal;

const TEXT: Cell = Cell::Text;
const NUMBER: Cell = Cell::Number;
const CODE: Cell = Cell::Code;

impl Became {
    /// The class of what is shown of it.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Exceptions => "exceptions",
            Self::NotJudged => "unjudged",
            Self::Stated => "stated",
        }
    }
    /// As it is said.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Met => "met by evidence",
            Self::Exceptions => "exceptions",
            Self::NotJudged => "not judged",
            Self::Stated => "stated by registers alone",
        }
    }
}

/// Claims, reached and not.
pub fn claims(html: &mut Html, data: &Data) {
    let rows: Vec<Vec<String>> = data
        .claims
        .iter()
        .map(|line| {
            let reached = if line.reached { "reached" } else { "not reached" };
            vec![line.claim.replace('_', " "), reached.to_owned(), line.text.clone()]
        })
        .collect();
    html.table(
        "What the verification claims",
        &[("Claim", TEXT), ("State", Cell::Word), ("In the verification's words", TEXT)],
        &rows,
    );
}

/// What the evidence covers.
pub fn covered(html: &mut Html, data: &Data) {
    let looked = &data.looked;
    html.paragraph(&format!(
        "{} in the store ({}), {} and {} proven; {} removed after their retention.",
        count(looked.objects, "object", "objects"),
        bytes(looked.bytes),
        count(looked.batches, "batch", "batches"),
        count(looked.records, "record", "records"),
        count(looked.expired, "batch", "batches"),
    ));
    html.paragraph(&format!(
        "Content: records name {}; {} kept, {} opened and found to be what the records commit to, {} erased by a recorded \
         erasure.",
        count(looked.parts, "part", "parts"),
        number(looked.parts_kept),
        number(looked.parts_proven),
        number(looked.parts_erased),
    ));
    for line in &data.bucket {
        html.paragraph(line);
    }
    for gateway in &data.gateways {
        let name = format!("Gateway {}: proven time within the period", gateway.gateway);
        html.open("figure", &[]).open("figcaption", &[]).text(&name);
        let proven = gateway.proven.map_or("nothing is proven".into(), |proven| {
            format!("records from {} to {}", time(proven.from), time(proven.to))
        });
        let closed = if gateway.closed { "; out of service" } else { "" };
        html.element("span", &[], &format!("{proven}{closed}")).close("figcaption").line();
        let mut spans = Vec::new();
        for run in gateway.logs.iter().flat_map(|log| &log.proven) {
            spans.push(("proven", *run));
        }
        spans.extend(gateway.silences.iter().map(|silence| ("silence", *silence)));
        chart::intervals(html, &name, data.period, &spans);
        ends(html, data.period.from, data.period.to);
        html.open("div", &[("class", "key")]).element("span", &[("class", "proven")], "proven");
        html.element("span", &[("class", "silence")], "declared silence");
        html.element("span", &[], "no proven record").close("div").close("figure").line();
    }
    let rows: Vec<Vec<String>> = data
        .gateways
        .iter()
        .flat_map(|gateway| &gateway.logs)
        .map(|log| {
            let seen = log.consistent_since.map_or("first visit".into(), |at| format!("since {}", time(at)));
            vec![
                log.origin.clone(),
                number(log.records),
                number(log.batches),
                number(log.open_exchanges),
                log.closed.clone().unwrap_or_else(|| "open".into()),
                seen,
            ]
        })
        .collect();
    html.table(
        "Logs",
        &[
            ("Log", CODE),
            ("Records", NUMBER),
            ("Batches", NUMBER),
            ("Exchanges without an end", NUMBER),
            ("Closed by", TEXT),
            ("Seen unchanged", TEXT),
        ],
        &rows,
    );
}

fn ends(html: &mut Html, from: i64, to: i64) {
    html.open("div", &[("class", "ends")]).element("span", &[], &time(from));
    html.element("span", &[], &time(to)).close("div").line();
}

/// Systems and volumes.
pub fn volumes(html: &mut Html, data: &Data) {
    let measured = &data.measured;
    let all: u64 = measured.became.values().sum();
    if all == 0 {
        html.paragraph("No exchange began in the period.");
        return;
    }
    html.paragraph(&format!("{} began in the period.", count(all, "exchange", "exchanges")));
    let unit = Unit::of(data.period).name();
    let bars = chart::bars(data.period, measured.days.iter().map(|(day, n)| (*day, u128::from(*n))));
    let most = bars.iter().map(|(_, value)| *value).max().unwrap_or(0);
    let name = format!("Exchanges a {unit}");
    let about = format!("highest bar: {}", number(u64::try_from(most).unwrap_or(u64::MAX)));
    figure(html, data.period, (&name, &about), &bars, |(at, value)| format!("{}: {value}", date(*at)));
    let rows: Vec<Vec<String>> = measured
        .became
        .iter()
        .map(|(became, n)| vec![became.replace('_', " "), number(*n), share((*n).into(), all.into())])
        .collect();
    html.table("How exchanges ended", &[("End", TEXT), ("Exchanges", NUMBER), ("Share", NUMBER)], &rows);
    for volumes in &measured.volumes {
        let rows: Vec<Vec<String>> = volumes
            .rows
            .iter()
            .map(|row| {
                vec![
                    named(row.name.as_deref()),
                    number(row.exchanges),
                    share(row.exchanges.into(), all.into()),
                    number(row.refused),
                    number(row.input_tokens),
                    number(row.output_tokens),
                ]
            })
            .collect();
        html.table(
            &format!("Exchanges by {}", volumes.by),
            &[
                (&capital(&volumes.by), TEXT),
                ("Exchanges", NUMBER),
                ("Share", NUMBER),
                ("Refused", NUMBER),
                ("Input tokens", NUMBER),
                ("Output tokens", NUMBER),
            ],
            &rows,
        );
        more(html, volumes.more);
    }
}

fn more(html: &mut Html, more: bool) {
    if more {
        let text = format!("The first {ROWS}; `auditor query` and `auditor cost` list all.");
        html.element("p", &[("class", "note")], &text).line();
    }
}

/// A chart over the period; a single bar says nothing.
pub(crate) fn figure(
    html: &mut Html,
    period: Span,
    (name, about): (&str, &str),
    bars: &[Bar],
    label: impl Fn(&Bar) -> String,
) {
    if bars.len() < 2 {
        return;
    }
    html.open("figure", &[]).open("figcaption", &[]).text(name).element("span", &[], about);
    html.close("figcaption").line();
    chart::draw(html, name, bars, label);
    ends(html, period.from, period.to);
    html.close("figure").line();
}

/// The day of a time.
pub(crate) fn date(at: i64) -> String {
    time(at).split(' ').next().unwrap_or_default().to_owned()
}

fn named(name: Option<&str>) -> String {
    name.map_or_else(|| "not recorded".into(), str::to_owned)
}

/// With a capital letter.
pub(crate) fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A length for people.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        0..1_000 => format!("{value} bytes"),
        1_000..1_000_000 => format!("{}.{} kB", value / 1_000, value % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", value / 1_000_000, value % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", number(value / 1_000_000_000), value % 1_000_000_000 / 100_000_000),
    }
}

/// Answers without a cost: why, as `auditor cost` tells them apart.
pub(crate) fn without_cost(unpriced: u64, no_usage: u64) -> String {
    let known = count(unpriced.saturating_sub(no_usage), "answer", "answers");
    format!("{known} with usage have no price, {} have unknown usage.", number(no_usage))
}

/// Cost.
pub fn cost(html: &mut Html, data: &Data) {
    let measured = &data.measured;
    html.paragraph(
        "Each answer of a provider counts once, at the prices of the price book that its record names. Currencies are never added \
         together.",
    );
    if measured.spent.is_empty() && measured.unpriced == 0 {
        html.paragraph("No exchange of the period has a cost.");
        return;
    }
    let rows: Vec<Vec<String>> = measured
        .spent
        .iter()
        .map(|(currency, spent)| {
            vec![
                currency.clone(),
                number(spent.exchanges),
                money(spent.cost, currency),
                money(spent.not_final_cost, currency),
            ]
        })
        .collect();
    if !rows.is_empty() {
        html.table(
            "Recorded cost",
            &[
                ("Currency", TEXT),
                ("Exchanges", NUMBER),
                ("Cost", NUMBER),
                ("Of it by counts that are not the provider's last word", NUMBER),
            ],
            &rows,
        );
    }
    html.paragraph(&format!(
        "{} {} computed again from price book and counts, {} could not be (over all records).",
        without_cost(measured.unpriced, measured.no_usage),
        count(data.looked.costs_recomputed, "cost was", "costs were"),
        number(data.looked.costs_not_recomputed),
    ));
    let unit = Unit::of(data.period).name();
    for currency in measured.spent.keys() {
        let days = measured.cost_days.iter().filter(|(_, of, _)| of == currency);
        let days = days.map(|(day, _, cost)| (*day, u128::try_from(cost.0).unwrap_or(0)));
        let bars = chart::bars(data.period, days);
        let most = bars.iter().map(|(_, value)| *value).max().unwrap_or(0);
        let told = |value: u128| money(Decimal(i128::try_from(value).unwrap_or(i128::MAX)), currency);
        let name = format!("Cost a {unit}, {currency}");
        let about = format!("highest bar: {}", told(most));
        let label = |(at, value): &Bar| format!("{}: {}", date(*at), told(*value));
        figure(html, data.period, (&name, &about), &bars, label);
    }
    for costs in &measured.costs {
        let rows: Vec<Vec<String>> = costs
            .rows
            .iter()
            .map(|row| {
                let cost = row.currency.as_ref().map_or("none".into(), |currency| money(row.cost, currency));
                vec![named(row.name.as_deref()), number(row.exchanges), cost, number(row.unpriced)]
            })
            .collect();
        html.table(
            &format!("Cost by {}", costs.by),
            &[
                (&capital(&costs.by), TEXT),
                ("Exchanges with a cost", NUMBER),
                ("Cost", NUMBER),
                ("Answers without a cost", NUMBER),
            ],
            &rows,
        );
        more(html, costs.more);
    }
}

fn money(cost: Decimal, currency: &str) -> String {
    format!("{cost} {currency}")
}

/// Controls and exceptions.
pub fn controls(html: &mut Html, data: &Data) {
    if data.packs.is_empty() {
        html.paragraph("No pack of controls was asked for (`--pack`).");
        return;
    }
    html.paragraph(
        "A control is a question whose rows are exceptions. Met by evidence: there was something to look at, the evidence is whole, \
         and no row came. Stated by registers alone: no row came, and the operator's own registers are all that was looked at, \
         which is no evidence. Not judged is never a pass.",
    );
    let counts = [Became::Met, Became::Stated, Became::Exceptions, Became::NotJudged]
        .map(|became| (became, data.count(became)));
    html.open("figure", &[]).element("figcaption", &[], "Controls by what became of them").line();
    chart::shares(html, "Controls by what became of them", &counts.map(|(became, n)| (became.class(), n)));
    html.open("div", &[("class", "key")]);
    for (became, n) in counts {
        html.element("span", &[("class", became.class())], &format!("{} {}", number(n), became.words()));
    }
    html.close("div").close("figure").line();
    for pack in &data.packs {
        self::pack(html, data, pack);
    }
}

fn pack(html: &mut Html, data: &Data, pack: &PackLine) {
    html.element("h3", &[], &words(&pack.title)).line().paragraph(&pack.about);
    let rows: Vec<Vec<String>> = pack
        .controls
        .iter()
        .map(|control| {
            vec![
                control.id.clone(),
                words(&control.title),
                control.became.words().to_owned(),
                control.population.map_or("nothing counted".into(), number),
                number(control.exceptions),
            ]
        })
        .collect();
    html.table(
        &format!("Controls of {}", pack.name),
        &[
            ("Control", TEXT),
            ("About", TEXT),
            ("Result", Cell::Word),
            ("Looked at", NUMBER),
            ("Exceptions", NUMBER),
        ],
        &rows,
    );
    for control in &pack.controls {
        self::control(html, data, control);
    }
    if !pack.cannot_show.is_empty() {
        let rows: Vec<Vec<String>> =
            pack.cannot_show.iter().map(|entry| vec![words(&entry.article), words(&entry.why)]).collect();
        let caption = format!("What this evidence cannot show of {}", pack.name);
        html.table(&caption, &[("Part of the rules", TEXT), ("Why not", TEXT)], &rows);
    }
}

/// A control: what it asks, what became of it, what that supports. Its article stays open, for the exceptions.
pub(crate) fn judged(html: &mut Html, control: &ControlLine) {
    html.open("article", &[("class", &format!("control {}", control.became.class()))]).line();
    html.element("span", &[("class", "badge")], control.became.words());
    html.element("h4", &[], &format!("{}: {}", control.id, words(&control.title))).line();
    html.open("dl", &[]).line();
    let read = if control.read {
        "text read"
    } else {
        "the rule's text was not read for this control: look at it before it is quoted"
    };
    described(html, "Rule", &format!("{} ({read}, {})", control.rule, control.on));
    described(html, "Asks", &control.asks);
    if let Some(why) = &control.why {
        described(html, "Not judged", why);
    }
    described(
        html,
        "Found",
        &format!(
            "{}, {}",
            control.population.map_or("nothing was counted".into(), |n| format!("{} looked at", number(n))),
            count(control.exceptions, "exception", "exceptions")
        ),
    );
    let supports = match control.became {
        Became::Met => "Supports",
        Became::Stated => "The registers state",
        Became::Exceptions | Became::NotJudged => "Would support",
    };
    described(html, supports, &control.supports);
    described(html, "Leaves open", &control.leaves_open);
    described(html, "Can miss", &control.fails);
    described(html, "Rests on", &control.rests);
    html.close("dl").line();
}

fn control(html: &mut Html, data: &Data, control: &ControlLine) {
    judged(html, control);
    if !control.rows.is_empty() {
        let columns: Vec<(&str, Cell)> = control.columns.iter().map(|name| (name.as_str(), TEXT)).collect();
        let rows: Vec<Vec<String>> = control
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.clone().unwrap_or_else(|| "—".into())).collect())
            .collect();
        html.table(&format!("Exceptions of {}", control.id), &columns, &rows);
        let beyond = control.exceptions.saturating_sub(control.rows.len() as u64);
        if beyond > 0 {
            let file = data.exceptions_file.as_deref().map_or_else(
                || "`--exceptions FILE` writes all".to_owned(),
                |file| format!("all are in `{file}`"),
            );
            html.element("p", &[("class", "note")], &format!("And {} more: {file}.", number(beyond))).line();
        }
    }
    html.close("article").line();
}

/// Findings of the verification.
pub fn findings(html: &mut Html, data: &Data) {
    if data.findings.is_empty() {
        html.paragraph("The verification found nothing to tell.");
        return;
    }
    let rows: Vec<Vec<String>> = data
        .findings
        .iter()
        .map(|finding| {
            let note = if finding.note { ", a note" } else { "" };
            vec![
                finding.code.clone(),
                format!("{}{note}", finding.severity),
                finding.place.clone(),
                format!("wanted: {}; found: {}", finding.expected, finding.found),
                finding.hint.clone(),
            ]
        })
        .collect();
    html.table(
        "Findings, worst first",
        &[("Code", TEXT), ("Severity", Cell::Word), ("Where", CODE), ("What", TEXT), ("Look next", TEXT)],
        &rows,
    );
    let all: u64 = data.finding_counts.values().sum();
    let beyond = all.saturating_sub(data.findings.len() as u64);
    if beyond > 0 {
        let text = format!("And {} more: `auditor verify` lists them.", number(beyond));
        html.element("p", &[("class", "note")], &text).line();
    }
}

/// What was not checked.
pub fn unchecked(html: &mut Html, data: &Data) {
    html.list(&data.not_checked);
    if data.not_judged.is_empty() {
        html.paragraph("The records hold nothing that this version of the auditor does not know.");
        return;
    }
    let rows: Vec<Vec<String>> =
        data.not_judged.iter().map(|(what, n)| vec![what.clone(), number(*n)]).collect();
    html.table(
        "Hashed and counted, and not understood by this version: answers may mean less than they say",
        &[("What", TEXT), ("Times", NUMBER)],
        &rows,
    );
}

/// Method.
pub fn method(html: &mut Html, data: &Data) {
    html.list(&[
        "The store was read, never written. Every seal's signature was checked with the keys of the trust file, which came over \
         another channel; every record was hashed up to the root that its seal signs; the seals were followed from the first to the \
         newest."
            .to_owned(),
        "Volumes, cost and controls are SQL over records that were proven so, and over nothing else.".to_owned(),
        "A control's question gives exceptions. Where records may be missing, one without exceptions is not judged.".to_owned(),
        "Registers are the reviewer's own files. They are not evidence; their hashes stand below.".to_owned(),
        format!(
            "To check this file: `auditor check-report FILE --key KEY`, with the key from whoever signed, over another channel. It \
             checks the signature over this page and over the data beside it (FILE.json, FILE.sig), and makes the page again from \
             the data. It says that it is signed by {}; that line proves nothing by itself.",
            data.signer
        ),
        "To repeat it: give the same command over the same store and trust file. An auditor with another memory of earlier visits \
         may reach other claims."
            .to_owned(),
    ]);
}

/// Hashes.
pub fn hashes(html: &mut Html, data: &Data) {
    html.open("dl", &[]).line();
    described(html, "Trust file", &data.trust_fingerprint);
    html.close("dl").line();
    let head = |head: &HeadLine| {
        vec![
            head.origin.clone(),
            number(head.size),
            time(head.sealed_at),
            head.root.to_string(),
            head.seal.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = data.heads.iter().chain(&data.registry).map(head).collect();
    html.table(
        "Ends of the logs on which this report rests",
        &[
            ("Log", CODE),
            ("Size", NUMBER),
            ("Sealed at", TEXT),
            ("Root", CODE),
            ("SHA-256 of the seal", CODE),
        ],
        &rows,
    );
    let mut rows: Vec<Vec<String>> = Vec::new();
    for pack in &data.packs {
        let settings: Vec<String> =
            pack.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let settings = if settings.is_empty() { String::new() } else { format!(", {}", settings.join(", ")) };
        rows.push(vec![format!("pack {} ({}{settings})", pack.name, pack.from), pack.sha256.to_string()]);
    }
    for register in &data.registers {
        let rows_of = count(register.rows, "row", "rows");
        rows.push(vec![
            format!("register {} = {} ({rows_of}, yours)", register.name, register.file),
            register.sha256.to_string(),
        ]);
    }
    for (about, sha256) in &data.measured.questions {
        rows.push(vec![format!("question: {about}"), sha256.to_string()]);
    }
    for (pack, control) in data.controls() {
        rows.push(vec![
            format!("question: {} {}", pack.name, control.id),
            control.question_sha256.to_string(),
        ]);
    }
    html.table("What was asked, and of what", &[("What", TEXT), ("SHA-256", CODE)], &rows);
}
