//! Reload: a whole checked configuration in the place of the old, or the old stays.
//!
//! Told by SIGHUP, or seen as a change of any file that the configuration was read from. The new one is in the
//! log before it rules (CH-4); one that cannot rule is recorded as `config_refused`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use schemas::record::{Admin, ConfigReason};
use schemas::{Identifier, Sha256Hex};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Snapshot};
use crate::record::now_us;
use crate::telemetry::ByResult;
use crate::{balance, config, user};

/// How long files must be quiet before they are read: editors and key tools write more than once.
const QUIET: Duration = Duration::from_millis(250);

/// Told by SIGHUP.
const SIGNAL: &str = "signal";

/// The secrets of `vault` are due.
const VAULT: &str = "vault";

/// The date of a revocation has come.
const DATE: &str = "date";

/// How often the clock is looked at, which may be set while a date is waited for.
const CLOCK_LOOK: Duration = Duration::from_secs(30);

/// How many records are journaled together.
const RECORDS_AT_ONCE: usize = 256;

/// Waits to be told.
pub(crate) struct Reloader {
    hangup: Signal,
    watch: Watch,
    told: mpsc::Receiver<()>,
    /// What the files held when they were read last: one change is often seen more than once, and is refused once.
    seen: Option<Vec<Held>>,
    /// Revocations up to then are told, microseconds UTC.
    told_us: i64,
}

/// What a file held when it was read.
#[derive(PartialEq)]
struct Held {
    path: PathBuf,
    content: Sha256Hex,
}

/// Why the configuration is read, and what is known of who changed it.
struct Asked {
    why: &'static str,
    /// Of the first file that changed, or of the configuration's own.
    owner: Option<Identifier>,
}

impl Reloader {
    /// What `hangup` gets from now on is heard.
    ///
    /// # Errors
    /// The watcher cannot be set up.
    pub(crate) fn new(hangup: Signal) -> notify::Result<Self> {
        let (tell, told) = mpsc::channel(1);
        Ok(Self { hangup, watch: Watch::new(tell)?, told, seen: None, told_us: now_us() })
    }

    /// Reloads when told, until `stop`.
    pub(crate) async fn run(mut self, app: Arc<App>, stop: CancellationToken) {
        loop {
            // What changed before a folder was watched shows when it is read anew.
            while self.watch.follow(app.snapshot.load().loaded.inputs()) {
                self.look(&app, "change before the watch").await;
            }
            let (refresh, date) = {
                let snapshot = app.snapshot.load();
                let refresh = snapshot.loaded.config.vault.as_ref().map(|vault| vault.refresh);
                (refresh, snapshot.loaded.keys.next_revocation(self.told_us))
            };
            let why = tokio::select! {
                () = stop.cancelled() => return,
                _ = self.hangup.recv() => SIGNAL,
                () = due(refresh) => VAULT,
                () = reached(date) => DATE,
                _ = self.told.recv() => {
                    tokio::time::sleep(QUIET).await;
                    "file change"
                }
            };
            if why == DATE {
                let snapshot = app.snapshot.load_full();
                key_changes(&app, &snapshot, &snapshot, &mut self.told_us).await;
                continue;
            }
            while self.told.try_recv().is_ok() {}
            self.look(&app, why).await;
        }
    }

    /// Reloads where the files hold something else than when they were read last, and always on a signal.
    async fn look(&mut self, app: &Arc<App>, why: &'static str) {
        let inputs = app.snapshot.load().loaded.inputs();
        // What changes behind this reading is another change.
        let held = tokio::task::spawn_blocking(move || held(inputs)).await.ok();
        if ![SIGNAL, VAULT].contains(&why) && held.is_some() && held == self.seen {
            return;
        }
        let changed = self.seen.as_deref().zip(held.as_deref()).and_then(|(seen, held)| changed(seen, held));
        let owner = user::owner(changed.unwrap_or(&app.snapshot.load().loaded.path));
        self.seen = held;
        reload(app, &Asked { why, owner }, &mut self.told_us).await;
    }
}

