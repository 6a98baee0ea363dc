//! `gateway serve`: from a checked configuration to a running gateway, and its orderly end.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use evidence::clock::SystemClock;
use evidence::disk::RealDisk;
use evidence::{Ledger, LedgerConfig, Salvaged};
use schemas::record::CloseReason;
use schemas::{Identifier, Sha256Hex};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::accept::{Bound, Listener};
use crate::admin::socket::{self, EraseAsked, Socket};
use crate::admin::{Admin, Starting};
use crate::app::{App, Documents, Pseudonyms, Snapshot};
use crate::config::{self, Loaded, LogFormat};
use crate::reload::Reloader;
use crate::telemetry::Telemetry;
use crate::{cli, output, store};

/// How long the end waits for the last outcomes, and for the store to have everything.
const LAST_RECORDS: Duration = Duration::from_secs(10);
const ARCHIVE_WITHIN: Duration = Duration::from_secs(30);

/// Serves until told to stop (SIGTERM, SIGINT). Blocks.
///
/// # Errors
/// What of the configuration, the disk or the network does not let the gateway start.
pub fn run(loaded: Loaded, accept_loss: bool) -> anyhow::Result<()> {
    start_logging(&loaded.config.log)?;
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio runtime")?;
    let served = runtime.block_on(serve(loaded, accept_loss));
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

/// Closes the logs that a dead host left in `journal`, with this configuration's seal key, store and key table.
///
/// # Errors
/// A log that could not be closed, or was not found.
pub fn salvage(loaded: Loaded, journal: &Path) -> anyhow::Result<()> {
    start_logging(&loaded.config.log)?;
    let settings = ledger_config(&loaded, false, &Arc::new(Telemetry::new()))?;
    let salvaged = evidence::salvage(&settings, journal)?;
    let mut stuck = 0;
    for log in &salvaged {
        match log {
            Salvaged::Closed { origin, size, root, archived } => {
                let place =
                    if *archived { "all of it is in the store" } else { "not all of it is in the store yet" };
                output::line(format_args!("{origin} closed: {size} records, root {root}, {place}"));
            }
            Salvaged::Nothing { folder } => {
                output::note(format_args!("`{}` holds no record", folder.display()));
            }
            Salvaged::Stuck { origin, why } => {
                stuck += 1;
                output::note(format_args!("{origin} could not be closed: {why}"));
            }
        }
    }
    if salvaged.is_empty() {
        output::note(format_args!("`{}` holds no open log", journal.display()));
    }
    anyhow::ensure!(stuck == 0, "{stuck} of {} logs could not be closed", salvaged.len());
    Ok(())
}

/// Erases content: in the process that serves, or, where none does, in a short epoch of its own.
///
/// # Errors
/// What was not erased, and why.
pub fn erase(loaded: Loaded, args: &cli::Erase) -> anyhow::Result<()> {
    let asked = EraseAsked {
        exchanges: args.exchange.clone(),
        subject: args.subject.clone(),
        whole_key: args.whole_key,
        reason: args.reason.to_string(),
        actor: actor(),
    };
    let response = match socket::call(&socket_path(&loaded), &socket::Request::Erase(asked.clone())) {
        Ok(response) => response,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            output::note("no gateway serves here: erasing in an epoch of its own");
            start_logging(&loaded.config.log)?;
            let settings = ledger_config(&loaded, false, &Arc::new(Telemetry::new()))?;
            let request =
                asked.request(&Pseudonyms::new(&loaded.pseudonym_key)).map_err(anyhow::Error::msg)?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio runtime")?;
            socket::Response::of(runtime.block_on(evidence::erase_offline(settings, request)))
        }
        Err(error) => return Err(error).context("the admin socket"),
    };
    match response {
        socket::Response::Erased { erased, already, without_content } => {
            for (ids, what) in [
                (erased, "erased"),
                (already, "was erased before"),
                (without_content, "kept no content under a key"),
            ] {
                for id in ids {
                    output::line(format_args!("{id} {what}"));
                }
            }
            Ok(())
        }
        socket::Response::Refused { message, shared } => {
            for id in shared {
                output::note(format_args!("{id} would go too"));
            }
            Err(anyhow::anyhow!("not erased: {message}"))
        }
    }
}

