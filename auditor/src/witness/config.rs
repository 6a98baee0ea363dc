//! A witness's configuration.
//!
//! ```yaml
//! name: witness.example/w1            # as in its verifier key
//! key: witness.key                    # auditor witness keygen
//! state: state                        # made with the key
//! listen: 127.0.0.1:8091
//! logs:                               # verifier keys of the logs; the name of each is its log's origin
//!   - "acme/registry/log+6f3cf7ae+AbGq..."
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemas::note::VerifyingKey;
use serde::Deserialize;

/// Why a configuration is not taken: all problems, each on its own line.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {problems}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    problems: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    name: String,
    key: PathBuf,
    state: PathBuf,
    listen: String,
    logs: Vec<String>,
}

/// What was typed, with its meaning.
#[derive(Debug)]
pub struct Config {
    /// The witness's name.
    pub name: String,
    /// Its key file.
    pub key: PathBuf,
    /// Its state folder.
    pub state: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The logs' keys.
    pub logs: Vec<VerifyingKey>,
}

impl Config {
    /// Reads a configuration; paths in it are relative to it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |problems: String| ConfigError { path: path.to_owned(), problems };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let typed: Typed = serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let mut problems = Vec::new();
        let listen = typed.listen.parse::<SocketAddr>();
        if listen.is_err() {
            problems.push(format!(
                "`listen` is `{}`: wanted an address and port as `127.0.0.1:8091`",
                typed.listen
            ));
        }
        let mut logs: Vec<VerifyingKey> = Vec::new();
        for text in &typed.logs {
            match text.parse::<VerifyingKey>() {
                Ok(key) if logs.iter().any(|known| known.name() == key.name()) => {
                    problems
                        .push(format!("`logs` names `{}` twice: wanted one key for each log", key.name()));
                }
                Ok(key) => logs.push(key),
                Err(error) => problems.push(format!("`logs` holds `{text}`: {error}")),
            }
        }
        if typed.logs.is_empty() {
            problems.push("`logs` is empty: wanted the verifier key of at least one log".into());
        }
        match listen {
            Ok(listen) if problems.is_empty() => Ok(Self {
                name: typed.name,
                key: base.join(typed.key),
                state: base.join(typed.state),
                listen,
                logs,
            }),
            _ => Err(failed(problems.join("\n"))),
        }
    }
}
