//! Answers requests over the visit that is shown, and makes the next one when somebody asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::answer::{self, Body};
use super::asked::{Asked, Wrong};
use super::content::Access;
use super::controls::Answer;
use super::filter::Filter;
use super::frame::{Standing, refusal};
use super::gate::{Gate, Origin, is_own};
use super::login::Login;
use super::visit::{self, Visit};
use super::{controls, cost, csv, exchange, exchanges, listen, overview};
use crate::cli::Evidence;
use crate::commands::assess::Questions;
use crate::render::hostile;
use crate::time;

/// Pages that are made at a time; more wait.
const PAGES: usize = 4;
/// How long a page waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// CSV files that are sent at a time.
const FILES: usize = 2;

/// What was typed.
pub struct Settings {
    /// What to verify.
    pub evidence: Evidence,
    /// How others reach the page.
    pub origin: Option<Origin>,
    /// Whether a login link is asked for.
    pub login: bool,
    /// The packs that are offered.
    pub(crate) questions: Questions,
    /// Whether, and why, content is shown.
    pub access: Access,
    /// Memory for questions, MiB.
    pub memory: usize,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("evidence", &self.evidence)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// The page.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    gate: Gate,
    /// Where links begin.
    url: String,
    visit: RwLock<Arc<Visit>>,
    passes: Mutex<Standing>,
    pages: Arc<Semaphore>,
    files: Arc<Semaphore>,
    handle: Handle,
}

fn tell(text: &str) {
    listen::tell(text);
}

/// Why there is no page.
enum NoPage {
    Missing,
    Failed(anyhow::Error),
    Busy,
    /// A pack is being asked.
    Asking,
}

impl From<anyhow::Error> for NoPage {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Server {
    /// Verifies, and serves until SIGTERM or SIGINT. To be called outside of `handle`'s runtime.
    ///
    /// # Errors
    /// Evidence that cannot be opened, an address that cannot be listened on.
    pub fn run(settings: Settings, listen: SocketAddr, handle: &Handle) -> anyhow::Result<()> {
        let visit = visit::make(&settings, 1, false, handle)?;
        tell(&format!("{} {}", visit.report.first_line(), time::text(visit.report.checked_at)));
        handle.block_on(async {
            let listener = tokio::net::TcpListener::bind(listen).await?;
            let address = listener.local_addr()?;
            let url = settings.origin.as_ref().map_or_else(|| format!("http://{address}"), Origin::url);
            let login = match settings.login || settings.origin.is_some() {
                false => None,
                true => {
                    let secure = settings.origin.as_ref().is_some_and(|origin| origin.secure);
                    Some(Login::new(address.port(), secure)?)
                }
            };
            tell(&format!("listening on {address}"));
            match &login {
                None => tell(&format!("open {url}/")),
                Some((_, token)) => tell(&format!("open {url}/login?token={token}")),
            }
            let gate = Gate::new(address, settings.origin.as_ref(), login.map(|(login, _)| login))
                .with_content(settings.access.why.is_some());
            let server = Arc::new(Self {
                settings: Arc::new(settings),
                gate,
                url,
                visit: RwLock::new(Arc::new(visit)),
                passes: Mutex::default(),
                pages: Arc::new(Semaphore::new(PAGES)),
                files: Arc::new(Semaphore::new(FILES)),
                handle: handle.clone(),
            });
            listen::listen(server, listener).await
        })
    }

    /// Answers a request.
    pub(super) async fn answer(self: Arc<Self>, head: Parts) -> Response<Body> {
        if let Err(refused) = self.gate.check(&head, time::now()) {
            let title = refused.status.canonical_reason().unwrap_or("Refused");
            let mut response = answer::page(refused.status, refusal(title, &refused.why));
            if refused.status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            // Whoever may not ask holds no connection.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        let asked = match Asked::read(head.uri.path(), head.uri.query().unwrap_or_default()) {
            Ok(asked) => asked,
            Err(Wrong::Path) => return nothing_there(),
            Err(Wrong::Query(why)) => {
                return answer::page(
                    StatusCode::BAD_REQUEST,
                    refusal("This cannot be asked", &format!("{why}.")),
                );
            }
        };
        let does = match &asked {
            Asked::Verify { .. } | Asked::Login(_) | Asked::Csv(_) => true,
            // Content is opened, and the access ledger says so.
            Asked::Exchange(_) => self.settings.access.why.is_some(),
            _ => false,
        };
        if head.method == Method::HEAD && does {
            // Whoever only looks whether there is a page does not cause a thing.
            return answer::page(StatusCode::OK, String::new());
        }
        match asked {
            Asked::Login(token) => self.log_in(&token, is_own(&head.headers)),
            Asked::Verify { after, all } => {
                self.verify(after, all);
                answer::see("/")
            }
            Asked::Csv(filter) => self.file(filter).await,
            asked => match self.page(asked).await {
                Ok(html) => answer::page(StatusCode::OK, html),
                Err(NoPage::Missing) => nothing_there(),
                Err(NoPage::Busy) => busy(BUSY),
                Err(NoPage::Asking) => busy(ASKING),
                Err(NoPage::Failed(error)) => {
                    tell(&format!("a page could not be made: {error:#}"));
                    let why = format!("The page could not be made: {error:#}");
                    answer::page(StatusCode::INTERNAL_SERVER_ERROR, refusal("No answer", &why))
                }
            },
        }
    }

