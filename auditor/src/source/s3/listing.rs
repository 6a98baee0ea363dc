//! Every version and every delete marker under a prefix, listed to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use aws_smithy_types::DateTime;

use super::client::{Bucket, Fault};

/// More versions and markers than this are not judged: a bound on memory.
const MOST: u64 = 20_000_000;
/// Tries of a page beyond those of the client.
const TRIES: u32 = 3;

/// One version of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// Its id; `null` where it was written without versioning.
    pub id: String,
    /// Its length.
    pub length: u64,
    /// When the store took it, microseconds UTC.
    pub last_modified: i64,
    /// Whether it is what a plain GET gives.
    pub latest: bool,
    /// Where the store keeps it.
    pub storage_class: String,
}

/// A delete marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its version id.
    pub id: String,
    /// When it was put, microseconds UTC.
    pub last_modified: i64,
    /// Whether it hides the name now.
    pub latest: bool,
}

/// All that is under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
    /// Its delete markers, oldest first.
    pub markers: Vec<Marker>,
    /// Which version stands for the name: the oldest, until they were compared.
    pub chosen: usize,
}

impl Named {
    /// The version that stands for the name; `None` where there are only markers.
    pub fn chosen(&self) -> Option<&Version> {
        self.versions.get(self.chosen)
    }
}

/// What a prefix holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// By name relative to the prefix.
    pub objects: BTreeMap<String, Named>,
    /// Accounts that own versions, as the store names them.
    pub owners: BTreeSet<String>,
    /// Versions.
    pub versions: u64,
    /// Delete markers.
    pub markers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pages that were asked for.
    pub pages: u64,
}

impl Listing {
    /// Every folder that holds a version.
    pub fn folders(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for (name, named) in &self.objects {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            if !named.versions.is_empty() && seen.insert(folder) {
                out.push(folder.to_owned());
            }
        }
        out.sort();
        out
    }
    /// What a folder holds: the last part of the name, and what is under it.
    pub fn in_folder<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Named)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let length = prefix.len();
        self.objects
            .range(prefix.clone()..)
            .take_while(move |(name, _)| name.starts_with(&prefix))
            .map(move |(name, named)| (&name[length..], named))
            .filter(|(last, _)| !last.contains('/'))
    }
    fn add_version(&mut self, name: &str, version: Version) {
        self.versions += 1;
        self.bytes += version.length;
        self.objects.entry(name.to_owned()).or_default().versions.push(version);
    }
    fn settle(&mut self) {
        for named in self.objects.values_mut() {
            // Pages give the newest first; within one second the order of the answer decides.
            named.versions.reverse();
            named.versions.sort_by_key(|version| version.last_modified);
            named.markers.reverse();
            named.markers.sort_by_key(|marker| marker.last_modified);
        }
    }
}

pub(crate) fn micros(time: Option<&DateTime>) -> i64 {
    time.map_or(0, |time| i64::try_from(time.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// Lists to the end.
///
/// # Errors
/// A page that the store refuses, pages that do not go on, more than this auditor holds.
pub(super) async fn list(bucket: &Bucket) -> anyhow::Result<Listing> {
    let mut out = Listing::default();
    let (mut key, mut version): (Option<String>, Option<String>) = (None, None);
    let prefix = match bucket.address.prefix.as_str() {
        "" => None,
        prefix => Some(format!("{prefix}/")),
    };
    loop {
        let page = page(bucket, prefix.clone(), key.clone(), version.clone()).await?;
        out.pages += 1;
        for listed in page.versions() {
            let key = listed.key().context("the store lists a version without a key")?;
            let Some(name) = bucket.name(key) else {
                bail!("the store lists `{key}`, which is not under the prefix that was asked for")
            };
            if let Some(owner) = listed.owner().and_then(|owner| owner.id()) {
                out.owners.insert(owner.to_owned());
            }
            let version = Version {
                id: listed.version_id().unwrap_or("null").to_owned(),
                length: listed.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                last_modified: micros(listed.last_modified()),
                latest: listed.is_latest().unwrap_or(false),
                storage_class: listed
                    .storage_class()
                    .map(|class| class.as_str().to_owned())
                    .unwrap_or_default(),
            };
            out.add_version(name, version);
        }
        for listed in page.delete_markers() {
            let Some(name) = listed.key().and_then(|key| bucket.name(key)) else { continue };
            out.markers += 1;
            out.objects.entry(name.to_owned()).or_default().markers.push(Marker {
                id: listed.version_id().unwrap_or("null").to_owned(),
                last_modified: micros(listed.last_modified()),
                latest: listed.is_latest().unwrap_or(false),
            });
        }
        ensure!(
            out.versions + out.markers <= MOST,
            "more than {MOST} versions and delete markers: not judged; verify each deployment's prefix by itself"
        );
        if !page.is_truncated().unwrap_or(false) {
            break;
        }
        let next =
            (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
        let goes_on = next.0.is_some() && (&next.0, &next.1) != (&key, &version) && next.0 >= key;
        ensure!(
            goes_on,
            "the store says that its listing goes on, and not from where: it cannot be read to its end"
        );
        (key, version) = next;
    }
    out.settle();
    Ok(out)
}

async fn page(
    bucket: &Bucket,
    prefix: Option<String>,
    key: Option<String>,
    version: Option<String>,
) -> anyhow::Result<aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput> {
    let mut tried = 1;
    loop {
        bucket.count();
        let request = bucket
            .client
            .list_object_versions()
            .bucket(&bucket.address.bucket)
            .set_prefix(prefix.clone())
            .set_key_marker(key.clone())
            .set_version_id_marker(version.clone())
            .set_expected_bucket_owner(bucket.owner.clone());
        match request.send().await {
            Ok(page) => return Ok(page),
            Err(error) => {
                let fault = Fault::of(&error);
                if fault.is_passing() && tried < TRIES {
                    tokio::time::sleep(Duration::from_millis(500 * u64::from(tried))).await;
                    tried += 1;
                    continue;
                }
                return Err(fault).with_context(|| {
                    format!("{}: the versions cannot be listed (s3:ListBucketVersions)", bucket.describe())
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_only_markers_is_no_entry_and_names_stay_in_their_folder() {
        let mut listing = Listing::default();
        listing.add_version("a/b/c/1", Version { id: "2".into(), last_modified: 9, ..Version::default() });
        listing.add_version("a/b/c/1", Version { id: "1".into(), last_modified: 5, ..Version::default() });
        listing.add_version("a/b/c/d/2", Version::default());
        listing.add_version("a/b/cc", Version::default());
        listing.objects.entry("x/gone".into()).or_default().markers.push(Marker {
            id: "m".into(),
            last_modified: 1,
            latest: true,
        });
        listing.settle();
        assert_eq!(listing.folders(), ["a/b", "a/b/c", "a/b/c/d"]);
        assert_eq!(listing.in_folder("a/b/c").map(|(name, _)| name).collect::<Vec<_>>(), ["1"]);
        assert_eq!(listing.objects["a/b/c/1"].chosen().map(|v| v.id.as_str()), Some("1"));
    }
}
