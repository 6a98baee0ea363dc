//! The admin socket: `gateway erase`, `gateway hold`, `gateway reship` and `gateway serve --take-over` talk over it to the process that
//! serves.
//!
//! A Unix socket in a folder that only its owner can enter (`place`). One JSON line in, one JSON line out.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evidence::{
    EraseError, EraseReport, EraseRequest, EraseTarget, Erased, HoldAsked as Asked, HoldError, HoldReport,
    HoldRequest, MAX_SCOPES, Reship, ReshipError, ReshipReport, Reshipped,
};
use schemas::holds::Scope;
use schemas::{ExchangeId, Identifier, Origin};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::admin::place::{FileId, Place};
use crate::app::{App, Pseudonyms};
use crate::hand_over::Handing;
use crate::user;

/// The longest line that is read: a hold or an erasure may name as many exchanges as a hold takes at once.
const LINE_BYTES: u64 = 1 << 20;
/// How many are served at once.
const ASKED_AT_ONCE: usize = 16;

/// What the serving process is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Destroy content keys.
    Erase(EraseAsked),
    /// Begin or end a legal hold.
    Hold(HoldAsked),
    /// Put archived batches again.
    Reship(ReshipAsked),
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
}

/// A legal hold is to begin, or, with `release`, to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldAsked {
    /// Its name: that of the case.
    pub hold: String,
    /// Whether it ends.
    #[serde(default)]
    pub release: bool,
    /// Only these exchanges; none: all that the rest says.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exchanges: Vec<String>,
    /// Only these end users', as callers name them (the process makes the pseudonym), or their pseudonyms.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub subjects: Vec<String>,
    /// Only a consumer's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consumer: Option<String>,
    /// Only what began then or later, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from_us: Option<i64>,
    /// Only what began before, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_us: Option<i64>,
    /// Why: an identifier.
    pub reason: String,
}

impl HoldAsked {
    /// What the ledger is asked, by the user `actor`. `shared` makes the pseudonyms that all gateways of the deployment make: those of a configured
    /// key; there are none where this gateway's come from its seal key.
    ///
    /// # Errors
    /// What of it has no meaning.
    pub fn request(
        &self,
        shared: Option<&Pseudonyms>,
        actor: Option<Identifier>,
    ) -> Result<HoldRequest, String> {
        let identifier = |text: &str| Identifier::new(text).map_err(|error| error.to_string());
        let (exchanges, subjects) = (self.exchanges.len().max(1), self.subjects.len().max(1));
        if exchanges.saturating_mul(subjects) > MAX_SCOPES {
            return Err(format!(
                "`--exchange` {} times and `--subject` {} times: wanted at most {MAX_SCOPES} pairs of them in one `hold add`; give several \
                 for the case, each lets its hold cover more",
                self.exchanges.len(),
                self.subjects.len()
            ));
        }
        let scope = Scope {
            consumer: self.consumer.as_deref().map(identifier).transpose()?,
            from: self.from_us,
            to: self.to_us,
            ..Scope::default()
        };
        let mut scopes = vec![scope];
        if !self.subjects.is_empty() {
            let subjects = self.subjects.iter().map(|raw| subject(raw, shared));
            scopes = subjects
                .map(|subject| Ok(Scope { subject: Some(subject?), ..scopes[0].clone() }))
                .collect::<Result<_, String>>()?;
        }
        if !self.exchanges.is_empty() {
            let exchanges = self.exchanges.iter().map(|id| ExchangeId::new(id.as_str()));
            let exchanges = exchanges.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            let of = |scope: &Scope| {
                let scope = scope.clone();
                exchanges
                    .iter()
                    .map(move |id| Scope { exchange: Some(id.clone()), ..scope.clone() })
                    .collect::<Vec<_>>()
            };
            scopes = scopes.iter().flat_map(of).collect();
        }
        Ok(HoldRequest {
            hold: identifier(&self.hold)?,
            asked: if self.release { Asked::End } else { Asked::Begin(scopes) },
            reason: identifier(&self.reason)?,
            actor,
        })
    }
}