/// Waits until secrets are due; forever, where there are none that change by themselves.
async fn due(refresh: Option<Duration>) {
    match refresh {
        Some(refresh) => tokio::time::sleep(refresh).await,
        None => std::future::pending().await,
    }
}

/// Waits until `at`, microseconds UTC; forever, where there is none.
async fn reached(at: Option<i64>) {
    let Some(at) = at else { return std::future::pending().await };
    while let Ok(left @ 1..) = u64::try_from(at.saturating_sub(now_us())) {
        tokio::time::sleep(Duration::from_micros(left).min(CLOCK_LOOK)).await;
    }
}

/// What the files hold; one that cannot be read holds the reason.
fn held(inputs: Vec<PathBuf>) -> Vec<Held> {
    let held = inputs.into_iter().map(|path| {
        let content = std::fs::read(&path).unwrap_or_else(|error| error.to_string().into_bytes());
        Held { content: Sha256Hex::of(&content), path }
    });
    held.collect()
}

/// The first file that holds something else than before.
fn changed<'a>(seen: &[Held], held: &'a [Held]) -> Option<&'a Path> {
    let before = |path: &Path| seen.iter().find(|file| file.path == path);
    let differs = |file: &&Held| before(&file.path).is_some_and(|before| before.content != file.content);
    held.iter().find(differs).map(|file| file.path.as_path())
}

/// Reads the configuration anew, and swaps it in where it can rule.
async fn reload(app: &Arc<App>, asked: &Asked, told_us: &mut i64) {
    let why = asked.why;
    let before = app.snapshot.load_full();
    let in_force = Arc::clone(&before);
    let read = move || config::load_after(&in_force.loaded.path, &in_force.loaded);
    let read = match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        Err(error) => return refused(app, asked, &format!("reading failed: {error}"), None).await,
    };
    let next = match read {
        Ok(next) => next,
        Err(problems) => {
            for problem in &problems {
                tracing::error!(%problem, "configuration refused, the old one stays");
            }
            if why == VAULT {
                // Nobody asked for a change: that the Vault is away is no event of the log.
                app.telemetry.reloads.get_or_create(&ByResult { result: "refused" }).inc();
                return;
            }
            return refused(app, asked, "problems", None).await;
        }
    };
    for (at, why) in next.vault.kept() {
        let (path, key) = (at.path.as_str(), at.key.as_str());
        tracing::warn!(
            path,
            key,
            why,
            "a secret of the Vault could not be read again: the one in force stays"
        );
    }
    if next.vault.kept().next().is_some() {
        app.telemetry.reloads.get_or_create(&ByResult { result: "vault_away" }).inc();
    }
    if next.hash == before.loaded.hash {
        if why == SIGNAL {
            tracing::info!("reload: nothing changed");
        }
        return;
    }
    let hash = Identifier::new(next.hash.to_string()).ok();
    let restart = before.loaded.restart_keys(&next);
    if !restart.is_empty() {
        let keys = restart.join(", ");
        tracing::error!(keys, "configuration refused, the old one stays: these keys need a restart");
        return refused(app, asked, "restart", hash).await;
    }
    let snapshot = match Snapshot::new(next, Some(&before), &app.telemetry) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::error!(%error, "configuration refused, the old one stays");
            return refused(app, asked, "unusable", hash).await;
        }
    };
    let documents = snapshot.documents.clone();
    let changed = app
        .ledger
        .config_changes(documents.config, ConfigReason::Reload, documents.policy, documents.prices)
        .await;
    match changed {
        Ok(()) => {
            key_changes(app, &before, &snapshot, told_us).await;
            snapshot.is_counted_in(&app.telemetry);
            snapshot.collects(&app.ledger, Some(&before));
            before.gives_way(&snapshot);
            let snapshot = Arc::new(snapshot);
            app.snapshot.store(Arc::clone(&snapshot));
            // Whoever reads it may rely on it.
            tracing::info!(hash = %snapshot.loaded.hash, why, "configuration reloaded");
            app.telemetry.reloads.get_or_create(&ByResult { result: "taken" }).inc();
            balance::probe::begin(app);
            balance::semantic::begin(app);
        }
        Err(error) => {
            tracing::error!(%error, "configuration refused, the old one stays: it could not be recorded");
            app.telemetry.reloads.get_or_create(&ByResult { result: "unrecorded" }).inc();
        }
    }
}

