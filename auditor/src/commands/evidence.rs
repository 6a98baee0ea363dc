//! From what was typed to a verified store: the common beginning of most commands.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use schemas::Origin;
use schemas::trust::Trust;

use crate::cache::Cache;
use crate::cli::Evidence;
use crate::mandate::Mandate;
use crate::report::Report;
use crate::source::DirectorySource;
use crate::state::{Remembered, State};
use crate::verify::keys::Keys;
use crate::verify::{self, Options};
use crate::{time, trust};

/// Everything that a command needs.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub source: DirectorySource,
    /// The trust file.
    pub trust: Trust,
    /// What is required.
    pub mandate: Mandate,
    /// The asked interval's start, where it was given.
    pub from: Option<i64>,
    /// Its end.
    pub to: Option<i64>,
    /// The key tables.
    pub keys: Option<Arc<Keys>>,
    /// The auditor's state.
    pub state: State,
    remembered: Remembered,
    in_force: OnceLock<Trust>,
}

/// The default state folder.
///
/// # Errors
/// No home folder.
pub fn default_state() -> anyhow::Result<PathBuf> {
    if let Some(state) = std::env::var_os("XDG_STATE_HOME").filter(|path| Path::new(path).is_absolute()) {
        return Ok(Path::new(&state).join("affidavit-auditor"));
    }
    let home =
        std::env::var_os("HOME").context("no home folder for the auditor's state: give `--state DIR`")?;
    Ok(Path::new(&home).join(".local/state/affidavit-auditor"))
}

/// Opens store, trust file, mandate, key tables and state.
///
/// # Errors
/// Any of them that cannot be used: nothing is judged then.
pub fn open(typed: &Evidence) -> anyhow::Result<Opened> {
    let source =
        DirectorySource::new(&typed.store).with_context(|| format!("store `{}`", typed.store.display()))?;
    let trust = trust::read(&typed.trust, Some(source.root()))?;
    let mut mandate = match &typed.mandate {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("mandate `{}`", path.display()))?;
            Mandate::parse(&text).map_err(anyhow::Error::msg)?
        }
        None => Mandate::default(),
    };
    for requirement in &typed.require {
        mandate.require(requirement).map_err(anyhow::Error::msg).context("--require")?;
    }
    let parse = |name: &str, text: &Option<String>| {
        let parsed = text.as_deref().map(time::parse).transpose();
        parsed.map_err(anyhow::Error::msg).with_context(|| name.to_owned())
    };
    let from = parse("--from", &typed.from)?.or(mandate.from);
    let to = parse("--to", &typed.to)?.or(mandate.to);
    let keys = if typed.key_table.is_empty() {
        None
    } else {
        Some(Arc::new(Keys::open(&typed.key_table).context("--key-table")?))
    };
    let folder = match &typed.state {
        Some(folder) => folder.clone(),
        None => default_state()?,
    };
    let state = State::open(&folder)?;
    if state.folder().canonicalize().is_ok_and(|folder| folder.starts_with(source.root())) {
        bail!(
            "the state folder `{}` lies inside the store: whoever can change the evidence can change it",
            folder.display()
        );
    }
    if let Some(pinned) = trust::pinned(&state, &trust.deployment)?
        && pinned != trust
    {
        bail!(
            "trust file `{}` has fingerprint {}, pinned for `{}` is {}: `auditor trust add` shows the difference",
            typed.trust.display(),
            trust.fingerprint()?,
            trust.deployment,
            pinned.fingerprint()?
        );
    }
    let remembered = state.remembered()?;
    Ok(Opened { source, trust, mandate, from, to, keys, state, remembered, in_force: OnceLock::new() })
}

/// Says on standard error how far a long verification is.
struct Progress {
    began: Instant,
    last: Mutex<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, last: Mutex::new(now), terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&self, origin: &Origin, done: u64, total: u64) {
        let Ok(mut last) = self.last.lock() else { return };
        let every = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.began.elapsed() < Duration::from_secs(2) || last.elapsed() < every {
            return;
        }
        *last = Instant::now();
        let end = if self.terminal { "\r" } else { "\n" };
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "verifying {origin}: batch {done} of {total}{end}");
    }
}

impl Opened {
    /// Keys and logs as they count: the trust file's own; the registry's, where it names one and was read.
    pub fn in_force(&self) -> &Trust {
        self.in_force.get().unwrap_or(&self.trust)
    }

    /// Verifies the whole store; proven rows go to the cache, and the visit is remembered.
    ///
    /// # Errors
    /// State or cache that cannot be written.
    pub fn verify(&self) -> anyhow::Result<(Report, Cache<'_>)> {
        self.run(false)
    }

    /// Verifies what is new since the cache was written, and continues the earlier findings.
    ///
    /// # Errors
    /// As [`Opened::verify`].
    pub fn verify_new(&self) -> anyhow::Result<(Report, Cache<'_>)> {
        self.run(true)
    }

    fn run(&self, only_new: bool) -> anyhow::Result<(Report, Cache<'_>)> {
        let mut cache = Cache::open(&self.state, &self.trust);
        let progress = Progress::new();
        let tell = |origin: &Origin, done: u64, total: u64| progress.tell(origin, done, total);
        let mut options = Options::new(&self.trust, &self.mandate, time::now());
        options.from = self.from;
        options.to = self.to;
        options.keys = self.keys.as_deref();
        options.remembered = Some(&self.remembered);
        options.progress = &tell;
        let mut cached_findings = crate::finding::Findings::default();
        options.earlier = if only_new { cache.earlier(&mut cached_findings) } else { BTreeMap::new() };
        cache.begin(&options.earlier);
        let (mut report, visits) = verify::run(&self.source, &options, &mut cache);
        drop(options);
        let _ = self.in_force.set(report.trust_in_force.clone());
        if !cached_findings.is_empty() {
            report.findings.append(cached_findings);
            report.settle();
        }
        cache.finish()?;
        if !matches!(self.remembered, Remembered::Tampered(_) | Remembered::Lost) {
            self.state.remember(&visits)?;
        }
        Ok((report, cache))
    }
}
