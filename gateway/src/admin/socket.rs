//! The admin socket: `gateway erase` talks over it to the process that serves.
//!
//! A Unix socket that only its owner may open. One JSON line in, one JSON line out.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evidence::{EraseError, EraseReport, EraseRequest, EraseTarget, Erased};
use schemas::{ExchangeId, Identifier};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::app::{App, Pseudonyms};
use crate::hand_over::Handing;

/// The longest line that is read.
const LINE_BYTES: u64 = 64 << 10;

/// What the serving process is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Destroy content keys.
    Erase(EraseAsked),
    /// Give the listening sockets to the gateway that asks (`hand_over`).
    HandOver {},
}

/// Whose content is to be erased: either `exchanges` or `subject`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseAsked {
    /// The ids of exchanges.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exchanges: Vec<String>,
    /// An end user, as callers name them; the process makes the pseudonym.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<String>,
    /// Whether other exchanges under the same key may go too.
    #[serde(default)]
    pub whole_key: bool,
    /// Why: an identifier.
    pub reason: String,
    /// Who asks: an identifier.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The keys are destroyed, and the log says so.
    Erased {
        /// The exchanges whose content is gone now.
        erased: Vec<String>,
        /// Those whose content was gone before.
        already: Vec<String>,
        /// Those that kept no content under a key.
        without_content: Vec<String>,
    },
    /// Nothing was destroyed.
    Refused {
        /// Why.
        message: String,
        /// What else would go, where a key is shared.
        shared: Vec<String>,
    },
}

impl Response {
    /// Of the ledger's answer.
    pub fn of(done: Result<EraseReport, EraseError>) -> Self {
        let ids = |list: &[Erased]| list.iter().map(|one| one.exchange.to_string()).collect();
        match done {
            Ok(report) => Self::Erased {
                erased: ids(&report.erased),
                already: ids(&report.already),
                without_content: report.without_content.iter().map(ToString::to_string).collect(),
            },
            Err(error) => {
                let shared =
                    if let EraseError::Shared { others } = &error { ids(others) } else { Vec::new() };
                Self::Refused { message: error.to_string(), shared }
            }
        }
    }
}

impl EraseAsked {
    /// What the ledger is asked. `pseudonyms` are those of the configuration that made the records.
    ///
    /// # Errors
    /// What of it has no meaning.
    pub fn request(&self, pseudonyms: &Pseudonyms) -> Result<EraseRequest, String> {
        let target = match (&self.subject, self.exchanges.as_slice()) {
            (Some(subject), []) => {
                EraseTarget::Subject(pseudonyms.always(subject).ok_or("the subject has no pseudonym")?)
            }
            (None, ids) if !ids.is_empty() => EraseTarget::Exchanges(
                ids.iter()
                    .map(|id| ExchangeId::new(id.as_str()).map_err(|e| e.to_string()))
                    .collect::<Result<_, _>>()?,
            ),
            _ => return Err("wanted either exchanges or a subject".into()),
        };
        let identifier = |text: &str| Identifier::new(text).map_err(|error| error.to_string());
        Ok(EraseRequest {
            target,
            whole_key: self.whole_key,
            reason: identifier(&self.reason)?,
            actor: self.actor.as_deref().map(identifier).transpose()?,
        })
    }
}

/// Asks the process that serves at `path`. Blocks.
///
/// # Errors
/// Nobody listens there, or the answer cannot be read.
pub fn call(path: &Path, request: &Request) -> io::Result<Response> {
    let mut stream = connect(path)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed the admin socket"));
    }
    Ok(serde_json::from_str(&answer)?)
}

/// Connects to the process that serves at `path`.
pub(crate) fn connect(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    Short::of(path)?.with(|path| std::os::unix::net::UnixStream::connect(path))
}

/// A path that fits into a socket address (108 bytes), also where the real one does not: through its open folder.
struct Short {
    path: PathBuf,
    _folder: Option<std::fs::File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().filter(|_| path.as_os_str().len() > 100);
        let (Some(name), Some(parent)) = (name, path.parent()) else {
            return Ok(Self { path: path.to_owned(), _folder: None });
        };
        let folder = std::fs::File::open(parent)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path: short, _folder: Some(folder) })
    }

    fn with<T>(&self, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        open(&self.path)
    }
}

/// The socket, bound. Removed when dropped, where it is still this one's.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
}

fn file_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket file that stays is replaced by the next start; that of a gateway that took over is not ours.
        if self.file.is_some() && file_of(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Binds `path`; a file that a dead process left there is replaced.
    ///
    /// # Errors
    /// Another process listens there, or the system's.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another gateway listens on this admin socket",
            ));
        }
        Self::replace(path)
    }

    /// Binds `path` in the place of whoever listens there.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn replace(path: &Path) -> io::Result<Self> {
        let short = Short::of(path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = short.with(|path| UnixListener::bind(path))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), file: file_of(path) })
    }

    /// Serves, one connection at a time, for as long as it is polled.
    pub(crate) async fn run(self, app: Arc<App>, handing: Arc<Handing>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if let Err(error) = serve(&app, &handing, stream).await {
                tracing::warn!(%error, "admin socket");
            }
        }
    }
}

async fn serve(app: &Arc<App>, handing: &Arc<Handing>, mut stream: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new((&mut stream).take(LINE_BYTES));
    tokio::time::timeout(Duration::from_secs(10), reader.read_line(&mut line))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no request came"))??;
    let response = match serde_json::from_str(&line) {
        Ok(Request::Erase(asked)) => erase(app, asked).await,
        Ok(Request::HandOver {}) => {
            let handing = Arc::clone(handing);
            // It takes as long as the other one's start: the socket serves on meanwhile.
            tokio::spawn(async move {
                if let Err(error) = handing.give(stream).await {
                    tracing::warn!(%error, "hand-over");
                }
            });
            return Ok(());
        }
        Err(error) => refused(format!("not a request: {error}")),
    };
    let mut answer = serde_json::to_vec(&response)?;
    answer.push(b'\n');
    stream.write_all(&answer).await
}

fn refused(message: impl Into<String>) -> Response {
    Response::Refused { message: message.into(), shared: Vec::new() }
}

async fn erase(app: &App, asked: EraseAsked) -> Response {
    let request = match asked.request(&app.snapshot.load().pseudonyms) {
        Ok(request) => request,
        Err(message) => return refused(message),
    };
    tracing::info!(reason = %request.reason, whole_key = request.whole_key, "erasure asked for");
    Response::of(app.ledger.erase(request).await)
}