/// The operating system's user, where its name is an identifier.
fn actor() -> Option<String> {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok()?;
    Identifier::new(name).ok().map(|name| name.to_string())
}

fn socket_path(loaded: &Loaded) -> PathBuf {
    let evidence = &loaded.config.evidence;
    loaded.config.admin_socket.clone().unwrap_or_else(|| evidence.journal.join("admin.sock"))
}

async fn serve(loaded: Loaded, accept_loss: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let gateway = Gateway::start(loaded, accept_loss).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining: no new exchanges; send the signal again to cut those that still run");
    let again = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    gateway.stop(again).await;
    Ok(())
}

/// A gateway that serves.
pub struct Gateway {
    app: Arc<App>,
    addresses: Vec<SocketAddr>,
    admin_address: SocketAddr,
    listeners: Vec<JoinHandle<()>>,
    reloading: JoinHandle<()>,
    admin: JoinHandle<()>,
    socket: JoinHandle<()>,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Binds the ports, recovers the journal, opens an epoch and takes traffic.
    ///
    /// # Errors
    /// What of the configuration, the disk or the network does not let the gateway start.
    pub async fn start(loaded: Loaded, accept_loss: bool) -> anyhow::Result<Self> {
        let telemetry = Arc::new(Telemetry::new());
        let settings = ledger_config(&loaded, accept_loss, &telemetry)?;
        Self::start_with(loaded, settings, telemetry).await
    }

    /// As [`Gateway::start`], over another disk: for tests of what a disk can do.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_over(loaded: Loaded, disk: evidence::disk::SharedDisk) -> anyhow::Result<Self> {
        let telemetry = Arc::new(Telemetry::new());
        let mut settings = ledger_config(&loaded, false, &telemetry)?;
        settings.disk = disk;
        Self::start_with(loaded, settings, telemetry).await
    }

    async fn start_with(
        loaded: Loaded,
        settings: LedgerConfig,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Self> {
        let started: Starting = Arc::new(OnceLock::new());
        // Ports first: a second gateway on the same machine fails before it touches anything.
        let mut bound = Vec::new();
        for (index, listen) in loaded.config.listen.iter().enumerate() {
            let at = Bound::bind(listen.address, index).await.with_context(|| {
                format!("`listen[{index}].address` is `{}`: cannot listen there", listen.address)
            })?;
            bound.push(at);
        }
        let admin = Admin::bind(loaded.config.admin, Arc::clone(&started), Arc::clone(&telemetry))
            .await
            .with_context(|| format!("`admin` is `{}`: cannot listen there", loaded.config.admin))?;
        let admin_address = admin.address()?;
        let admin = tokio::spawn(admin.run());

        let socket_path = socket_path(&loaded);
        if let Some(folder) = socket_path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("the folder of the admin socket, `{}`", folder.display()))?;
        }
        let socket = Socket::bind(&socket_path)
            .with_context(|| format!("`admin_socket` is `{}`: cannot listen there", socket_path.display()))?;
        let connections = usize::try_from(loaded.config.limits.connections).unwrap_or(usize::MAX);
        let snapshot = Snapshot::new(loaded, None)?;
        let ledger = tokio::task::spawn_blocking(move || Ledger::open(settings)).await??;
        let origin = ledger.origin().clone();
        let app = Arc::new(App::new(ledger, snapshot, telemetry));
        // Set once, here.
        let _ = started.set(Arc::clone(&app));
        let socket = tokio::spawn(socket.run(Arc::clone(&app)));

        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for bound in bound {
            let address = bound.address()?;
            addresses.push(address);
            let listener =
                Listener::new(bound, Arc::clone(&app), Arc::clone(&places), stop.clone(), cut.clone());
            listeners.push(tokio::spawn(listener.run()));
            tracing::info!(%address, "listening");
        }
        let reloader = Reloader::new(Arc::clone(&app)).context("watching the configuration's files")?;
        let reloading = tokio::spawn(reloader.run(stop.clone()));
        tracing::info!(%origin, admin = %admin_address, socket = %socket_path.display(), "serving");
        Ok(Self { app, addresses, admin_address, listeners, reloading, admin, socket, stop, cut })
    }

    /// Where callers connect, in the order of the configuration, with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The ledger that records the traffic.
    pub fn ledger(&self) -> &Ledger {
        &self.app.ledger
    }

    /// Takes no new exchange, lets those that run finish, closes the log and ships it. `hurry` cuts what still
    /// runs.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        let Self { app, listeners, reloading, admin, socket, stop, cut, .. } = self;
        app.drain();
        stop.cancel();
        for listener in listeners {
            // It only ends; a panic of it was logged.
            let _ = listener.await;
        }
        let _ = reloading.await;
        app.connections.close();
        let patience = app.snapshot.load().limits.drain;
        let finished = tokio::select! {
            () = app.connections.wait() => true,
            () = tokio::time::sleep(patience) => false,
            () = hurry => false,
        };
        app.over.cancel();
        if !finished {
            tracing::warn!("cutting the exchanges that still run");
            app.cut();
            cut.cancel();
            // What does not end now is closed by the ledger.
            let _ = tokio::time::timeout(LAST_RECORDS, app.connections.wait()).await;
        }
        app.tasks.close();
        if tokio::time::timeout(LAST_RECORDS, app.tasks.wait()).await.is_err() {
            tracing::error!("some outcomes are not recorded yet; the ledger closes their exchanges");
        }
        socket.abort();
        let origin = app.ledger.origin().clone();
        match app.ledger.drain_and_close(CloseReason::Shutdown, ARCHIVE_WITHIN).await {
            Ok(()) => tracing::info!(%origin, "closed: everything is archived"),
            Err(error) => {
                tracing::warn!(%origin, %error, "closed, but not all is archived: the next start finishes it")
            }
        }
        admin.abort();
    }
}

