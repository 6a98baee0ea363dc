//! From what was typed to a verified store: the common beginning of most commands.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use schemas::Origin;
use schemas::trust::Trust;

use crate::bucket::estimate::Estimate;
use crate::bucket::kept::{self, Kept};
use crate::bucket::{self, Asked, Judged, LockState, probed};
use crate::cache::{Cache, Continue};
use crate::cli::{Evidence, Remote};
use crate::finding::{Code, Findings, Place};
use crate::interrupt::Interrupt;
use crate::mandate::{Mandate, WantedStore};
use crate::registry::{Beside, InForce, WitnessNote};
use crate::report::Report;
use crate::source::s3::{Address, Listing, Settings};
use crate::source::{DirectorySource, S3Source, Source};
use crate::state::{Remembered, State, Visits};
use crate::verify::keys::Keys;
use crate::verify::log::LogFold;
use crate::verify::{self, Options};
use crate::{time, trust};

/// Everything that a command needs.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub source: Arc<dyn Source>,
    /// The trust file.
    pub trust: Trust,
    /// What is required.
    pub mandate: Mandate,
    /// The asked interval's start, where it was given.
    pub from: Option<i64>,
    /// Its end.
    pub to: Option<i64>,
    /// Its end as it was given, where it was: with [`open_settled`] it may be later.
    pub asked_to: Option<i64>,
    /// The key tables.
    pub keys: Option<Arc<Keys>>,
    /// What witnesses said elsewhere than in the store.
    pub witness_notes: Vec<WitnessNote>,
    /// The witnesses that were asked and did not answer.
    silent: Vec<String>,
    /// The auditor's state.
    pub state: State,
    remembered: Remembered,
    in_force: OnceLock<Trust>,
    bucket: Option<Remotely>,
}

/// A store that is a bucket.
#[derive(Debug)]
struct Remotely {
    source: Arc<S3Source>,
    lock_state: LockState,
    /// What the listing shows.
    findings: Findings,
    /// The keys in force: the registry is read before its bucket is judged.
    in_force: InForce,
    kept: Result<Option<Kept>, String>,
}

/// What was typed about a bucket.
pub(super) fn settings(typed: &Remote) -> Settings {
    Settings {
        endpoint_url: typed.endpoint_url.clone(),
        region: typed.region.clone(),
        path_style: typed.path_style,
        profile: typed.profile.clone(),
        expected_owner: typed.expected_bucket_owner.clone(),
    }
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
    open_until(typed, i64::MAX)
}

/// As [`open`]; of an interval that is not over, what is settled is verified: what is yet to come is not missing from the
/// record.
///
/// # Errors
/// As [`open`].
pub fn open_settled(typed: &Evidence) -> anyhow::Result<Opened> {
    open_until(typed, time::now())
}

