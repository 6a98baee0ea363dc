//! Where the files of services are.

use std::path::{Path, PathBuf};

/// What `tests/run` put into the cache folder, a binary or a folder: `<cache>/affidavit/<name>-<version>/<name>`.
///
/// # Panics
/// Where it is not there.
pub fn cached(name: &str, version: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .expect("XDG_CACHE_HOME or HOME");
    let path = cache.join("affidavit").join(format!("{name}-{version}")).join(name);
    assert!(
        path.exists(),
        "`{}` is not there: `tests/run s3`, `tests/run kafka` and `tests/run loki` make what they need",
        path.display()
    );
    path
}
