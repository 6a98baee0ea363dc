//! One version's bytes: into memory where it is small, else into a private file that has no name any more.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::client::{Bucket, Fault};
use super::listing::Version;

/// Larger objects go to a file.
const IN_MEMORY: u64 = 8 << 20;
/// Tries of one object: each begins anew, since a body may break in its middle.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Bytes that were read.
#[derive(Debug)]
pub enum Body {
    /// A file, at its beginning.
    File(File),
    /// Bytes.
    Memory(Bytes),
}

/// Reads a version whole; exactly as many bytes as the listing says.
///
/// # Errors
/// What the store answered at the last try.
pub(super) async fn fetch(
    bucket: &Bucket,
    key: &str,
    version: &Version,
    temporary: &Path,
) -> Result<Body, Fault> {
    let mut pause = FIRST_PAUSE;
    let mut tried = 1;
    loop {
        match once(bucket, key, version, temporary).await {
            Err(fault) if fault.is_passing() && tried < TRIES => {
                tracing::debug!(key, %fault, tried, "reading again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                tried += 1;
            }
            other => return other,
        }
    }
}

async fn once(bucket: &Bucket, key: &str, version: &Version, temporary: &Path) -> Result<Body, Fault> {
    bucket.count();
    let request = bucket
        .client
        .get_object()
        .bucket(&bucket.address.bucket)
        .key(key)
        .version_id(&version.id)
        .set_expected_bucket_owner(bucket.owner.clone());
    let got = request.send().await.map_err(|error| Fault::of(&error))?;
    let mut body = got.body;
    let mut memory = BytesMut::new();
    let mut file = None;
    if version.length > IN_MEMORY {
        file = Some(tempfile::tempfile_in(temporary).map_err(local)?);
    }
    let mut length = 0_u64;
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| Fault::own(format!("the body broke off: {error}")))?;
        length += part.len() as u64;
        if length > version.length {
            return Err(wrong(length, version.length));
        }
        match &mut file {
            Some(file) => file.write_all(&part).map_err(local)?,
            None => memory.extend_from_slice(&part),
        }
    }
    if length != version.length {
        return Err(wrong(length, version.length));
    }
    Ok(match file {
        Some(mut file) => {
            file.rewind().map_err(local)?;
            Body::File(file)
        }
        None => Body::Memory(memory.freeze()),
    })
}

fn wrong(length: u64, listed: u64) -> Fault {
    Fault::own(format!("the store listed {listed} bytes and gave {length}"))
}

/// The auditor's own disk: another try does not help.
fn local(error: io::Error) -> Fault {
    Fault { status: Some(499), code: "TemporaryFile".into(), message: error.to_string() }
}
