//! The trust file: read, checked, and refused where it lies inside the store (AU-1).

use std::path::{Path, PathBuf};

use schemas::trust::{Trust, TrustedGateway, TrustedLog};

use crate::report::Report;
use crate::state::State;

/// Why a trust file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// It cannot be read.
    #[error("trust file `{}`: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It lies inside the store: whoever can change the evidence can change it.
    #[error("trust file `{}` lies inside the store: it must come over another channel (AU-1)", path.display())]
    InsideStore {
        /// The file.
        path: PathBuf,
    },
    /// It is no trust file.
    #[error("trust file `{}`: {problem}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, each on its own line.
        problem: String,
    },
}

/// The largest trust file: one that was resolved lists the logs of former keys, some hundred bytes each.
const LIMIT: u64 = 16 << 20;

/// Reads a trust file; `store` is the store's folder.
///
/// # Errors
/// [`TrustFileError`]; all problems of the form at once.
pub fn read(path: &Path, store: Option<&Path>) -> Result<Trust, TrustFileError> {
    let failed = |error| TrustFileError::Io { path: path.to_owned(), error };
    let real = path.canonicalize().map_err(failed)?;
    if let Some(store) = store {
        let store = store.canonicalize().map_err(failed)?;
        if real.starts_with(&store) {
            return Err(TrustFileError::InsideStore { path: path.to_owned() });
        }
    }
    if std::fs::metadata(&real).map_err(failed)?.len() > LIMIT {
        let problem = format!("larger than {LIMIT} bytes");
        return Err(TrustFileError::Form { path: path.to_owned(), problem });
    }
    let text = std::fs::read_to_string(&real).map_err(failed)?;
    parse(&text).map_err(|problem| TrustFileError::Form { path: path.to_owned(), problem })
}

/// The label of pinned trust files in the state's MAC.
const PINNED: &str = "affidavit/auditor/trust/v1";

fn pinned_path(state: &State, deployment: &str) -> PathBuf {
    // A deployment is a part of an origin: it holds no `/`.
    state.folder().join(format!("trust-{deployment}.json"))
}

/// The trust file that was pinned for a deployment, where one was.
///
/// # Errors
/// A pinned file that cannot be read, or that this auditor did not write.
pub fn pinned(state: &State, deployment: &str) -> Result<Option<Trust>, TrustFileError> {
    let path = pinned_path(state, deployment);
    match state.read_authentic(&path, PINNED) {
        Ok(Some(body)) => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| TrustFileError::Form { path, problem: error.to_string() }),
        Ok(None) => {
            Err(TrustFileError::Form { path, problem: "its MAC does not fit the auditor's own key".into() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrustFileError::Io { path, error }),
    }
}

/// Pins a trust file for its deployment.
///
/// # Errors
/// The state folder cannot be written.
pub fn pin(state: &State, trust: &Trust) -> Result<(), TrustFileError> {
    let path = pinned_path(state, &trust.deployment);
    let body = serde_json::to_vec(trust)
        .map_err(|error| TrustFileError::Form { path: path.clone(), problem: error.to_string() })?;
    state.write_authentic(&path, PINNED, &body).map_err(|error| TrustFileError::Io { path, error })
}

/// The trust file of a verified store by which bundles are proven offline: the keys in force, and of logs that a closer
/// ended, up to where their own key counts.
///
/// # Errors
/// What a trust file cannot say.
pub fn resolved(report: &Report) -> Result<Trust, String> {
    let mut trust = report.trust_in_force.clone();
    for log in report.logs() {
        let Some(from) = log.closer_from else { continue };
        let Some(entry) = trust.gateway(&log.origin).cloned() else { continue };
        let narrow = |limit: Option<u64>| Some(limit.map_or(from, |limit| limit.min(from)));
        if let Some(listed) = trust
            .gateways
            .iter_mut()
            .flat_map(|entry| entry.logs.iter_mut().flatten())
            .find(|listed| listed.origin == log.origin)
        {
            listed.size = narrow(listed.size);
            continue;
        }
        let listed = TrustedLog { origin: log.origin.clone(), size: narrow(None), closed: None };
        let (logs, first_origin) = (Some(vec![listed]), Some(log.origin.clone()));
        trust.gateways.push(TrustedGateway { logs, first_origin, last_origin: None, ..entry });
    }
    checked(trust)
}

/// Parses a trust file's text.
///
/// # Errors
/// All problems, each on its own line.
pub fn parse(text: &str) -> Result<Trust, String> {
    checked(serde_saphyr::from_str(text).map_err(|error| error.to_string())?)
}

fn checked(trust: Trust) -> Result<Trust, String> {
    let faults = trust.check();
    if faults.is_empty() {
        return Ok(trust);
    }
    Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_file_inside_the_store_is_refused_also_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        std::fs::create_dir_all(&store).unwrap();
        let yaml = serde_json::to_string(&crate::fixture::trust()).unwrap();
        std::fs::write(store.join("trust.yaml"), &yaml).unwrap();
        std::fs::write(dir.path().join("trust.yaml"), &yaml).unwrap();
        std::os::unix::fs::symlink(store.join("trust.yaml"), dir.path().join("link.yaml")).unwrap();
        assert!(read(&dir.path().join("trust.yaml"), Some(&store)).is_ok());
        for inside in [store.join("trust.yaml"), dir.path().join("link.yaml")] {
            let error = read(&inside, Some(&store)).unwrap_err();
            assert!(matches!(error, TrustFileError::InsideStore { .. }), "{error}");
        }
    }

    #[test]
    fn every_problem_of_a_trust_file_is_named() {
        let text = "v: 1\ndeployment: UPPER\ngateways:\n  - { name: gw1, key: short }\n";
        let problems = parse(text).unwrap_err();
        assert!(problems.contains("deployment") && problems.contains("key"), "{problems}");
        assert!(parse("v: 1\ndeployment: a\ngateways: []\nextra: 1\n").is_err());
    }
}