/// Records which gateway keys were issued, changed or taken back since `told_us`, by id: before the new file rules.
async fn key_changes(app: &Arc<App>, before: &Snapshot, next: &Snapshot, told_us: &mut i64) {
    let since_us = *told_us;
    *told_us = now_us().max(since_us);
    let changes = before.loaded.keys.changes(&next.loaded.keys, since_us, *told_us);
    // Who may change the file did so by hand where the file itself names nobody.
    let owner = user::owner(&next.loaded.config.keys);
    for some in changes.chunks(RECORDS_AT_ONCE) {
        let records = some.iter().filter_map(|changed| {
            let action = Identifier::new(changed.change.action()).ok()?;
            let actor = changed.by.clone().or_else(|| owner.clone());
            Some(app.ledger.admin(Admin { action, actor, object: Some(changed.id.clone()) }))
        });
        for done in futures_util::future::join_all(records).await {
            if let Err(error) = done {
                // The new file's hash is in the log, and what it says differs from the one before.
                tracing::error!(%error, "a change of a gateway key could not be recorded by itself");
            }
        }
    }
    if !changes.is_empty() {
        tracing::info!(changes = changes.len(), "gateway keys changed");
    }
}

async fn refused(app: &Arc<App>, asked: &Asked, why: &str, object: Option<Identifier>) {
    app.telemetry.reloads.get_or_create(&ByResult { result: "refused" }).inc();
    tracing::warn!(why, "reload refused");
    let Ok(action) = Identifier::new("config_refused") else { return };
    let actor = asked.owner.clone();
    // What could not be read has no hash: then it is the one that stays.
    let object = object.or_else(|| Identifier::new(app.ledger.config_in_force().to_string()).ok());
    if let Err(error) = app.ledger.admin(Admin { action, actor, object }).await {
        tracing::error!(%error, "the refused reload could not be recorded");
    }
}

/// Watches the folders of the files that were read: files are often replaced, not written.
struct Watch {
    watcher: RecommendedWatcher,
    names: Arc<std::sync::Mutex<HashSet<OsString>>>,
    folders: HashSet<PathBuf>,
}

impl Watch {
    fn new(tell: mpsc::Sender<()>) -> notify::Result<Self> {
        let names: Arc<std::sync::Mutex<HashSet<OsString>>> = Arc::default();
        let wanted = Arc::clone(&names);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // The watch lost count: anything may have changed.
            let lost = event.as_ref().map_or(true, notify::Event::need_rescan);
            let event = event.unwrap_or_default();
            if matches!(event.kind, EventKind::Access(_)) && !lost {
                return;
            }
            let wanted = wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // `..data` is what Kubernetes swaps when a mounted ConfigMap or Secret changes.
            let ours = |path: &PathBuf| {
                path.file_name().is_some_and(|name| name == "..data" || wanted.contains(name))
            };
            if lost || event.paths.iter().any(ours) {
                // Full: one is waiting already.
                let _ = tell.try_send(());
            }
        })?;
        Ok(Self { watcher, names, folders: HashSet::new() })
    }

    /// Watches the folders of `inputs`; whether one of them is new.
    fn follow(&mut self, inputs: Vec<PathBuf>) -> bool {
        let mut names = HashSet::new();
        let mut folders = HashSet::new();
        for input in inputs {
            if let Some(name) = input.file_name() {
                names.insert(name.to_owned());
            }
            let folder = input.parent().map(PathBuf::from).filter(|folder| !folder.as_os_str().is_empty());
            folders.insert(folder.unwrap_or_else(|| PathBuf::from(".")));
        }
        *self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = names;
        for gone in self.folders.difference(&folders) {
            // A folder that is gone is watched no more anyway.
            let _ = self.watcher.unwatch(gone);
        }
        let mut has_new = false;
        for new in folders.difference(&self.folders) {
            has_new = true;
            if let Err(error) = self.watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %new.display(), %error, "changes here are not seen; use SIGHUP");
            }
        }
        self.folders = folders;
        has_new
    }
}
