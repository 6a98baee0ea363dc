//! TLS as a client: to brokers, to sinks of the tap, and to a collector.

use std::path::{Path, PathBuf};

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::read::Reader;

/// TLS to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM file of the roots to trust; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file of the gateway's certificate, where the server asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Reads the part.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<ClientTls> {
    let mut f = Reader::new(node, path, base, problems);
    let tls = ClientTls { ca: f.path("ca"), certificate: f.path("certificate"), key: f.path("key") };
    if tls.certificate.is_some() != tls.key.is_some() {
        let (place, key) = (node.place, f.fields.path("key"));
        f.fields.report(Problem::at(place, key, "`certificate` and `key` together, or neither"));
    }
    f.fields.finish();
    Some(tls)
}