/// The pseudonym of whom a hold names.
fn subject(raw: &str, shared: Option<&Pseudonyms>) -> Result<Identifier, String> {
    if Pseudonyms::is_one(raw) {
        return Identifier::new(raw).map_err(|error| error.to_string());
    }
    let shared = shared.ok_or(
        "`--subject`: `evidence.pseudonym_key` is not configured, so every gateway has pseudonyms of its own, and others after a \
         change of its seal key: the hold would leave out exchanges of this subject; wanted one pseudonym key for all gateways \
         (`gateway keygen --pseudonym-key`), or `--subject p:...` for each pseudonym that records name",
    )?;
    shared.always(raw).ok_or_else(|| "the subject has no pseudonym".to_owned())
}

/// Which of the kept batches are to be put again: those that meet all that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReshipAsked {
    /// Only those of which the store lacks an object.
    pub missing: bool,
    /// Only those that were archived then or later, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since_us: Option<i64>,
    /// Only these, as `LOG:NUMBER`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub batches: Vec<String>,
    /// How many seconds the store has to confirm them.
    pub within_s: u64,
}

impl ReshipAsked {
    /// What the ledger is asked.
    ///
    /// # Errors
    /// What of it has no meaning.
    pub fn request(&self) -> Result<Reship, String> {
        let place = |text: &String| {
            let parts = text.rsplit_once(':');
            let place =
                parts.and_then(|(origin, batch)| Some((Origin::new(origin).ok()?, batch.parse().ok()?)));
            place.ok_or_else(|| format!("`{text}` is no batch: wanted a log and its number as `acme/gw1/20261120t101500z-3f9a1c20:7`"))
        };
        Ok(Reship {
            missing: self.missing,
            since_us: self.since_us,
            batches: self.batches.iter().map(place).collect::<Result<_, _>>()?,
            within: Duration::from_secs(self.within_s),
        })
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Became {
    /// Its log.
    pub origin: String,
    /// Its number.
    pub batch: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it is kept here.
    pub is_kept: bool,
    /// How many of its objects were not there.
    pub objects: u64,
    /// Why it was not put.
    pub failed: Option<String>,
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
    /// The hold is recorded.
    Held {
        /// How many records say so.
        records: u64,
        /// Whether the store has them.
        archived: bool,
    },
    /// What became of the batches that were chosen.
    Reshipped {
        /// In the order of their logs.
        batches: Vec<Became>,
        /// How many are kept here.
        kept: u64,
        /// Their bytes.
        kept_bytes: u64,
        /// When the first of them was archived, microseconds UTC.
        oldest_us: Option<i64>,
    },
    /// Nothing was done.
    Refused {
        /// Why.
        message: String,
        /// What else would go, where a key is shared.
        shared: Vec<String>,
    },
}

impl Response {
    /// Nothing was done.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), shared: Vec::new() }
    }

    /// Of what became of a hold.
    pub fn of_hold(done: Result<HoldReport, HoldError>) -> Self {
        match done {
            Ok(HoldReport { records, archived }) => Self::Held { records, archived },
            Err(error) => Self::refused(error.to_string()),
        }
    }

    /// Of what became of kept batches.
    pub fn of_reship(done: Result<ReshipReport, ReshipError>) -> Self {
        let report = match done {
            Ok(report) => report,
            Err(error) => return Self::refused(error.to_string()),
        };
        let ReshipReport { batches, kept, kept_bytes, oldest_us } = report;
        let batches = batches.into_iter().map(|one| {
            let (is_kept, objects, failed) = match one.became {
                Reshipped::Again { objects } => (true, objects, None),
                Reshipped::There => (true, 0, None),
                Reshipped::NotKept => (false, 0, None),
                Reshipped::Failed(why) => (true, 0, Some(why)),
            };
            let (origin, batch, bytes) = (one.origin.to_string(), one.batch, one.bytes);
            Became { origin, batch, bytes, is_kept, objects, failed }
        });
        Self::Reshipped { batches: batches.collect(), kept, kept_bytes, oldest_us }
    }

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
    /// What the ledger is asked, by the user `actor`. `pseudonyms` are those of the configuration that made the records.
    ///
    /// # Errors
    /// What of it has no meaning.
    pub fn request(
        &self,
        pseudonyms: &Pseudonyms,
        actor: Option<Identifier>,
    ) -> Result<EraseRequest, String> {
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
        Ok(EraseRequest { target, whole_key: self.whole_key, reason: identifier(&self.reason)?, actor })
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
    if line.len() as u64 > LINE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, too_long(line.len())));
    }
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed the admin socket"));
    }
    Ok(serde_json::from_str(&answer)?)
}

