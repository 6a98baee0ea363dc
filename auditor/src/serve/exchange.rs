//! The whole story of one exchange, as `auditor show` tells it; its content only where somebody said why.

use anyhow::Context as _;
use schemas::{ExchangeId, Origin};
use serde_json::Value;

use super::content::{Access, content_access};
use super::exchanges::{cost, total};
use super::filter::{BECAME, quoted};
use super::frame::{Frame, Standing, page};
use super::rows;
use super::table;
use super::visit::Visit;
use crate::commands::show::{each_fact, turns_of};
use crate::content::{self, PartContent, Reader};
use crate::paper::html::{Cell, Html, number, time};
use crate::paper::page::described;
use crate::recipients::{self, Recipient};
use crate::turns::Turn;

/// Records of an exchange that a page shows.
const RECORDS: usize = 500;
/// Bytes of a part that a page shows; the rest is counted.
const SHOWN: usize = 256 << 10;
/// What an item of a turn costs beside its texts: its elements.
const ITEM: usize = 64;

struct Found {
    origin: Origin,
    batch: u64,
    position: u64,
    leaf: Value,
}

/// The page; none where no proven record names the exchange.
///
/// # Errors
/// As queries fail, or as the store does not give content again.
pub(super) async fn write(
    visit: &Visit,
    standing: &Standing,
    exchange: &ExchangeId,
    access: &Access,
) -> anyhow::Result<Option<String>> {
    let sql = format!(
        "SELECT origin, batch, position, leaf FROM records WHERE exchange = {} ORDER BY origin, position LIMIT {RECORDS}",
        quoted(exchange.as_str())
    );
    let mut found = Vec::new();
    for row in rows::ask(&visit.context, &sql, RECORDS).await? {
        let text = |column| row.text(column).context("a proven row");
        let leaf = serde_json::from_str(text(3)?).context("a proven leaf")?;
        found.push(Found {
            origin: Origin::new(text(0)?)?,
            batch: row.count(1),
            position: row.count(2),
            leaf,
        });
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut facts = facts(visit, exchange).await?;
    let sent_to = recipients::of(found.iter().map(|one| &one.leaf));
    if !sent_to.is_empty() && !facts.is_empty() {
        let told: Vec<String> = sent_to.iter().map(Recipient::told).collect();
        facts.push(("Sent to", told.join("; ")));
    }
    let shown = content_access(access, visit, exchange)?;
    let parts = if shown { opened(visit, exchange, &found)? } else { Vec::new() };
    let frame = Frame { title: &format!("Exchange {exchange}"), tab: "/exchanges", sql: Some(&sql) };
    Ok(Some(page(&frame, visit, standing, |html| {
        html.open("dl", &[("class", "facts")]).line();
        for (name, text) in &facts {
            described(html, name, text);
        }
        html.close("dl").line();
        for one in &found {
            record(html, one, &parts);
        }
        let text = match shown {
            true => {
                "Content was opened with the key table, and is what the records commit to wherever it says proven."
            }
            false => "Content is not shown: `auditor serve` was started without `--content` and `--reason`.",
        };
        html.element("p", &[("class", "aside")], text).line();
    })))
}

/// What is asked first of an exchange.
async fn facts(visit: &Visit, exchange: &ExchangeId) -> anyhow::Result<Vec<(&'static str, String)>> {
    let sql = format!(
        "SELECT CAST(started_at AS BIGINT) AS began, CAST(ended_at AS BIGINT) AS ended, {BECAME} AS became, consumer, team, model, provider, \
         status, input_tokens, output_tokens, usage_source, cost, currency, attempts_cost, attempts_currency FROM exchanges WHERE exchange = {} LIMIT 1",
        quoted(exchange.as_str())
    );
    let found = rows::ask(&visit.context, &sql, 1).await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    let text = |column: usize| row.text(column).unwrap_or("—").replace('_', " ");
    let at = |column: usize| row.at(column).map_or("not recorded".into(), time);
    let tokens = |column: usize| row.number(column).map_or("unknown".into(), number);
    let (answer, tried) = ((row.amount(11), row.text(12)), (row.amount(13), row.text(14)));
    let mut facts = vec![
        ("Began", at(0)),
        ("Ended", at(1)),
        ("End", text(2)),
        ("Consumer", row.text(3).unwrap_or("—").to_owned()),
        ("Team", row.text(4).unwrap_or("—").to_owned()),
        ("Model", row.text(5).unwrap_or("—").to_owned()),
        ("Provider", row.text(6).unwrap_or("—").to_owned()),
        ("Status", text(7)),
        ("Tokens", format!("{} in, {} out (from: {})", tokens(8), tokens(9), text(10))),
        ("Cost", total(answer, tried)),
    ];
    if tried.0.is_some() {
        facts.push(("Of it tried before", cost(tried.0, tried.1)));
    }
    Ok(facts)
}

/// Reads the exchange's content again, and holds it against the records.
fn opened(visit: &Visit, exchange: &ExchangeId, found: &[Found]) -> anyhow::Result<Vec<PartContent>> {
    let reader = Reader::new(&visit.opened);
    let mut parts = Vec::new();
    let mut batches: Vec<_> = found.iter().map(|one| (one.origin.clone(), one.batch)).collect();
    batches.dedup();
    for (origin, number) in batches {
        let (_, batch) = reader.batch(&origin, number).context("reading the batch again")?;
        reader.parts(&batch, Some(exchange), &mut |part| {
            parts.push(part);
            true
        })?;
    }
    parts.sort_by_key(|part| (part.position, part.part.part));
    Ok(parts)
}

fn record(html: &mut Html, found: &Found, parts: &[PartContent]) {
    let kind = found.leaf.get("kind").and_then(Value::as_str).unwrap_or("?");
    let at = found.leaf.get("at").and_then(Value::as_i64).map_or("not recorded".into(), time);
    html.open("section", &[("class", "record")]).element("h2", &[], &format!("{kind}, {at}")).line();
    let place = format!("Position {} of {}, batch {}", found.position, found.origin, found.batch);
    html.element("p", &[("class", "aside")], &place).line();
    html.open("dl", &[("class", "leaf")]).line();
    each_fact(&found.leaf, "", &mut |name, text| described(html, name, text));
    html.close("dl").line();
    commitments(html, &found.leaf);
    for part in parts.iter().filter(|part| part.position == found.position) {
        self::part(html, part);
    }
    html.close("section").line();
}

/// What the record commits to.
fn commitments(html: &mut Html, leaf: &Value) {
    let Some(parts) = leaf.get("parts").and_then(Value::as_array).filter(|parts| !parts.is_empty()) else {
        return;
    };
    let rows: Vec<Vec<table::Entry>> = parts
        .iter()
        .map(|part| {
            let text = |key: &str| {
                let value = part.get(key).cloned().unwrap_or_default();
                value.as_str().map_or_else(
                    || if value.is_null() { "—".into() } else { value.to_string() },
                    str::to_owned,
                )
            };
            ["part", "media_type", "length", "commitment"].map(|key| text(key).into()).to_vec()
        })
        .collect();
    table::write(
        html,
        "Content that the record commits to",
        &[
            ("Part", Cell::Text),
            ("Media type", Cell::Text),
            ("Bytes", Cell::Number),
            ("Commitment", Cell::Code),
        ],
        &rows,
    );
}

fn part(html: &mut Html, part: &PartContent) {
    let title = format!("Content: {}, {}", part.part.part.as_str(), part.state.as_str().replace('_', " "));
    html.open("section", &[("class", "content")]).element("h3", &[], &title).line();
    let mut room = Room::new();
    match (turns_of(part), content::text(part)) {
        (Some(turns), _) => turns.iter().for_each(|turn| say(html, turn, &mut room)),
        (None, Some(body)) => block(html, &body, &mut room),
        (None, None) => _ = html.paragraph("Nothing that can be read as text."),
    }
    if room.is_cut {
        let bytes = part.opened.as_ref().map_or(0, |(_, bytes)| bytes.len());
        html.paragraph(&format!(
            "And more: {} bytes in all; `auditor show` prints them.",
            number(bytes as u64)
        ));
    }
    html.close("section").line();
}

/// How much of a part still has room on the page, whatever it is cut into.
struct Room {
    left: usize,
    /// Whether something had none.
    is_cut: bool,
}

impl Room {
    fn new() -> Self {
        Self { left: SHOWN, is_cut: false }
    }

    /// As much of the text as there is room for, which that much and `more` is then taken from; none where there is no room at all.
    fn take<'a>(&mut self, text: &'a str, more: usize) -> Option<&'a str> {
        let end = text.floor_char_boundary(self.left);
        self.is_cut |= self.left == 0 || end < text.len();
        let shown = (self.left > 0).then(|| text.get(..end)).flatten();
        self.left = if self.is_cut { 0 } else { self.left.saturating_sub(end + more) };
        shown
    }
}

