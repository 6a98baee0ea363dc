//! `gateway serve`: from a checked configuration to a running gateway, and its orderly end.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use evidence::clock::SystemClock;
use evidence::disk::RealDisk;
use evidence::{ClosingKey, Ledger, LedgerConfig, OpenError, Salvaged, Stop};
use schemas::record::CloseReason;
use schemas::{Identifier, Origin, Sha256Hex};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::accept::{Bound, Ends, Listener};
use crate::admin::socket::{self, EraseAsked, Socket};
use crate::admin::{Admin, Starting};
use crate::app::{App, Documents, Pseudonyms, Snapshot};
use crate::config::{self, Loaded, LogFormat};
use crate::hand_over::{Handing, Named, TakeOver};
use crate::reload::Reloader;
use crate::telemetry::Telemetry;
use crate::{cli, output, store, user};

/// How long the end waits for the last outcomes.
pub(crate) const LAST_RECORDS: Duration = Duration::from_secs(10);

const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How long a running erasure may take when the gateway is told to end, and when another one serves already.
const ERASURES: Duration = Duration::from_secs(10);
const ERASURES_LEAVING: Duration = Duration::from_secs(300);

/// How long a start waits for a store that it cannot do without.
const STORE_WAIT: Duration = Duration::from_secs(120);

/// How long a start may take to end when it is told to. What it leaves by then the next one finishes.
const START_ENDS: Duration = Duration::from_secs(10);

/// How often, and how long in between, a gateway is asked to erase that ends while it is asked.
const ASKS: u32 = 25;
const BETWEEN_ASKS: Duration = Duration::from_millis(200);

/// How long a gateway that takes over waits until its log is known to the store, before it says that it serves.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// How a start is meant.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Record damage of acknowledged records instead of refusing.
    pub accept_loss: bool,
    /// Take the place of the gateway that serves with the same admin socket.
    pub take_over: bool,
    /// Keys that close logs of other keys.
    pub closing: Vec<ClosingKey>,
    /// Asks the start to end.
    pub stop: Stop,
}

