//! The live tap's sinks: where leaves go besides the store.
//!
//! - `ocsf`: a leaf as an OCSF event; `alerts`: which leaves somebody must react to
//! - `syslog`: RFC 5424 over TLS; `webhook`: POSTs; `loki`: pushes to Grafana Loki; the topic is `evidence`'s
//!
//! Which leaves come when, and what is sent again, is [`evidence::tap`]'s.

mod alerts;
mod loki;
mod ocsf;
mod post;
mod syslog;
pub(crate) mod tls;
mod wait;
mod webhook;

use std::sync::Arc;

use anyhow::Context as _;
use evidence::tap::{KafkaTap, OpenSink, Render, Sink, SinkFigures, Tap, TapItem, TapLeaf, Wanted};

use crate::config::{Loaded, TapFiles, TapFormat, TapKind, TapOnly, TapSink};

pub(crate) use self::loki::REASONS as PASSED_BY;

/// What is kept for sinks that are behind, where nothing is typed.
pub(crate) const KEEP: u64 = 256 << 20;
/// What the system may hold of what was written to a sink: more, and it could not be seen whether the sink goes on.
const SEND_BUFFER: usize = 256 << 10;

/// The tap as configured; `None` where no sink is.
///
/// # Errors
/// TLS that cannot be used.
pub(crate) fn of(loaded: &Loaded) -> anyhow::Result<Option<Arc<Tap>>> {
    let evidence = &loaded.config.evidence;
    let mut sinks = Vec::new();
    for (index, (sink, files)) in evidence.tap.iter().zip(&loaded.tap).enumerate() {
        let figures = Arc::default();
        let open = open(loaded, sink, files, &figures)
            .with_context(|| format!("`evidence.tap[{index}]` is `{}`: cannot be used", sink.name))?;
        sinks.push(evidence::tap::TapSink { name: sink.name.clone(), wanted: wanted(sink), open, figures });
    }
    let keep_bytes = evidence.tap_keep.unwrap_or(KEEP);
    Ok((!sinks.is_empty()).then(|| Arc::new(Tap { sinks, keep_bytes })))
}

fn wanted(sink: &TapSink) -> Wanted {
    let kinds: Vec<&str> = sink.kinds.iter().map(|kind: &TapKind| kind.as_str()).collect();
    let only = sink.only;
    Arc::new(move |leaf: &TapLeaf| {
        (kinds.is_empty() || kinds.contains(&leaf.kind.as_str()))
            && (only == TapOnly::All || alerts::is_alert(leaf))
    })
}

/// An item in the format of a sink.
fn render(format: TapFormat) -> Render {
    match format {
        TapFormat::Ocsf => Arc::new(|item| ocsf::event(item).to_string().into_bytes()),
        TapFormat::Leaf => Arc::new(|item| match item {
            TapItem::Leaf(leaf) => leaf.bytes.to_vec(),
            TapItem::Missed(missed) => missed.to_json(),
        }),
    }
}

fn open(
    loaded: &Loaded,
    sink: &TapSink,
    files: &TapFiles,
    figures: &Arc<SinkFigures>,
) -> anyhow::Result<OpenSink> {
    let who = loaded.config.gateway.clone();
    let render = render(sink.format);
    if let Some(kafka) = &sink.kafka {
        let connection = kafka.connection(files.secret.as_ref().map(|secret| secret.expose()));
        let topic = kafka.topic.clone();
        return Ok(Arc::new(move || -> Box<dyn Sink> {
            Box::new(KafkaTap::new(connection.clone(), &who, &topic, Arc::clone(&render)))
        }));
    }
    let tls = tls::client(files)?;
    if let Some(settings) = &sink.syslog {
        let settings = syslog::Settings { typed: settings.clone(), host: who, tls, render };
        return Ok(Arc::new(move || -> Box<dyn Sink> { Box::new(syslog::Syslog::new(settings.clone())) }));
    }
    if let Some(typed) = &sink.loki {
        let settings = loki::Settings {
            name: sink.name.clone(),
            typed: typed.clone(),
            password: files.secret.clone(),
            token: files.token.clone(),
            tls,
            figures: Arc::clone(figures),
        };
        return Ok(Arc::new(move || -> Box<dyn Sink> { Box::new(loki::Loki::new(settings.clone())) }));
    }
    let Some(typed) = &sink.webhook else {
        anyhow::bail!("wanted one of `kafka`, `syslog`, `webhook` and `loki`")
    };
    let settings = webhook::Settings {
        typed: typed.clone(),
        format: sink.format,
        secret: files.secret.clone(),
        token: files.token.clone(),
        tls,
        render,
    };
    Ok(Arc::new(move || -> Box<dyn Sink> { Box::new(webhook::Webhook::new(settings.clone())) }))
}
