//! The file of the access ledger: `access.jsonl`, and `access.head` that says how many lines it has.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use schemas::{ExchangeId, Sha256Hex};
use serde::{Deserialize, Serialize};

use crate::state::State;

const FILE: &str = "access.jsonl";
const HEAD: &str = "access.head";
const LOCK: &str = "access.lock";
const LINE_LABEL: &str = "affidavit/auditor/access/v1";
const HEAD_LABEL: &str = "affidavit/auditor/access-head/v1";

/// One time that content was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, microseconds UTC.
    pub at: i64,
    /// The system's user that ran the command.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// Who reads: what was typed, else the user.
    pub reader: String,
    /// The command.
    pub command: String,
    /// The store.
    pub store: String,
    /// The exchanges, at most the first thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<ExchangeId>,
    /// How many exchanges, where they were known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_count: Option<u64>,
    /// SHA-256 of the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Sha256Hex>,
    /// How many parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many rows an answer had: in a second entry, written behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The number of the entry that a second one belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Why.
    pub reason: String,
}

/// A line: an entry in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    n: u64,
    /// SHA-256 of the line before, with its line break; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Sha256Hex>,
    #[serde(flatten)]
    entry: Entry,
    /// By the state's key, over the line without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
}

/// How far the ledger was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    lines: u64,
    /// SHA-256 of the last line; absent where there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Sha256Hex>,
}

/// Begins the ledger of a state that is made: from here on it has a head, and one whose head is gone does not hold.
pub(crate) fn begin(state: &State) -> io::Result<()> {
    write_head(state, &Head { lines: 0, last: None })
}

fn write_head(state: &State, head: &Head) -> io::Result<()> {
    state.write_authentic(&state.folder().join(HEAD), HEAD_LABEL, &serde_json::to_vec(head)?)
}

/// The access ledger of a state folder.
#[derive(Debug)]
pub struct Ledger<'a> {
    state: &'a State,
}

impl<'a> Ledger<'a> {
    /// The ledger of `state`.
    pub fn new(state: &'a State) -> Self {
        Self { state }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.folder().join(name)
    }

    /// While no other auditor reads or writes it, and without what one left that was killed while it wrote.
    fn locked(&self) -> anyhow::Result<fs::File> {
        let path = self.path(LOCK);
        let open = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.with_context(|| format!("`{}`", path.display()))?;
        file.lock().with_context(|| format!("`{}`", path.display()))?;
        self.mend()?;
        Ok(file)
    }

    /// Cuts off a line without its end that is behind all lines of the head: nothing was handed over on it.
    fn mend(&self) -> anyhow::Result<()> {
        let path = self.path(FILE);
        let bytes = read(&path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if whole == bytes.len() || self.head()?.is_some_and(|head| head.lines > lines) {
            return Ok(());
        }
        let cut = fs::OpenOptions::new().write(true).open(&path).and_then(|file| {
            file.set_len(whole as u64)?;
            file.sync_all()
        });
        cut.with_context(|| format!("`{}`", path.display()))
    }

    /// Adds an entry behind all others, on disk when this returns. Gives its number.
    pub(super) fn append(&self, entry: &Entry) -> anyhow::Result<u64> {
        let _lock = self.locked()?;
        let known = self.lines()?;
        let n = known.len() as u64;
        let previous = known.last().map(|(_, sha256)| *sha256);
        let mut line = Line { n, previous, entry: entry.clone(), mac: None };
        line.mac = Some(self.mac(&line)?);
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let path = self.path(FILE);
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let before = file.metadata()?.len();
            let written = file.write_all(&bytes).and_then(|()| file.sync_all());
            if written.is_err() {
                // What cannot be cut off now the next command cuts off.
                let _ = file.set_len(before);
            }
            written?;
            fs::File::open(self.state.folder())?.sync_all()
        };
        write().with_context(|| format!("`{}`", path.display()))?;
        let head = Head { lines: n + 1, last: Some(Sha256Hex::of(&bytes)) };
        write_head(self.state, &head).with_context(|| format!("`{}`", self.path(HEAD).display()))?;
        self.state.ledger_began()?;
        Ok(n)
    }

    /// All entries, where every line is this state's own and none is missing.
    ///
    /// # Errors
    /// What does not hold.
    pub fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let _lock = self.locked()?;
        let path = self.path(FILE);
        let lines = self.lines()?;
        let bytes = read(&path)?;
        lines
            .iter()
            .zip(bytes.split_inclusive(|byte| *byte == b'\n'))
            .map(|(_, line)| Ok(serde_json::from_slice::<Line>(line)?.entry))
            .collect()
    }

    /// SHA-256 of the last line: who keeps it can tell later that nothing before it was changed.
    ///
    /// # Errors
    /// As [`Ledger::entries`].
    pub fn last(&self) -> anyhow::Result<Option<Sha256Hex>> {
        let _lock = self.locked()?;
        Ok(self.lines()?.last().map(|(_, sha256)| *sha256))
    }

    fn mac(&self, line: &Line) -> anyhow::Result<String> {
        let bare = serde_json::to_vec(&Line { mac: None, ..line.clone() })?;
        Ok(self.state.mac(LINE_LABEL, &[&bare]))
    }

    /// Every line with its hash, each checked.
    fn lines(&self) -> anyhow::Result<Vec<(u64, Sha256Hex)>> {
        let path = self.path(FILE);
        let bytes = read(&path)?;
        let mut lines: Vec<(u64, Sha256Hex)> = Vec::new();
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            let n = lines.len() as u64;
            let wrong = |what: &str| {
                anyhow::anyhow!(
                    "line {} of `{}` {what}: what it says is not relied on; keep it for whoever looks into it",
                    n + 1,
                    path.display()
                )
            };
            let line: Line = serde_json::from_slice(text).map_err(|_| wrong("is no entry"))?;
            if !text.ends_with(b"\n") || line.n != n || line.previous != lines.last().map(|(_, hash)| *hash) {
                return Err(wrong("does not follow the one before"));
            }
            if line.mac.as_deref() != Some(self.mac(&line)?.as_str()) {
                return Err(wrong("was not written by this state's key"));
            }
            lines.push((n, Sha256Hex::of(text)));
        }
        self.complete(&lines)?;
        Ok(lines)
    }

    /// The head; `None` where there is none yet.
    fn head(&self) -> anyhow::Result<Option<Head>> {
        let path = self.path(HEAD);
        match self.state.read_authentic(&path, HEAD_LABEL) {
            Ok(Some(body)) => Ok(Some(serde_json::from_slice(&body)?)),
            Ok(None) => bail!("`{}` was not written by this state's key", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.state.has_ledger() => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "`{}` is gone, and with it how many entries there were: keep the folder for whoever looks into it",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| format!("`{}`", path.display())),
        }
    }

    /// A line may be beyond the head, where a crash came between the two; none may be missing.
    fn complete(&self, lines: &[(u64, Sha256Hex)]) -> anyhow::Result<()> {
        let Some(head) = self.head()? else {
            let path = self.path(HEAD);
            ensure!(lines.len() <= 1, "`{}` is gone, and there are {} entries", path.display(), lines.len());
            return Ok(());
        };
        if head.lines == 0 {
            return Ok(());
        }
        let last = usize::try_from(head.lines).ok().and_then(|count| lines.get(count.checked_sub(1)?));
        if last.is_none() || last.map(|(_, sha256)| *sha256) != head.last {
            let found = lines.len();
            bail!(
                "`{}` has {found} lines and should have {}, or others",
                self.path(FILE).display(),
                head.lines
            );
        }
        Ok(())
    }
}

fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("`{}`", path.display())),
    }
}
