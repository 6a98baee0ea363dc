//! A store in a bucket, `s3://BUCKET[/PREFIX]`. Read-only by construction: this module makes GET, HEAD and LIST requests.
//!
//! ```text
//! open:  ListObjectVersions to the end (versions and delete markers)      -> Listing
//! read:  GET of one exact version -> memory, or an unlinked private file  -> Opened
//! ```
//! A name is listed where it has at least one version, also where a delete marker hides it: what is hidden can still be
//! proven, and that it is hidden is a finding of [`crate::bucket`].

mod ahead;
mod client;
mod fetch;
mod listing;

pub use client::{Address, Bucket, Fault, Settings};
pub use fetch::Body;
pub(crate) use listing::micros;
pub use listing::{Listing, Marker, Named, Version};

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;

use super::{Entry, EntryKind, Folders, Opened, Source, SourceError};
use ahead::Ahead;

/// Small objects that [`S3Source::read_all`] reads at one time.
const AT_ONCE: usize = 32;

/// Runs requests on threads of its own, so that they can be waited for anywhere, also inside another runtime.
#[derive(Debug)]
struct Worker(Option<Runtime>);

impl Worker {
    fn new() -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(threads)
            .thread_name("s3")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    fn start<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> mpsc::Receiver<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        if let Some(runtime) = &self.0 {
            runtime.spawn(async move {
                // Whoever asked may be gone.
                let _ = sender.send(work.await);
            });
        }
        receiver
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A bucket's prefix, as it was listed once.
#[derive(Debug)]
pub struct S3Source {
    bucket: Bucket,
    listing: Listing,
    temporary: PathBuf,
    ahead: Arc<Ahead>,
    worker: Worker,
}

impl S3Source {
    /// Connects and lists every version and marker under the prefix. Large objects pass through files in `temporary`,
    /// a folder that only the auditor can read.
    ///
    /// # Errors
    /// No credentials or region, a bucket that cannot be listed to its end.
    pub fn open(address: &Address, settings: &Settings, temporary: PathBuf) -> anyhow::Result<Self> {
        let worker = Worker::new()?;
        let connect = client::connect(address.clone(), settings.clone());
        let bucket = wait(&worker.start(connect))??;
        let of = bucket.clone();
        let listing = wait(&worker.start(async move { listing::list(&of).await }))??;
        Ok(Self { bucket, listing, temporary, ahead: Arc::new(Ahead::default()), worker })
    }

    /// Connects without listing.
    ///
    /// # Errors
    /// No credentials or region.
    pub fn connect(address: &Address, settings: &Settings) -> anyhow::Result<(Bucket, Runtime)> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let bucket = runtime.block_on(client::connect(address.clone(), settings.clone()))?;
        Ok((bucket, runtime))
    }

    /// The bucket.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// What was listed.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Which version stands for its name from now on.
    pub fn choose(&mut self, name: &str, version: usize) {
        if let Some(named) = self.listing.objects.get_mut(name) {
            let version = version.min(named.versions.len().saturating_sub(1));
            if named.chosen != version {
                // Another version may have been read ahead.
                drop(self.ahead.take(name));
            }
            named.chosen = version;
        }
    }

    /// Runs requests and waits for them.
    ///
    /// # Errors
    /// The worker died.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        wait(&self.worker.start(work))
    }

    /// Where large objects pass through.
    pub fn temporary(&self) -> &PathBuf {
        &self.temporary
    }

    /// Reads one version of a name by itself; nothing is asked for ahead.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_version(&self, name: &str, version: &Version) -> Result<Opened, SourceError> {
        opened(name, self.start(name, version).recv())
    }

    /// Reads small objects, some at one time and in order; nothing is asked for ahead. `None` where a name has no
    /// version, more than `limit` bytes, or none that can be read.
    ///
    /// # Errors
    /// The worker died.
    pub fn read_all(&self, names: Vec<String>, limit: u64) -> anyhow::Result<Vec<Option<Bytes>>> {
        let wanted: Vec<Option<(String, Version)>> = names
            .iter()
            .map(|name| {
                let version = self.listing.objects.get(name).and_then(Named::chosen)?;
                (version.length <= limit).then(|| (self.bucket.key(name), version.clone()))
            })
            .collect();
        let (bucket, temporary) = (self.bucket.clone(), self.temporary.clone());
        self.run(async move {
            let read = futures_util::stream::iter(wanted).map(|wanted| {
                let (bucket, temporary) = (&bucket, &temporary);
                async move {
                    let (key, version) = wanted?;
                    match fetch::fetch(bucket, &key, &version, temporary).await {
                        Ok(Body::Memory(bytes)) => Some(bytes),
                        Ok(Body::File(_)) | Err(_) => None,
                    }
                }
            });
            read.buffered(AT_ONCE).collect().await
        })
    }

    /// Starts reading `name` unless its turn has come and gone.
    fn start(&self, name: &str, version: &Version) -> mpsc::Receiver<Result<Body, Fault>> {
        let (bucket, ahead) = (self.bucket.clone(), self.ahead.clone());
        let (key, version, temporary) = (self.bucket.key(name), version.clone(), self.temporary.clone());
        self.worker.start(async move {
            let _turn = ahead.turns.acquire().await;
            fetch::fetch(&bucket, &key, &version, &temporary).await
        })
    }
}

fn wait<T>(receiver: &mpsc::Receiver<T>) -> anyhow::Result<T> {
    receiver.recv().map_err(|_| anyhow::anyhow!("the thread that talks to the store ended"))
}

impl Source for S3Source {
    fn describe(&self) -> String {
        self.bucket.describe()
    }

    fn folders(&self) -> Folders {
        Folders { names: self.listing.folders(), ..Folders::default() }
    }

    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let objects = self.listing.in_folder(folder);
        Ok(objects
            .filter_map(|(last, named)| {
                let version = named.chosen()?;
                let stamp = format!("{} {}", version.id, version.last_modified);
                Some(Entry { name: last.to_owned(), kind: EntryKind::File, length: version.length, stamp })
            })
            .collect())
    }

    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        let absent = || SourceError::Absent(name.into());
        let version = self.listing.objects.get(name).and_then(Named::chosen).ok_or_else(absent)?;
        let started = self.ahead.take(name).unwrap_or_else(|| self.start(name, version));
        for (next, version) in self.ahead.next(&self.listing, name) {
            let started = self.start(&next, &version);
            self.ahead.put(next, version.length, started);
        }
        opened(name, started.recv())
    }
}

fn opened(name: &str, read: Result<Result<Body, Fault>, mpsc::RecvError>) -> Result<Opened, SourceError> {
    let failed = |error| SourceError::Io { name: name.into(), error };
    match read {
        Ok(Ok(Body::Memory(bytes))) => Ok(Opened::Memory(bytes)),
        Ok(Ok(Body::File(file))) => Ok(Opened::File(file)),
        Ok(Err(fault)) if fault.is_absent() => Err(SourceError::Absent(name.into())),
        Ok(Err(fault)) => Err(failed(io::Error::other(fault.to_string()))),
        Err(_) => Err(failed(io::Error::other("the thread that talks to the store ended"))),
    }
}