/// Serves what `prepare` gives until told to stop (SIGTERM, SIGINT), or until another gateway has taken over. Blocks.
///
/// # Errors
/// What of the configuration, the disk or the network does not let the gateway start.
pub fn run(prepare: impl FnOnce() -> anyhow::Result<(Loaded, Start)>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio runtime")?;
    let served = runtime.block_on(async {
        // First of all: a signal that comes from here on is heard, and does not just kill.
        let told = Told::new()?;
        let _reload = signal(SignalKind::hangup()).context("SIGHUP")?;
        let (loaded, start) = prepare()?;
        start_logging(&loaded.config.log)?;
        raise_file_limit();
        serve(loaded, start, told).await
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

/// The signals that end the process.
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt()).context("SIGINT")? })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Closes the logs that a dead host left in `journal`, or in the commit topic, with this configuration's seal key (or a closing key), store and
/// key table.
///
/// # Errors
/// A log that could not be closed, or was not found.
pub fn salvage(loaded: Loaded, journal: Option<&Path>, start: Start) -> anyhow::Result<()> {
    start_logging(&loaded.config.log)?;
    let settings = ledger_config(&loaded, start, &Arc::new(Telemetry::new()))?;
    let salvaged = match journal {
        Some(journal) => evidence::salvage(&settings, journal)?,
        None => evidence::salvage_from_topic(&settings)?,
    };
    let place = journal.map_or("the commit topic".into(), |journal| journal.display().to_string());
    let (mut stuck, mut waiting) = (0, 0);
    for log in &salvaged {
        match log {
            Salvaged::Closed { origin, size, root, archived } => {
                waiting += u32::from(!archived);
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
        output::note(format_args!("`{place}` holds no open log that can be closed here"));
    }
    anyhow::ensure!(stuck == 0, "{stuck} of {} logs could not be closed", salvaged.len());
    anyhow::ensure!(
        waiting == 0,
        "{waiting} of {} logs are closed and not all in the store: run this again before you remove anything",
        salvaged.len()
    );
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
    };
    let socket = socket_path(&loaded);
    let served = ask(&socket, &socket::Request::Erase(asked.clone()))
        .with_context(|| format!("the admin socket `{}`", socket.display()))?;
    let response = match served {
        Some(response) => response,
        None => {
            output::note("no gateway serves here: erasing in an epoch of its own");
            start_logging(&loaded.config.log)?;
            let settings = ledger_config(&loaded, Start::default(), &Arc::new(Telemetry::new()))?;
            let pseudonyms = Pseudonyms::new(&loaded.pseudonym_key);
            let request = asked.request(&pseudonyms, user::own()).map_err(anyhow::Error::msg)?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio runtime")?;
            socket::Response::of(runtime.block_on(evidence::erase_offline(settings, request)))
        }
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
        socket::Response::Reshipped { .. } | socket::Response::Held { .. } => {
            Err(anyhow::anyhow!("the gateway answered another question"))
        }
        socket::Response::Refused { message, shared } => {
            for id in shared {
                output::note(format_args!("{id} would go too"));
            }
            Err(anyhow::anyhow!("not erased: {message}"))
        }
    }
}

/// Begins or ends a legal hold: in the process that serves, or, where none does, in a short epoch of its own.
///
/// # Errors
/// Why it is not recorded.
pub fn hold(loaded: Loaded, asked: socket::HoldAsked) -> anyhow::Result<()> {
    let key = loaded.config.evidence.pseudonym_key.as_ref().map(|_| &loaded.pseudonym_key);
    let pseudonyms = key.map(|key| Pseudonyms::new(key));
    let request = asked.request(pseudonyms.as_ref(), user::own()).map_err(anyhow::Error::msg)?;
    let socket = socket_path(&loaded);
    let served = ask(&socket, &socket::Request::Hold(asked))
        .with_context(|| format!("the admin socket `{}`", socket.display()))?;
    let name = request.hold.clone();
    let response = match served {
        Some(response) => response,
        None => {
            output::note("no gateway serves here: recording in an epoch of its own");
            start_logging(&loaded.config.log)?;
            let settings = ledger_config(&loaded, Start::default(), &Arc::new(Telemetry::new()))?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio runtime")?;
            socket::Response::of_hold(runtime.block_on(evidence::hold_offline(settings, request)))
        }
    };
    match response {
        socket::Response::Held { records, archived } => {
            output::line(format_args!("hold {name}: {records} records"));
            if !archived {
                output::note(
                    "it is in force here and recorded, and not in the store yet: other gateways and auditors see it later",
                );
            }
            Ok(())
        }
        socket::Response::Refused { message, .. } => Err(anyhow::anyhow!("not recorded: {message}")),
        _ => Err(anyhow::anyhow!("the gateway answered another question")),
    }
}

/// What is held at present, as this gateway knows it.
///
/// # Errors
/// The file of holds or the registry cannot be read.
pub fn held(loaded: &Loaded) -> anyhow::Result<Vec<evidence::Held>> {
    let settings = ledger_config(loaded, Start::default(), &Arc::new(Telemetry::new()))?;
    Ok(evidence::held(&settings)?)
}

/// Puts archived batches again that are kept here: in the process that serves, or, where none does, in this one.
///
/// # Errors
/// What was not put, and why.
pub fn reship(loaded: Loaded, asked: socket::ReshipAsked) -> anyhow::Result<()> {
    let socket = socket_path(&loaded);
    let served = ask(&socket, &socket::Request::Reship(asked.clone()))
        .with_context(|| format!("the admin socket `{}`", socket.display()))?;
    let response = match served {
        Some(response) => response,
        None => {
            output::note("no gateway serves here: what is kept is put by this process");
            start_logging(&loaded.config.log)?;
            let request = asked.request().map_err(anyhow::Error::msg)?;
            let settings = ledger_config(&loaded, Start::default(), &Arc::new(Telemetry::new()))?;
            socket::Response::of_reship(evidence::reship(&settings, &request))
        }
    };
    match response {
        socket::Response::Reshipped { batches, kept, kept_bytes, oldest_us } => {
            told_of_reship(&batches, (kept, kept_bytes, oldest_us))
        }
        socket::Response::Refused { message, .. } => Err(anyhow::anyhow!("nothing was put again: {message}")),
        socket::Response::Erased { .. } | socket::Response::Held { .. } => {
            Err(anyhow::anyhow!("the gateway answered another question"))
        }
    }
}

/// Tells what became of each batch.
///
/// # Errors
/// Some were not put.
fn told_of_reship(
    batches: &[socket::Became],
    (kept, bytes, oldest_us): (u64, u64, Option<i64>),
) -> anyhow::Result<()> {
    let (mut again, mut there, mut failed) = (0, 0, 0);
    for one in batches {
        let (place, bytes) = (format!("{} batch {}", one.origin, one.batch), one.bytes);
        match (&one.failed, one.objects, one.is_kept) {
            (Some(why), ..) => {
                failed += 1;
                output::note(format_args!("{place} NOT put again: {why}"));
            }
            (None, _, false) => {
                failed += 1;
                output::note(format_args!("{place} NOT put again: it is not kept here, or not any more"));
            }
            (None, 0, true) => {
                there += 1;
                output::line(format_args!("{place} is there: {bytes} bytes"));
            }
            (None, objects, true) => {
                again += 1;
                output::line(format_args!(
                    "{place} put again: {objects} objects were sent, {bytes} bytes in all"
                ));
            }
        }
    }
    let oldest = oldest_us.and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    let since = oldest.map(|at| format!(", archived since {at:.0}")).unwrap_or_default();
    output::note(format_args!(
        "{again} batches put again, {there} were there, {failed} failed; {kept} batches of {bytes} bytes are kept here{since}"
    ));
    anyhow::ensure!(failed == 0, "{failed} of {} batches were not put again", batches.len());
    Ok(())
}

/// Asks the process that serves at `path`; `None` where none does. One that ends while it is asked hands over to another
/// one, mostly: that is asked then. To ask twice does no harm.
fn ask(path: &Path, request: &socket::Request) -> io::Result<Option<socket::Response>> {
    let mut ended = false;
    for _ in 0..ASKS {
        let error = match socket::call(path, request) {
            Ok(response) => return Ok(Some(response)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused if !ended => return Ok(None),
            ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe => ended = true,
            _ => return Err(error),
        }
        std::thread::sleep(BETWEEN_ASKS);
    }
    Err(io::Error::new(
        ErrorKind::UnexpectedEof,
        "the gateway ended before it answered, and no other serves in its place: ask again",
    ))
}

fn socket_path(loaded: &Loaded) -> PathBuf {
    let evidence = &loaded.config.evidence;
    loaded.config.admin_socket.clone().unwrap_or_else(|| evidence.journal.join("admin/admin.sock"))
}

async fn serve(loaded: Loaded, start: Start, mut told: Told) -> anyhow::Result<()> {
    let stop = start.stop.clone();
    let mut starting = Box::pin(Gateway::start(loaded, start));
    let gateway = tokio::select! {
        started = &mut starting => started?,
        () = told.next() => return end_start(starting, &stop, told).await,
    };
    drop(starting);
    let successor = tokio::select! {
        () = told.next() => None,
        successor = gateway.handed() => Some(successor),
    };
    match successor {
        None => gateway.drain(told).await,
        Some(successor) => {
            tracing::info!(%successor, "leaving: another gateway takes new connections; send a signal to cut what still runs");
            gateway.leave(successor, told.next()).await;
        }
    }
    Ok(())
}

/// Ends a start at its next step, as a drain ends a gateway.
async fn end_start(
    starting: impl Future<Output = anyhow::Result<Gateway>> + Unpin,
    stop: &Stop,
    mut told: Told,
) -> anyhow::Result<()> {
    tracing::info!(
        "told to end while it starts: it ends at the next step; send the signal again to end at once"
    );
    stop.ask();
    let started = tokio::select! {
        started = starting => started,
        () = tokio::time::sleep(START_ENDS) => Err(OpenError::Stopped.into()),
        () = told.next() => Err(OpenError::Stopped.into()),
    };
    match started {
        Ok(gateway) => gateway.drain(told).await,
        Err(error) if matches!(error.downcast_ref(), Some(OpenError::Stopped)) => {
            tracing::info!("ended before it served: what it began the next start finishes");
        }
        Err(error) => return Err(error),
    }
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
    /// `None` until it is this gateway that is to be asked.
    socket: Option<JoinHandle<()>>,
    handing: Arc<Handing>,
    reload_stop: CancellationToken,
    ends: Ends,
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
    pub async fn start(loaded: Loaded, start: Start) -> anyhow::Result<Self> {
        // Heard from here on: a reload that is asked for during the start is made behind it.
        let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        let telemetry = Arc::new(Telemetry::new());
        let path = start.take_over.then(|| socket_path(&loaded));
        let take_over = match path {
            Some(path) => {
                let asked = path.clone();
                let asked = tokio::task::spawn_blocking(move || TakeOver::ask(&asked)).await?;
                asked.with_context(|| format!("taking over from the gateway at `{}`", path.display()))?
            }
            None => None,
        };
        if start.take_over && take_over.is_none() {
            tracing::info!("no gateway serves here: a start like any other");
        }
        let counted = Arc::clone(&telemetry);
        let read = move || ledger_config(&loaded, start, &counted).map(|settings| (loaded, settings));
        let (loaded, settings) = tokio::task::spawn_blocking(read).await??;
        Self::start_with(loaded, settings, telemetry, take_over, hangup).await
    }

    /// As [`Gateway::start`], over another disk: for tests of what a disk can do.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_over(loaded: Loaded, disk: evidence::disk::SharedDisk) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        let telemetry = Arc::new(Telemetry::new());
        let mut settings = ledger_config(&loaded, Start::default(), &telemetry)?;
        settings.disk = disk;
        Self::start_with(loaded, settings, telemetry, None, hangup).await
    }

    async fn start_with(
        loaded: Loaded,
        settings: LedgerConfig,
        telemetry: Arc<Telemetry>,
        mut take_over: Option<TakeOver>,
        hangup: Signal,
    ) -> anyhow::Result<Self> {
        let started: Starting = Arc::new(OnceLock::new());
        // Ports first: a second gateway on the same machine fails before it touches anything.
        let (mut bound, mut addresses, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for (index, listen) in loaded.config.listen.iter().enumerate() {
            let name = format!("listen {}", listen.address);
            let at = match take_over.as_mut().and_then(|old| old.take(&name)) {
                Some(socket) => Bound::over(socket, index),
                None => Bound::bind(listen.address, index).await,
            };
            let at = at.with_context(|| {
                format!("`listen[{index}].address` is `{}`: cannot listen there", listen.address)
            })?;
            sockets.push(Named { name, socket: at.handle()? });
            addresses.push(at.address()?);
            bound.push(at);
        }
        let (app, counts) = (Arc::clone(&started), Arc::clone(&telemetry));
        let name = format!("admin {}", loaded.config.admin);
        let admin = match take_over.as_mut().and_then(|old| old.take(&name)) {
            Some(socket) => Admin::over(socket, app, counts),
            None => Admin::bind(loaded.config.admin, app, counts).await,
        };
        let admin =
            admin.with_context(|| format!("`admin` is `{}`: cannot listen there", loaded.config.admin))?;
        sockets.push(Named { name, socket: admin.handle()? });
        let admin_address = admin.address()?;
        let socket_path = socket_path(&loaded);
        // The socket of the gateway that serves stays until this one does.
        let socket = match &take_over {
            None => Some(Socket::bind(&socket_path).with_context(|| no_socket(&socket_path))?),
            Some(_) => None,
        };
        // While another gateway serves, it answers for both: it is ready, this one is not yet.
        let answers = CancellationToken::new();
        if take_over.is_none() {
            answers.cancel();
        }
        let may_answer = answers.clone();
        let admin = tokio::spawn(async move {
            may_answer.cancelled().await;
            admin.run().await;
        });
        let connections = usize::try_from(loaded.config.limits.connections).unwrap_or(usize::MAX);
        let snapshot = Snapshot::new(loaded, None, &telemetry)?;
        let reloader = Reloader::new(hangup).context("watching the configuration's files")?;
        let stop = settings.stop.clone();
        let ledger = tokio::task::spawn_blocking(move || Ledger::open(settings)).await??;
        // The log is open: nothing fails from here on, so that whatever comes it is closed in order.
        let origin = ledger.origin().clone();
        let app = Arc::new(App::new(ledger, snapshot, telemetry));
        // Set once, here.
        let _ = started.set(Arc::clone(&app));
        crate::balance::probe::begin(&app);
        crate::balance::semantic::begin(&app);
        let ends = Ends::default();
        let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        let mut listeners = Vec::new();
        for (bound, address) in bound.into_iter().zip(&addresses) {
            let listener = Listener::new(bound, Arc::clone(&app), Arc::clone(&places), ends.clone());
            listeners.push(tokio::spawn(listener.run()));
            tracing::info!(%address, "listening");
        }
        let reload_stop = CancellationToken::new();
        let reloading = tokio::spawn(reloader.run(Arc::clone(&app), reload_stop.clone()));
        answers.cancel();
        let handing = Arc::new(Handing::new(sockets));
        let socket = socket.map(|socket| tokio::spawn(socket.run(Arc::clone(&app), Arc::clone(&handing))));
        let mut gateway = Self {
            app,
            addresses,
            admin_address,
            listeners,
            reloading,
            admin,
            socket,
            handing,
            reload_stop,
            ends,
        };
        if let Some(old) = take_over
            && let Err(error) = gateway.take_place(old, &socket_path, &stop).await
        {
            gateway.stop(std::future::pending()).await;
            return Err(error);
        }
        tracing::info!(%origin, admin = %admin_address, socket = %socket_path.display(), "serving");
        Ok(gateway)
    }

    /// Tells the gateway that served before that this one does. Where this start is to end, that one goes on.
    async fn take_place(&mut self, old: TakeOver, path: &Path, stop: &Stop) -> anyhow::Result<()> {
        known(&self.app.ledger, stop).await;
        if stop.asked() {
            return Ok(());
        }
        let socket = Socket::replace(path).with_context(|| no_socket(path))?;
        self.socket = Some(tokio::spawn(socket.run(Arc::clone(&self.app), Arc::clone(&self.handing))));
        let origin = self.app.ledger.origin().clone();
        if let Err(error) = tokio::task::spawn_blocking(move || old.serving(&origin)).await? {
            tracing::warn!(%error, "the gateway that served before is gone; what it left is recovered");
        }
        Ok(())
    }

    /// Waits until another gateway serves in this one's place; gives its log.
    pub async fn handed(&self) -> Origin {
        self.handing.handed().await
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

    /// Leaves the traffic to the gateway that writes `successor`: takes no new connection, serves those that there are
    /// until their callers have left, at most for `limits.drain`, and ends then as [`Gateway::stop`]. A key that is taken
    /// back meanwhile is taken back here too. `hurry` cuts it short.
    pub async fn leave(self, successor: Origin, hurry: impl Future<Output = ()>) {
        self.handing.end();
        self.ends.leave.cancel();
        self.admin.abort();
        self.close_socket();
        let patience = self.app.snapshot.load().limits.drain;
        self.app.connections.close();
        self.app.asked.close();
        let hurried = CancellationToken::new();
        let told = async {
            hurry.await;
            hurried.cancel();
            std::future::pending::<()>().await;
        };
        let end = async {
            let leaving = async {
                let (left, _) = tokio::join!(
                    tokio::time::timeout(patience, self.app.connections.wait()),
                    tokio::time::timeout(ERASURES_LEAVING, self.app.asked.wait()),
                );
                left.is_ok()
            };
            let left = tokio::select! {
                left = leaving => left,
                () = hurried.cancelled() => false,
            };
            tracing::info!(left, "no new exchange is taken any more");
            self.end(Some(successor), hurried.cancelled()).await;
        };
        tokio::select! {
            () = end => {}
            () = told => {}
        }
    }

    fn close_socket(&self) {
        if let Some(socket) = &self.socket {
            socket.abort();
        }
    }

    /// As [`Gateway::stop`]; another signal cuts what still runs.
    async fn drain(self, mut told: Told) {
        tracing::info!("draining: no new exchanges; send the signal again to cut those that still run");
        self.stop(told.next()).await;
    }

    /// Takes no new exchange, lets those that run finish, closes the log and ships it. `hurry` cuts what still
    /// runs.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        self.end(None, hurry).await;
    }

    async fn end(self, successor: Option<Origin>, hurry: impl Future<Output = ()>) {
        let Self { app, listeners, reloading, admin, socket, handing, reload_stop, ends, .. } = self;
        handing.end();
        app.drain();
        ends.stop.cancel();
        reload_stop.cancel();
        for listener in listeners {
            // It only ends; a panic of it was logged.
            let _ = listener.await;
        }
        // A file that cannot be read to its end holds nobody up.
        let _ = tokio::time::timeout(LAST_RECORDS, reloading).await;
        app.connections.close();
        let patience = app.snapshot.load().limits.drain;
        let finished = tokio::select! {
            () = app.connections.wait() => true,
            () = tokio::time::sleep(patience) => false,
            () = hurry => false,
            // No exchange can be ended any more: whoever waits for one waits for nothing.
            () = journal_fails(&app) => false,
        };
        app.over.cancel();
        if !finished {
            tracing::warn!("cutting the exchanges that still run");
            app.cut();
            ends.cut.cancel();
            // What does not end now is closed by the ledger.
            let _ = tokio::time::timeout(LAST_RECORDS, app.connections.wait()).await;
        }
        app.tasks.close();
        if tokio::time::timeout(LAST_RECORDS, app.tasks.wait()).await.is_err() {
            tracing::error!("some outcomes are not recorded yet; the ledger closes their exchanges");
        }
        if let Some(socket) = socket {
            socket.abort();
        }
        app.asked.close();
        if tokio::time::timeout(ERASURES, app.asked.wait()).await.is_err() {
            tracing::warn!("an erasure still runs: what is recorded of it is done, the rest is refused");
        }
        let origin = app.ledger.origin().clone();
        let archive = app.snapshot.load().limits.archive;
        let closed = match successor {
            Some(successor) => app.ledger.hand_over(successor, archive).await,
            None => app.ledger.drain_and_close(CloseReason::Shutdown, archive).await,
        };
        match closed {
            Ok(()) => tracing::info!(%origin, "closed: everything is archived"),
            Err(error) => {
                tracing::warn!(%origin, %error, "closed, but not all is archived: the next start finishes it")
            }
        }
        if let Some(otlp) = &app.snapshot.load_full().otlp {
            otlp.flush().await;
        }
        admin.abort();
        // Who asked for an erasure that is refused now is still to hear of it.
        let _ = tokio::time::timeout(LAST_ANSWERS, app.asked.wait()).await;
    }
}

/// Waits until the store holds the log's first records: an auditor who reads of it in its predecessor's `close` finds
/// it then. Bounded: a store that is away keeps nobody from serving.
async fn known(ledger: &Ledger, stop: &Stop) {
    ledger.seal_now();
    let asked = async {
        while !stop.asked() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        known = ledger.wait_archived(2, KNOWN_WITHIN) => {
            if !known {
                tracing::warn!("the store does not know this log yet; it serves all the same");
            }
        }
        () = asked => {}
    }
}

fn no_socket(path: &Path) -> String {
    format!(
        "cannot listen at `{}` (`admin_socket`, or below `evidence.journal` where that is not set)",
        path.display()
    )
}

/// Ends when the journal has failed.
async fn journal_fails(app: &App) {
    while app.ledger.journal_failure().is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tracing::error!("the journal failed: no exchange can be ended any more");
}

fn ledger_config(loaded: &Loaded, start: Start, telemetry: &Arc<Telemetry>) -> anyhow::Result<LedgerConfig> {
    if evidence::next_minor::is_asked() {
        let variable = evidence::next_minor::VARIABLE;
        anyhow::ensure!(cfg!(debug_assertions), "`{variable}` is set: wanted none, it is for tests alone");
        tracing::warn!(variable, "records, files and seals are those that a later version may write");
    }
    let evidence = &loaded.config.evidence;
    let disk: evidence::disk::SharedDisk = Arc::new(RealDisk);
    let store = store::of(loaded)?;
    let documents = Documents::of(loaded)?;
    let counters = Arc::clone(telemetry);
    Ok(LedgerConfig {
        deployment: loaded.config.deployment.clone(),
        gateway: loaded.config.gateway.clone(),
        journal_dir: evidence.journal.clone(),
        spool_dir: evidence.spool.clone(),
        key_table_dir: evidence.key_table.clone(),
        store,
        registry: evidence.registry.as_deref().and_then(schemas::trust::public_key),
        seal_seed: *loaded.seal_seed,
        promise_seed: loaded.promise_seed.as_deref().copied(),
        closing: start.closing,
        operator: user::own(),
        batch_age: evidence.batch_age,
        batch_bytes: evidence.batch_size,
        heartbeat_bound: evidence.heartbeat,
        segment_bytes: evidence.segment,
        spool_bound_bytes: evidence.spool_bound,
        spool_keep: evidence.spool_keep,
        encryption: evidence.encryption == config::Encryption::On,
        accept_loss: start.accept_loss,
        gateway_version: Identifier::new(env!("CARGO_PKG_VERSION"))?,
        binary_sha256: binary_sha256(),
        config: documents.config,
        policy: documents.policy,
        price_book: documents.prices,
        counters: Arc::new(move || counters.signed()),
        commit: store::commit(loaded)?,
        disk,
        clock: Arc::new(SystemClock),
        store_wait: STORE_WAIT,
        stop: start.stop,
        tap: crate::tap::of(loaded)?,
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