/// What is said of a request that nobody reads to its end.
fn too_long(bytes: impl std::fmt::Display) -> String {
    format!("a request of {bytes} bytes: wanted at most {LINE_BYTES}; name fewer exchanges at once")
}

/// Connects to the process that serves at `path`.
///
/// # Errors
/// Nobody does (`NotFound`, `ConnectionRefused`), or not who should; or the system's.
pub(crate) fn connect(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    Place::find(path)?.connect()
}

/// The socket, bound. Removed when dropped, where it is still this one's.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    place: Place,
    file: Option<FileId>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket file that stays is replaced by the next start; that of a gateway that took over is not ours.
        let Ok(_lock) = self.place.lock() else { return };
        if self.is_in_place() {
            let _ = self.place.clear();
        }
    }
}

impl Socket {
    /// Binds `path`; a file that a dead process left there is replaced.
    ///
    /// # Errors
    /// Another process listens there, the folder is not this user's alone, or the system's.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        Self::put(Place::make(path)?, true)
    }

    /// Binds `path` in the place of whoever listens there.
    ///
    /// # Errors
    /// The folder is not this user's alone, or the system's.
    pub(crate) fn replace(path: &Path) -> io::Result<Self> {
        Self::put(Place::make(path)?, false)
    }

    fn put(place: Place, only_if_free: bool) -> io::Result<Self> {
        let lock = place.lock()?;
        if only_if_free && place.connect().is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another gateway listens on this admin socket",
            ));
        }
        let listener = place.put()?;
        let file = place.file();
        drop(lock);
        Ok(Self { listener, place, file })
    }

    fn is_in_place(&self) -> bool {
        self.file.is_some() && self.place.file() == self.file
    }

    /// Takes its place again, where a gateway that was to take over put its own there and is gone.
    fn restore(&mut self) {
        if self.is_in_place() {
            return;
        }
        match Self::bind(self.place.path()) {
            Ok(socket) => *self = socket,
            Err(error) => {
                tracing::error!(%error, socket = %self.place.path().display(), "the admin socket is lost: no erasure and no hand-over until a restart");
            }
        }
    }

    /// Serves for as long as it is polled, a few at once: an erasure takes its time.
    pub(crate) async fn run(mut self, app: Arc<App>, handing: Arc<Handing>) {
        let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = handing.failed() => {
                    self.restore();
                    continue;
                }
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (asked, handing) = (Arc::clone(&app), Arc::clone(&handing));
            app.asked.spawn(async move {
                if let Err(error) = serve(&asked, &handing, stream).await {
                    tracing::warn!(%error, "admin socket");
                }
                drop(place);
            });
        }
    }
}

