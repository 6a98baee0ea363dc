//! What the configurations of `gateway archive` and `gateway registrar` refer to, looked at before anything starts.

use std::path::Path;

use policies::document::{Node, Problem};
use zeroize::Zeroizing;

use super::Out;
use super::check::place;
use super::files::Loader;
use super::kafka_in::KafkaIn;
use crate::secrets;

/// Files and variables that a configuration refers to, with every problem told. Nothing is asked that is not on this machine.
pub(crate) struct Referred<'a>(Loader<'a>);

impl<'a> Referred<'a> {
    /// `root` is the configuration as it was read.
    pub(crate) fn new(root: &'a Node) -> Self {
        Self(Loader::new(root, &variable))
    }

    /// The seed of a key.
    pub(crate) fn seed(&mut self, key: &str, path: &Path) -> Option<Zeroizing<[u8; 32]>> {
        self.0.secret_file(key, path, secrets::parse_seal_key)
    }

    /// The password and the PEM files of a cluster.
    pub(crate) fn kafka(&mut self, key: &str, kafka: &KafkaIn) {
        self.0.connection(key, &kafka.cluster);
    }

    /// A store that is written to straight.
    pub(crate) fn store(&mut self, key: &str, out: &Out) {
        if matches!(out, Out::Kafka(_)) {
            let wanted = "`directory` or `s3`: only a gateway ships through Kafka";
            self.0.problem(&format!("{key}.kafka"), wanted);
        }
    }

    /// Something else that is wrong with what a key refers to.
    pub(crate) fn problem(&mut self, key: &str, path: &Path, wanted: impl Into<String>) {
        let problem = Problem::at(place(self.0.root, key), key, wanted);
        self.0.problems.push(problem.value(path.display().to_string()));
    }

    /// The problems, and what is allowed but should be known.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.0.problems, self.0.warnings)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