fn say(html: &mut Html, turn: &Turn, room: &mut Room) {
    for item in &turn.items {
        if room.is_cut {
            return;
        }
        let (label, body) = item.said(&turn.role);
        let Some(label) = room.take(&label, ITEM) else { return };
        html.element("h4", &[], label).line();
        block(html, &body, room);
    }
}

/// Text of others, line by line.
fn block(html: &mut Html, body: &str, room: &mut Room) {
    html.open("pre", &[("class", "said")]);
    for line in body.lines() {
        let Some(line) = room.take(line, 1) else { break };
        html.text(line).line();
    }
    html.close("pre").line();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::Item;

    fn written(write: impl FnOnce(&mut Html, &mut Room)) -> (usize, bool) {
        let mut html = Html::served("", "");
        let mut room = Room::new();
        write(&mut html, &mut room);
        (html.finish().len(), room.is_cut)
    }

    #[test]
    fn a_part_has_the_same_room_in_one_piece_and_in_a_million() {
        let text = |text: &str| Item::Text { text: text.to_owned() };
        let of = |items: Vec<Item>| Turn { role: "user".into(), items };
        let call = |name: String| Item::ToolCall { name, id: "1".into(), arguments: "{}".into() };
        let most = 2 * SHOWN;
        for (size, is_cut) in [
            written(|html, room| block(html, &"\n".repeat(5_000_000), room)),
            written(|html, room| block(html, &"\u{e9}".repeat(SHOWN), room)),
            written(|html, room| say(html, &of(vec![text("x"); 500_000]), room)),
            written(|html, room| say(html, &of(vec![call("n".repeat(SHOWN + 1)); 9]), room)),
            written(|html, room| (0..500_000).for_each(|_| say(html, &of(vec![text("")]), room))),
            written(|html, room| {
                (0..20).for_each(|_| say(html, &of(vec![text(&"y".repeat(SHOWN / 4))]), room))
            }),
        ] {
            assert!(is_cut && size < most, "{size}");
        }
        let (size, is_cut) = written(|html, room| {
            say(html, &of(vec![text("one\ntwo"), call("tool".into())]), room);
            block(html, &"z".repeat(SHOWN / 2), room);
        });
        assert!(!is_cut && size > SHOWN / 2, "{size}");
    }
}
