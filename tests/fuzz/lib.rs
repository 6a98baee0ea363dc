//! The cargo-fuzz targets, by name.

mod targets;

/// Runs the target `name` on `bytes`.
pub fn run(name: &str, bytes: &[u8]) {
    if let Some(target) = targets::TARGETS.iter().find(|target| target.name == name) {
        (target.run)(bytes);
    }
}