async fn serve(app: &Arc<App>, handing: &Arc<Handing>, mut stream: UnixStream) -> io::Result<()> {
    let (peer, user) = (stream.peer_cred()?, rustix::process::geteuid().as_raw());
    if peer.uid() != user && peer.uid() != 0 {
        let told = format!("user {} asks; only user {user} and root may", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, told));
    }
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new((&mut stream).take(LINE_BYTES));
    tokio::time::timeout(Duration::from_secs(10), reader.read_line(&mut line))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no request came"))??;
    if line.is_empty() {
        // Another start looked whether anyone listens.
        return Ok(());
    }
    let is_cut = !line.ends_with('\n') && line.len() as u64 >= LINE_BYTES;
    let response = match serde_json::from_str(&line) {
        _ if is_cut => Response::refused(too_long(format_args!("over {LINE_BYTES}"))),
        Ok(Request::Erase(asked)) => erase(app, &asked, peer.uid()).await,
        Ok(Request::Hold(asked)) => hold(app, &asked, peer.uid()).await,
        Ok(Request::Reship(asked)) => reship(app, &asked).await,
        Ok(Request::HandOver {}) => {
            let handing = Arc::clone(handing);
            // It takes as long as the other one's start, and no end of this one waits for it.
            tokio::spawn(async move {
                if let Err(error) = handing.give(stream).await {
                    tracing::warn!(%error, "hand-over");
                }
            });
            return Ok(());
        }
        Err(error) => Response::refused(format!("not a request: {error}")),
    };
    let mut answer = serde_json::to_vec(&response)?;
    answer.push(b'\n');
    stream.write_all(&answer).await
}

async fn erase(app: &App, asked: &EraseAsked, peer: u32) -> Response {
    let request = match asked.request(&app.snapshot.load().pseudonyms, user::named(peer)) {
        Ok(request) => request,
        Err(message) => return Response::refused(message),
    };
    tracing::info!(reason = %request.reason, whole_key = request.whole_key, "erasure asked for");
    Response::of(app.ledger.erase(request).await)
}

async fn hold(app: &App, asked: &HoldAsked, peer: u32) -> Response {
    let request = match asked.request(app.snapshot.load().shared_pseudonyms(), user::named(peer)) {
        Ok(request) => request,
        Err(message) => return Response::refused(message),
    };
    tracing::info!(hold = %request.hold, reason = %request.reason, release = asked.release, "hold asked for");
    Response::of_hold(app.ledger.hold(request).await)
}