fn open_until(typed: &Evidence, latest: i64) -> anyhow::Result<Opened> {
    let address = match typed.store.to_str() {
        Some(text) => Address::parse(text).map_err(anyhow::Error::msg)?,
        None => None,
    };
    let directory = match &address {
        Some(_) => None,
        None => {
            let opened = DirectorySource::new(&typed.store);
            Some(opened.with_context(|| format!("store `{}`", typed.store.display()))?)
        }
    };
    let trust = trust::read(&typed.trust, directory.as_ref().map(DirectorySource::root))?;
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
    let asked_to = parse("--to", &typed.to)?.or(mandate.to);
    if let (Some(from), Some(to)) = (from, asked_to)
        && from > to
    {
        bail!("--from `{}` is after --to `{}`", time::text(from), time::text(to));
    }
    let to = asked_to.filter(|to| *to <= latest);
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
    let inside = directory.as_ref().is_some_and(|directory| {
        state.folder().canonicalize().is_ok_and(|folder| folder.starts_with(directory.root()))
    });
    if inside {
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
    // Before the store is listed: what a witness has seen by now must be there.
    let (witness_notes, silent) = witness_notes(typed, &trust)?;
    let remembered = state.remembered()?;
    let (source, bucket): (Arc<dyn Source>, _) = match (directory, address) {
        (Some(directory), _) => (Arc::new(directory), None),
        (None, Some(address)) => {
            let bucket =
                remotely(typed, &address, &trust, &mandate, (&state, &remembered), (to, &witness_notes))?;
            (bucket.source.clone(), Some(bucket))
        }
        (None, None) => bail!("store `{}`: wanted a folder or `s3://BUCKET/PREFIX`", typed.store.display()),
    };
    Ok(Opened {
        source,
        trust,
        mandate,
        from,
        to,
        asked_to,
        keys,
        witness_notes,
        silent,
        state,
        remembered,
        bucket,
        in_force: OnceLock::new(),
    })
}

/// Lists the bucket, reads its registry, and finds the sealed version of every name.
fn remotely(
    typed: &Evidence,
    address: &Address,
    trust: &Trust,
    mandate: &Mandate,
    (state, remembered): (&State, &Remembered),
    (to, witness_notes): (Option<i64>, &[WitnessNote]),
) -> anyhow::Result<Remotely> {
    let mut settings = settings(&typed.remote);
    settings.expected_owner = settings.expected_owner.or_else(|| mandate.store.owner.clone());
    let temporary = state.folder().join("objects");
    std::fs::create_dir_all(&temporary).with_context(|| format!("`{}`", temporary.display()))?;
    let mut source = S3Source::open(address, &settings, temporary)?;
    let (kept, visits) = match remembered {
        Remembered::Known(visits) => (kept::load(state, visits, &kept::id(source.bucket())), Some(visits)),
        _ => (Ok(None), None),
    };
    let mut findings = Findings::default();
    let beside = Beside { visits, witness_notes, to, now: time::now() };
    let in_force = bucket::versions::resolve(&mut source, trust, beside, &mut findings);
    Ok(Remotely { source: Arc::new(source), lock_state: typed.lock_state, findings, in_force, kept })
}

/// The notes of witnesses that were given, and the answers of those that are asked.
fn witness_notes(typed: &Evidence, trust: &Trust) -> anyhow::Result<(Vec<WitnessNote>, Vec<String>)> {
    let mut notes = Vec::new();
    for path in &typed.witness_note {
        let note = std::fs::read(path).with_context(|| format!("--witness-note `{}`", path.display()))?;
        notes.push(WitnessNote { from: path.display().to_string(), note, asked: None });
    }
    if !typed.ask_witnesses {
        return Ok((notes, Vec::new()));
    }
    let (answers, silent) = crate::witness::ask::latest(trust).context("--ask-witnesses")?;
    notes.extend(answers);
    Ok((notes, silent))
}

fn tell_locks(done: usize, total: usize) {
    if done.is_multiple_of(1000) && done < total {
        let _ = writeln!(std::io::stderr(), "reading lock state: version {done} of {total}");
    }
}

/// Says on standard error how far a long verification is.
struct Progress {
    began: Instant,
    last: Mutex<Instant>,
    terminal: bool,
    /// The log that is followed, its batches that are done, and all of them.
    at: Mutex<Option<(Origin, u64, u64)>>,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last: Mutex::new(now),
            terminal: std::io::stderr().is_terminal(),
            at: Mutex::default(),
        }
    }

    /// How far it came, in words.
    fn reached(&self) -> String {
        match self.at.lock().ok().and_then(|at| at.clone()) {
            Some((origin, done, total)) => format!("{origin} is verified to batch {done} of {total}"),
            None => "nothing was verified yet".into(),
        }
    }

    fn tell(&self, origin: &Origin, done: u64, total: u64) {
        if let Ok(mut at) = self.at.lock() {
            *at = Some((origin.clone(), done, total));
        }
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

    /// Verifies the whole store; proven rows go to the cache, and the visit is remembered. Goes on where the last whole
    /// verification was interrupted, unless `anew`.
    ///
    /// # Errors
    /// State or cache that cannot be written; interrupted from outside.
    pub fn verify(&self, anew: bool) -> anyhow::Result<(Report, Cache<'_>)> {
        self.run(if anew { Continue::Nothing } else { Continue::Interrupted })
    }

    /// Verifies what is new since the cache was written, and continues the earlier findings.
    ///
    /// # Errors
    /// As [`Opened::verify`].
    pub fn verify_new(&self) -> anyhow::Result<(Report, Cache<'_>)> {
        self.run(Continue::Known)
    }

    /// The versions of the bucket, with their locks as the last verification left them.
    ///
    /// # Errors
    /// Why there are none: the store is a folder, or what was kept cannot be read.
    pub fn bucket_versions(&self) -> Result<(&Listing, Kept), String> {
        let Some(bucket) = &self.bucket else {
            return Err("the store is a folder: it shows neither versions nor locks".into());
        };
        let Ok(Remembered::Known(visits)) = self.state.remembered() else {
            return Err("the auditor's state cannot be read: it holds what was seen of the bucket".into());
        };
        let kept = kept::load(&self.state, &visits, &kept::id(bucket.source.bucket()))?;
        Ok((bucket.source.listing(), kept.unwrap_or_default()))
    }

    /// What tells this store from others.
    fn store_name(&self) -> String {
        let bucket = self.bucket.as_ref().map(|bucket| kept::id(bucket.source.bucket()));
        bucket.map_or_else(|| self.source.describe(), |id| format!("bucket {id}"))
    }

    fn run(&self, from: Continue) -> anyhow::Result<(Report, Cache<'_>)> {
        let only_new = from == Continue::Known;
        let mut cache = Cache::open(&self.state, &self.trust, &self.store_name());
        let progress = Progress::new();
        let tell = |origin: &Origin, done: u64, total: u64| progress.tell(origin, done, total);
        let mut options = Options::new(&self.trust, &self.mandate, time::now());
        options.from = self.from;
        options.to = self.to;
        options.keys = self.keys.as_deref();
        options.remembered = Some(&self.remembered);
        options.witness_notes = &self.witness_notes;
        options.progress = &tell;
        let judged = self.judge(only_new)?;
        options.bucket = judged.as_ref();
        options.in_force = self.bucket.as_ref().map(|bucket| &bucket.in_force);
        let mut cached_findings = crate::finding::Findings::default();
        options.earlier = cache.begin(from, options.now, &mut cached_findings)?;
        if !only_new {
            options.earlier.retain(|_, (fold, _)| same_keys(fold, self.keys.is_some()));
        }
        let interrupt = Interrupt::watch(&mut options)?;
        let (mut report, mut visits) = verify::run(&*self.source, &options, &mut cache);
        drop(options);
        if interrupt.came() {
            cache.finish(false)?;
            bail!("interrupted: {}; the same command goes on from there", progress.reached());
        }
        drop(interrupt);
        report.not_checked.extend(self.silent.iter().map(|why| format!("a witness did not answer: {why}")));
        let _ = self.in_force.set(report.trust_in_force.clone());
        if self.bucket.is_none() && self.mandate.store != WantedStore::default() {
            let expected = "a bucket: the mandate says under `store` what it must be";
            let found = "a folder: neither its owner nor locks, keys or holds can be seen";
            cached_findings.add(Code::WrongSource, Place::object("the store"), expected, found);
        }
        if !cached_findings.is_empty() {
            report.findings.append(cached_findings);
            report.settle();
        }
        cache.finish(!report.findings.has(Code::CouldNotRead))?;
        if !matches!(self.remembered, Remembered::Tampered(_) | Remembered::Lost) {
            // Of other stores somebody else may know more by now.
            visits.stores.clear();
            let state = self.state.exclusive()?;
            if let (Some(bucket), Some(judged)) = (&self.bucket, &judged)
                && bucket.kept.is_ok()
            {
                let id = kept::id(bucket.source.bucket());
                kept::save(&self.state, &mut visits, &id, &judged.kept)?;
            }
            let visits = state.remember(&visits)?;
            if judged.is_some() {
                kept::clean(&self.state, &visits).context("the state folder")?;
            }
        }
        Ok((report, cache))
    }

    /// Judges the bucket, where the store is one; says before what it will ask of it.
    fn judge(&self, only_new: bool) -> anyhow::Result<Option<Judged>> {
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let listing = bucket.source.listing();
        let heads = match bucket.lock_state {
            LockState::All => listing.versions,
            LockState::Sample(count) => listing.versions.min(count as u64),
        };
        // Seals are read twice: for the times that they say, and as evidence.
        let seals = listing.objects.keys().filter(|name| name.ends_with(".seal")).count() as u64;
        let gets = listing.versions + seals;
        let estimate = Estimate { lists: listing.pages, heads, gets, bytes: listing.bytes };
        let most = if only_new { ", less what was proven earlier" } else { "" };
        let _ = writeln!(std::io::stderr(), "{estimate}{most}");
        let probed = match &self.remembered {
            Remembered::Known(visits) => visits.probes.get(&probed::id(bucket.source.bucket())),
            _ => None,
        };
        let asked = Asked {
            in_force: &bucket.in_force,
            mandate: &self.mandate,
            kept: bucket.kept.clone().ok().flatten(),
            probed,
            lock_state: bucket.lock_state,
            only_new,
            now: time::now(),
            progress: tell_locks,
        };
        let mut judged = bucket::judge(&bucket.source, &asked)?;
        judged.findings.append(bucket.findings.clone());
        if let Err(why) = &bucket.kept {
            let place = Place::object("the auditor's state");
            judged.findings.add(Code::StateTampered, place, "what was kept of this bucket", why.clone());
        }
        Ok(Some(judged))
    }
}

/// Whether content was looked at with the same keys: what had none may have one now.
fn same_keys(fold: &LogFold, keys: bool) -> bool {
    let without =
        fold.story.tally.parts_unopened > 0 || fold.keyless > 0 || fold.findings.has(Code::KeyTableDamaged);
    fold.with_keys == keys && !(keys && without)
}

/// What is known of earlier visits, for commands that add to it.
///
/// # Errors
/// A state that cannot be used.
pub(super) fn known(state: &State) -> anyhow::Result<Visits> {
    match state.remembered()? {
        Remembered::Known(visits) => Ok(visits),
        Remembered::FirstVisit => Ok(Visits::default()),
        Remembered::Tampered(why) => bail!("the state does not authenticate: {why}"),
        Remembered::Lost => bail!("the state is gone while its key is there"),
    }
}
