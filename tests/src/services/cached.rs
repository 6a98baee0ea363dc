//! Where the binaries of services are.

use std::path::{Path, PathBuf};

/// A binary that `tests/run` built into the cache folder: `<cache>/affidavit/<name>-<version>/<name>`.
///
/// # Panics
/// Where it is not there.
pub fn cached(name: &str, version: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .expect("XDG_CACHE_HOME or HOME");
    let path = cache.join("affidavit").join(format!("{name}-{version}")).join(name);
    assert!(path.exists(), "`{}` is not built: `tests/run s3` builds it", path.display());
    path
}