async fn reship(app: &App, asked: &ReshipAsked) -> Response {
    let request = match asked.request() {
        Ok(request) => request,
        Err(message) => return Response::refused(message),
    };
    tracing::info!(
        missing = request.missing,
        since_us = request.since_us,
        "kept batches are to be put again"
    );
    Response::of_reship(app.ledger.reship(request).await)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_hold_takes_so_many_scopes_at_once_and_the_socket_their_line() {
        let ids: Vec<String> = (0..MAX_SCOPES).map(|n| format!("00000000-0000-7000-8000-{n:012}")).collect();
        let subjects: Vec<String> = (0..2).map(|n| format!("p:{n:032}")).collect();
        let asked = |exchanges: &[String], subjects: &[String]| HoldAsked {
            hold: "case-17".into(),
            reason: "litigation".into(),
            exchanges: exchanges.to_vec(),
            subjects: subjects.to_vec(),
            ..HoldAsked::default()
        };
        let most = asked(&ids, &[]);
        let request = most.request(None, None).unwrap();
        assert!(matches!(request.asked, Asked::Begin(scopes) if scopes.len() == MAX_SCOPES));
        assert!(serde_json::to_vec(&Request::Hold(most)).unwrap().len() as u64 <= LINE_BYTES);
        let refused = asked(&ids, &subjects).request(None, None).unwrap_err();
        assert!(refused.contains("`--exchange` 10000 times and `--subject` 2 times"), "{refused}");
        assert!(refused.contains("wanted at most 10000"), "{refused}");
        assert!(asked(&ids[..MAX_SCOPES / 2], &subjects).request(None, None).is_ok());
    }

    #[test]
    fn a_hold_over_a_subject_needs_pseudonyms_that_all_gateways_make_or_is_given_them() {
        let shared = Pseudonyms::new(&[7; 32]);
        let (one, two) = (shared.of("ana"), shared.of("bo"));
        let asked = |subjects: &[&str], exchanges: &[&str]| HoldAsked {
            hold: "case-17".into(),
            reason: "litigation".into(),
            subjects: subjects.iter().map(ToString::to_string).collect(),
            exchanges: exchanges.iter().map(ToString::to_string).collect(),
            ..HoldAsked::default()
        };
        let scopes = |asked: &HoldAsked, shared: Option<&Pseudonyms>| match asked.request(shared, None)?.asked
        {
            Asked::Begin(scopes) => Ok(scopes),
            Asked::End => Err("it ends".to_owned()),
        };
        let subjects = |scopes: Vec<Scope>| -> Vec<String> {
            scopes.into_iter().map(|scope| scope.subject.unwrap().to_string()).collect()
        };
        let refused = scopes(&asked(&["ana"], &[]), None).unwrap_err();
        assert!(refused.contains("evidence.pseudonym_key") && refused.contains("p:"), "{refused}");
        assert!(scopes(&asked(&[&one, "bo"], &[]), None).is_err());
        // What only looks like a pseudonym is somebody's name.
        for name in ["p:ana", &one.to_uppercase(), &one[..33], &format!("{one}0")] {
            assert!(scopes(&asked(&[name], &[]), None).is_err(), "{name}");
        }
        let wanted = vec![one.clone(), two.clone()];
        assert_eq!(subjects(scopes(&asked(&[&one, &two], &[]), None).unwrap()), wanted);
        assert_eq!(subjects(scopes(&asked(&["ana", &two], &[]), Some(&shared)).unwrap()), wanted);
        let ids = ["00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"];
        let both = scopes(&asked(&[&one, &two], &ids), None).unwrap();
        assert_eq!(both.len(), 4);
        assert!(both.iter().all(|scope| scope.subject.is_some() && scope.exchange.is_some()));
        assert_eq!(scopes(&asked(&[], &[]), None).unwrap(), [Scope::default()]);
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_in_a_folder_that_only_its_user_can_enter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal/admin/admin.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());

        // A folder that others can enter, or make names in, is used by neither side.
        let open = dir.path().join("open");
        std::fs::DirBuilder::new().mode(0o700).create(&open).unwrap();
        let path = open.join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        std::fs::write(open.join("other"), "").unwrap();
        for wide in [0o755, 0o711, 0o770, 0o777] {
            std::fs::set_permissions(&open, std::fs::Permissions::from_mode(wide)).unwrap();
            for refused in [Socket::bind(&path).err(), connect(&path).err()] {
                let refused = refused.unwrap();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
                let told = refused.to_string();
                assert!(told.contains(&format!("{wide:o}")) && told.contains("wanted: mode 700"), "{told}");
            }
        }
        // With nothing else in it, it is closed to others again.
        std::fs::remove_file(open.join("other")).unwrap();
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(Socket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(mode(&open), 0o700);
        connect(&path).unwrap();
        drop(socket);
    }

    #[tokio::test]
    async fn a_path_that_is_longer_than_a_sockets_address_works() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d".repeat(100)).join("e".repeat(100)).join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        connect(&path).unwrap();
        drop(socket);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_starters_over_a_stale_socket_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin/admin.sock");
        for _ in 0..20 {
            // What a killed process leaves: the file, and nobody who listens.
            let mut dead = Socket::replace(&path).unwrap();
            dead.file = None;
            drop(dead);
            assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let mut starters = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let path = path.clone();
                starters.spawn_blocking(move || Socket::bind(&path));
            }
            let bound = starters.join_all().await;
            let (won, lost): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 7));
            for refused in lost {
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
            }
            connect(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_successor_that_dies_gives_the_place_back_and_one_that_lives_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin/admin.sock");
        let mut old = Socket::bind(&path).unwrap();
        for clean in [true, false] {
            let mut dying = Socket::replace(&path).unwrap();
            assert!(!old.is_in_place());
            if !clean {
                dying.file = None;
            }
            drop(dying);
            assert!(connect(&path).is_err());
            old.restore();
            assert!(old.is_in_place());
            connect(&path).unwrap();
        }
        let new = Socket::replace(&path).unwrap();
        old.restore();
        assert!(new.is_in_place(), "it lives");
        drop(old);
        assert!(new.is_in_place(), "what is not its own is not removed");
        connect(&path).unwrap();
    }
}
