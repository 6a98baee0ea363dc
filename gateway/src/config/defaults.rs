//! What holds where nothing is typed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Drain, DrainAfterAbort, Headers, Limits, Log, LogFormat};

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head: 64 << 10,
            body: 64 << 20,
            body_memory: 512 << 20,
            concurrent: 10_000,
            connections: 20_000,
            header_read: seconds(30),
            body_read: seconds(60),
            admission: seconds(5),
            connect: seconds(10),
            first_byte: seconds(600),
            idle: seconds(600),
            answer: None,
            answer_time: None,
            keep_alive: seconds(75),
            drain: seconds(30),
            archive: seconds(30),
            provider_idle_connections: 256,
            http2_streams: 256,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), bytes: 1 << 20 }
    }
}

impl Default for DrainAfterAbort {
    fn default() -> Self {
        Self::Within(Drain::default())
    }
}

impl Default for Headers {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            deny: list(&["forwarded", "x-forwarded-*", "x-real-ip", "via", "x-affidavit-*"]),
            record_request: list(&[
                "accept",
                "accept-encoding",
                "anthropic-*",
                "content-encoding",
                "content-length",
                "content-type",
                "idempotency-key",
                "openai-*",
                "traceparent",
                "user-agent",
                "x-stainless-*",
            ]),
            record_response: list(&[
                "anthropic-*",
                "apim-request-id",
                "content-encoding",
                "content-length",
                "content-type",
                "date",
                "openai-*",
                "request-id",
                "retry-after",
                "retry-after-ms",
                "x-ms-region",
                "x-ratelimit-*",
                "x-request-id",
                "x-should-retry",
            ]),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

pub(super) fn default_admin() -> String {
    DEFAULT_ADMIN.to_string()
}
pub(super) fn default_batch_age() -> &'static str {
    "10s"
}
pub(super) fn default_batch_size() -> &'static str {
    "64MiB"
}
pub(super) fn default_heartbeat() -> &'static str {
    "5m"
}
pub(super) fn default_segment() -> &'static str {
    "64MiB"
}
pub(super) fn default_spool_bound() -> &'static str {
    "10GiB"
}
pub(super) fn default_spool_keep() -> &'static str {
    "24h"
}
pub(super) fn default_retention() -> &'static str {
    "standard"
}
pub(super) fn yes() -> bool {
    true
}

/// The admin address where none is typed.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