fn ledger_config(
    loaded: &Loaded,
    accept_loss: bool,
    telemetry: &Arc<Telemetry>,
) -> anyhow::Result<LedgerConfig> {
    let evidence = &loaded.config.evidence;
    let disk: evidence::disk::SharedDisk = Arc::new(RealDisk);
    let store = store::open(&evidence.out, "evidence.out")?;
    let documents = Documents::of(loaded)?;
    let counters = Arc::clone(telemetry);
    Ok(LedgerConfig {
        deployment: loaded.config.deployment.clone(),
        gateway: loaded.config.gateway.clone(),
        journal_dir: evidence.journal.clone(),
        spool_dir: evidence.spool.clone(),
        key_table_dir: evidence.key_table.clone(),
        store,
        seal_seed: *loaded.seal_seed,
        batch_age: evidence.batch_age,
        batch_bytes: evidence.batch_size,
        heartbeat_bound: evidence.heartbeat,
        segment_bytes: evidence.segment,
        spool_bound_bytes: evidence.spool_bound,
        encryption: evidence.encryption == config::Encryption::On,
        accept_loss,
        gateway_version: Identifier::new(env!("CARGO_PKG_VERSION"))?,
        binary_sha256: binary_sha256(),
        config: documents.config,
        policy: documents.policy,
        price_book: documents.prices,
        counters: Arc::new(move || counters.signed()),
        disk,
        clock: Arc::new(SystemClock),
    })
}

/// SHA-256 of the running binary, where it can be read.
fn binary_sha256() -> Option<Sha256Hex> {
    let mut file = std::fs::File::open("/proc/self/exe").ok()?;
    let mut hasher = schemas::digest::Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).ok()? {
            0 => break,
            read => hasher.update(buffer.get(..read)?),
        }
    }
    Some(hasher.finish())
}

fn start_logging(log: &config::Log) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.filter).with_context(|| {
        format!("`log.filter` is `{}`: wanted a tracing filter such as `info`", log.filter)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    // A second gateway in one process (tests) logs where the first does.
    let _ = started;
    Ok(())
}

/// A gateway holds two sockets for each exchange: as many files as the system lets us have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}