    fn visit(&self) -> Arc<Visit> {
        self.visit.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn standing(&self) -> Standing {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a browser in. Where another site led it here, its first request would not carry the cookie yet: it gets a link.
    fn log_in(&self, token: &str, own: bool) -> Response<Body> {
        let Some(login) = self.gate.login() else { return answer::see("/") };
        match login.open(token, time::now()) {
            Ok(Some(entered)) => {
                tell(&format!(
                    "somebody logged in; the next link: {}/login?token={}",
                    self.url, entered.next
                ));
                let mut response = match own {
                    true => answer::see("/"),
                    false => answer::page(
                        StatusCode::OK,
                        refusal("Logged in", "For twelve hours, in this browser."),
                    ),
                };
                if let Ok(cookie) = HeaderValue::from_str(&entered.cookie) {
                    response.headers_mut().insert(header::SET_COOKIE, cookie);
                }
                response
            }
            Ok(None) => {
                let why = "This link was used, or is none. The one that counts is the last that `auditor serve` printed.";
                answer::page(StatusCode::UNAUTHORIZED, refusal("No login", why))
            }
            Err(error) => {
                answer::page(StatusCode::INTERNAL_SERVER_ERROR, refusal("No login", &format!("{error:#}")))
            }
        }
    }

    /// Makes the visit after `after`, where that is shown and no pass is under way.
    fn verify(self: &Arc<Self>, after: u64, all: bool) {
        {
            let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
            if passes.since.is_some() || self.visit().number != after {
                return;
            }
            passes.since = Some(time::now());
        }
        let server = Arc::clone(self);
        // A thread of its own: a bucket is read by a runtime of its own, and the end of the program does not wait for it.
        let pass = move || {
            let make = || visit::make(&server.settings, after + 1, all, &server.handle);
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make))
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the pass ended by a fault of the auditor's own")));
            let mut passes = server.passes.lock().unwrap_or_else(PoisonError::into_inner);
            passes.since = None;
            match made {
                Ok(visit) => {
                    tell(&format!("verified again: {}", visit.report.first_line()));
                    passes.failed = None;
                    *server.visit.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(visit);
                }
                Err(error) => {
                    let why = hostile::line(&format!("{error:#}")).into_owned();
                    tell(&format!("could not verify again: {why}"));
                    passes.failed = Some((time::now(), why));
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("verify".into()).spawn(pass) {
            let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
            passes.since = None;
            passes.failed = Some((time::now(), format!("no thread: {error}")));
        }
    }

    /// Makes a page, when it is its turn.
    async fn page(self: &Arc<Self>, asked: Asked) -> Result<String, NoPage> {
        let turn = timeout(TURN, Arc::clone(&self.pages).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(NoPage::Busy) };
        let server = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let page = timeout(PATIENCE, server.write(&asked));
            server.handle.block_on(page).unwrap_or(Err(NoPage::Busy))
        });
        made.await.unwrap_or_else(|error| Err(NoPage::Failed(error.into())))
    }

    async fn write(&self, asked: &Asked) -> Result<String, NoPage> {
        let (visit, standing, settings) = (self.visit(), self.standing(), &self.settings);
        match asked {
            Asked::Exchanges(filter, listing) => {
                Ok(exchanges::write(&visit, &standing, filter, listing).await?)
            }
            Asked::Exchange(id) => {
                exchange::write(&visit, &standing, id, &settings.access).await?.ok_or(NoPage::Missing)
            }
            Asked::Cost(times) => Ok(cost::write(&visit, &standing, times).await?),
            Asked::Controls => Ok(controls::list(&visit, &standing, settings)),
            Asked::Pack(name) => {
                match controls::pack(&visit, &standing, settings, name, controls::PATIENCE).await? {
                    Answer::Is(page) => Ok(page),
                    Answer::Asking => Err(NoPage::Asking),
                    Answer::NoPack => Err(NoPage::Missing),
                }
            }
            _ => Ok(overview::write(&visit, &standing)),
        }
    }

    /// Sends a CSV file.
    async fn file(self: &Arc<Self>, filter: Filter) -> Response<Body> {
        let turn = timeout(TURN, Arc::clone(&self.files).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return busy(BUSY) };
        let visit = self.visit();
        let name = csv::name(&visit);
        let (chunks, waiting) = mpsc::channel(2);
        self.spawn_file(visit, filter, chunks, turn);
        let stream = futures_util::stream::unfold(waiting, |mut waiting| async {
            let chunk: Result<bytes::Bytes, std::io::Error> = waiting.recv().await?;
            Some((chunk.map(Frame::data), waiting))
        });
        let mut response =
            answer::with(StatusCode::OK, "text/csv; charset=utf-8", StreamBody::new(stream).boxed_unsync());
        if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
            response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
        }
        response
    }

    fn spawn_file(
        self: &Arc<Self>,
        visit: Arc<Visit>,
        filter: Filter,
        chunks: csv::Chunks,
        turn: OwnedSemaphorePermit,
    ) {
        let handle = self.handle.clone();
        drop(tokio::task::spawn_blocking(move || {
            let _turn = turn;
            handle.block_on(async {
                if let Err(error) = csv::send(&visit, &filter, &chunks).await {
                    tell(&format!("a CSV file could not be sent whole: {error:#}"));
                    // The connection ends before the file does, so that nobody takes it for whole.
                    let _ = chunks.try_send(Err(std::io::Error::other("cut")));
                }
            });
        }));
    }
}

fn nothing_there() -> Response<Body> {
    let why = "There is no such page, or the proven records hold no such exchange.";
    answer::page(StatusCode::NOT_FOUND, refusal("Nothing there", why))
}

const BUSY: &str = "Others are being answered, or the question took too long. Ask again, or for less.";
const ASKING: &str = "A pack is being asked, one at a time. Its answers are kept when they come: load this page again in a moment.";

fn busy(why: &str) -> Response<Body> {
    let mut response = answer::page(StatusCode::SERVICE_UNAVAILABLE, refusal("Busy", why));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}
