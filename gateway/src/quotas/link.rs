//! The connection to a Redis: one, kept up in the background. Nobody waits for one that is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script, ScriptInvocation};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;

use super::server::{Driver, Passwords, Servers, Way};
use crate::config::QuotaRedis;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The same where another server may take the place of the one that is lost.
const LONGEST_OF_SEVERAL: Duration = Duration::from_secs(1);

/// How often is looked whether anybody is left who asks.
const LOOK: Duration = Duration::from_secs(5);

/// When is asked again what stands between two nodes of a cluster.
const AGAIN: Duration = Duration::from_millis(20);

/// So many questions in a row without an answer in time end a connection: one that is slow does not.
const SLOW_IN_A_ROW: u32 = 3;

/// Answers of a server that another, or the same later, would not give. Any other is of the question alone.
const NOT_THIS_SERVER: [&str; 6] =
    ["MASTERDOWN", "LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "NOREPLICAS"];

/// Answers of one that has done nothing, as another is to be asked: it is found, and asked in the time that is left.
const ANOTHER_SERVER: [&str; 2] = ["MOVED", "READONLY"];

/// Whether another server is to be asked. Redis 6 tells in the words of an `ERR` what its script met.
fn is_anothers(error: &RedisError) -> bool {
    let in_script = error.detail().is_some_and(|detail| detail.contains("-READONLY "));
    in_script || error.code().is_some_and(|code| ANOTHER_SERVER.contains(&code))
}

/// The same while the slot is on its way from one node to another: neither takes what asks for several keys.
const ON_ITS_WAY: [&str; 2] = ["ASK", "TRYAGAIN"];

/// Why the store did not answer. None of it is shown to callers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Down {
    /// There is no connection.
    #[error("no connection")]
    NotConnected,
    /// What is wrong with one of several servers.
    #[error("{0}: {1}")]
    At(String, Box<Self>),
    /// Another server is to be asked, and it was not found in time.
    #[error("another server is to be asked: {0}")]
    Elsewhere(RedisError),
    /// It did not answer in time.
    #[error("no answer in time")]
    Slow,
    /// It answered something else.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The way to it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Its name cannot stand in a certificate.
    #[error("`{0}` is no name for TLS")]
    Name(String),
    /// It takes no writes.
    #[error("it is a replica")]
    Replica,
    /// A sentinel knows no master of the name.
    #[error("the sentinel knows no such master")]
    Unnamed,
    /// A node of a cluster knows nobody who has the counters' slot.
    #[error("no node owns the slot of the prefix")]
    NoOwner,
    /// A script answered in another form.
    #[error("an answer of another form")]
    Form,
}

impl Down {
    /// Whether nothing of the question was done, for sure.
    pub(crate) fn did_nothing(&self) -> bool {
        matches!(self, Self::NotConnected | Self::Elsewhere(_))
    }
}

/// A connection, and what came of it.
#[derive(Clone)]
struct Connected {
    /// Which one it is: what fails on one ends no other.
    number: u64,
    connection: MultiplexedConnection,
    /// Questions without an answer in time since the last answer.
    slow: Arc<AtomicU32>,
    has_answered: Arc<AtomicBool>,
}

/// One connection, or none.
pub(crate) struct Link {
    timeout: Duration,
    servers: Servers,
    state: watch::Sender<Option<Connected>>,
    /// The first try has ended: after the start, and after a server has said that another is to be asked.
    tried: AtomicBool,
}

impl Link {
    pub(crate) fn new(config: &QuotaRedis, passwords: &Passwords, tls: Arc<ClientConfig>) -> Self {
        let servers = Servers::new(config, passwords, tls);
        let state = watch::Sender::new(None);
        Self { timeout: config.timeout, servers, state, tried: AtomicBool::new(false) }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Keeps the connection up, until `this` is the only one who knows it.
    pub(crate) async fn keep(this: std::sync::Weak<Self>) {
        let mut pause = FIRST_PAUSE;
        let mut number = 0;
        loop {
            let Some(link) = this.upgrade() else { return };
            let longest = if link.servers.are_several() { LONGEST_OF_SEVERAL } else { LONGEST_PAUSE };
            match link.servers.find().await {
                Ok(Way { connection, driver }) => {
                    tracing::info!("the store of quotas is connected");
                    number += 1;
                    let (slow, has_answered) = <(Arc<AtomicU32>, Arc<AtomicBool>)>::default();
                    let answered = Arc::clone(&has_answered);
                    link.state.send_replace(Some(Connected { number, connection, slow, has_answered }));
                    link.tried.store(true, Ordering::Release);
                    hold(&link, driver).await;
                    link.state.send_replace(None);
                    let is_elsewhere = !link.tried.load(Ordering::Acquire);
                    if is_elsewhere {
                        tracing::info!("the store of quotas is on another server");
                    } else {
                        tracing::warn!("the store of quotas is lost");
                    }
                    // One that only connects is not asked in a hurry.
                    if answered.load(Ordering::Acquire) {
                        pause = FIRST_PAUSE;
                        if is_elsewhere {
                            continue;
                        }
                    }
                }
                Err(error) => {
                    if !link.tried.swap(true, Ordering::AcqRel) || pause == longest {
                        tracing::warn!(%error, "the store of quotas does not answer");
                    }
                    link.state.send_replace(None);
                }
            }
            drop(link);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Runs a script. A connection that is broken, or has not answered several in a row, ends: the next is made in the
    /// background. Only where a server has said that another is to be asked, that one is waited for.
    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[String],
    ) -> Result<Vec<u64>, Down> {
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        for arg in args {
            call.arg(arg);
        }
        let end = Instant::now() + self.timeout;
        let mut said = None;
        loop {
            let Some(connected) = self.connection(end).await else {
                return Err(said.map_or(Down::NotConnected, Down::Elsewhere));
            };
            let number = connected.number;
            match self.ask(connected, &call, end).await {
                Err(Down::Elsewhere(error)) => {
                    if Instant::now() + AGAIN >= end {
                        return Err(Down::Elsewhere(error));
                    }
                    if is_anothers(&error) {
                        if let Some((address, _)) = error.redirect_node() {
                            self.servers.moved_to(address);
                        }
                        self.lose(number, true);
                    } else {
                        tokio::time::sleep(AGAIN).await;
                    }
                    said = Some(error);
                }
                other => return other,
            }
        }
    }

    async fn ask(
        &self,
        mut connected: Connected,
        call: &ScriptInvocation<'_>,
        end: Instant,
    ) -> Result<Vec<u64>, Down> {
        let answer = call.invoke_async::<Vec<i64>>(&mut connected.connection);
        match tokio::time::timeout_at(end, answer).await {
            Ok(Ok(numbers)) => {
                connected.slow.store(0, Ordering::Release);
                connected.has_answered.store(true, Ordering::Release);
                numbers
                    .into_iter()
                    .map(|n| u64::try_from(n.max(0)))
                    .collect::<Result<_, _>>()
                    .map_err(|_| Down::Form)
            }
            Ok(Err(error)) => match error.code() {
                Some(code) if is_anothers(&error) || ON_ITS_WAY.contains(&code) => {
                    connected.slow.store(0, Ordering::Release);
                    Err(Down::Elsewhere(error))
                }
                Some(code) if !NOT_THIS_SERVER.contains(&code) => {
                    connected.slow.store(0, Ordering::Release);
                    Err(error.into())
                }
                _ => {
                    self.lose(connected.number, false);
                    Err(error.into())
                }
            },
            Err(_) => {
                if connected.slow.fetch_add(1, Ordering::AcqRel) + 1 >= SLOW_IN_A_ROW {
                    self.lose(connected.number, false);
                }
                Err(Down::Slow)
            }
        }
    }

    /// Ends this connection: nobody else is sent onto it. Where another server is to be asked, the next one is waited for.
    fn lose(&self, number: u64, is_elsewhere: bool) {
        self.state.send_if_modified(|state| {
            let is_this = state.as_ref().is_some_and(|connected| connected.number == number);
            if is_this {
                if is_elsewhere {
                    self.tried.store(false, Ordering::Release);
                }
                *state = None;
            }
            is_this
        });
    }

    /// The connection. Only right after the start, and where another server is to be asked, it is waited for.
    async fn connection(&self, end: Instant) -> Option<Connected> {
        let now = self.state.borrow().clone();
        if now.is_some() || self.tried.load(Ordering::Acquire) {
            return now;
        }
        let mut state = self.state.subscribe();
        let up = tokio::time::timeout_at(end, state.wait_for(Option::is_some)).await;
        up.ok()?.ok()?.clone()
    }
}

/// Drives a connection until it ends, or somebody saw it fail, or nobody is left who asks.
async fn hold(link: &Arc<Link>, mut driver: Driver) {
    let mut state = link.state.subscribe();
    loop {
        tokio::select! {
            () = &mut driver => return,
            _ = state.wait_for(Option::is_none) => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        if Arc::strong_count(link) == 1 {
            return;
        }
    }
    // It still answers what it was asked, each time that another is to be asked.
    if !link.tried.load(Ordering::Acquire) {
        tokio::spawn(tokio::time::timeout(link.timeout, driver));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::RedisUrl;

    const TIMEOUT: Duration = Duration::from_millis(200);
    const MASTER: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";

    /// Plays a Redis: gives the next connection, whose way to it has asked for its role already.
    async fn accepted(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(heard(&mut stream).await.contains("ROLE"));
        stream.write_all(MASTER.as_bytes()).await.unwrap();
        stream
    }

    async fn heard(stream: &mut TcpStream) -> String {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// A store at `url`.
    pub(in crate::quotas) fn config(url: &str) -> QuotaRedis {
        QuotaRedis {
            urls: vec![RedisUrl::parse(url).unwrap()],
            cluster: None,
            sentinel: None,
            tls: Default::default(),
            username: None,
            password: None,
            database: 0,
            timeout: TIMEOUT,
            prefix: "affidavit".into(),
            lease: Duration::from_secs(30),
            when_down: Default::default(),
        }
    }

    fn link(listener: &TcpListener) -> Arc<Link> {
        let config = config(&format!("redis://{}", listener.local_addr().unwrap()));
        let tls = crate::tap::tls::client(&crate::config::TapFiles::default()).unwrap();
        let link = Arc::new(Link::new(&config, &Passwords::default(), tls));
        tokio::spawn(Link::keep(Arc::downgrade(&link)));
        link
    }

    async fn ask(link: &Arc<Link>) -> Result<Vec<u64>, Down> {
        link.run(&Script::new("return {1}"), &[], &[]).await
    }

    #[tokio::test]
    async fn an_answer_that_came_too_late_is_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = link(&listener);
        let mut server = accepted(&listener).await;
        let (late, ()) = tokio::join!(ask(&link), async { drop(heard(&mut server).await) });
        assert!(matches!(late, Err(Down::Slow)), "{late:?}");
        let (next, ()) = tokio::join!(ask(&link), async {
            heard(&mut server).await;
            server.write_all(b"*1\r\n:1\r\n*1\r\n:2\r\n").await.unwrap();
        });
        assert_eq!(next.unwrap(), [2], "the first answer is of the first question");
    }

    #[tokio::test]
    async fn an_answer_of_an_old_connection_is_never_taken_for_a_new_ones_and_its_end_ends_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = link(&listener);
        let mut old = accepted(&listener).await;
        let asked = || async { ask(&link).await };
        let (one, two, three) = tokio::join!(asked(), asked(), asked());
        for slow in [one, two, three] {
            assert!(matches!(slow, Err(Down::Slow)), "{slow:?}");
        }
        assert!(!link.is_up(), "three without an answer end it");
        assert!(matches!(ask(&link).await, Err(Down::NotConnected)), "and nobody waits for the next");
        let mut new = accepted(&listener).await;
        let mut state = link.state.subscribe();
        state.wait_for(Option::is_some).await.unwrap();
        // All that the old one was asked is answered now, and it ends.
        let _ = old.write_all("*1\r\n:1\r\n".repeat(3).as_bytes()).await;
        drop(old);
        link.lose(1, false);
        assert!(link.is_up(), "what fails on one connection ends no other");
        let (answer, ()) = tokio::join!(ask(&link), async {
            heard(&mut new).await;
            new.write_all(b"*1\r\n:2\r\n").await.unwrap();
        });
        assert_eq!(answer.unwrap(), [2]);
    }

    #[tokio::test]
    async fn a_question_that_another_server_is_to_be_asked_waits_for_it_and_is_asked_once_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = link(&listener);
        let mut server = accepted(&listener).await;
        let answers = async {
            heard(&mut server).await;
            server.write_all(b"*1\r\n:1\r\n").await.unwrap();
            let mut asked = 0;
            while asked < 2 {
                asked += heard(&mut server).await.matches("EVALSHA").count();
            }
            server.write_all(b"-READONLY You can't write against a read only replica.\r\n").await.unwrap();
            let mut promoted = accepted(&listener).await;
            // What the first was asked beside it is answered by it.
            server.write_all(b"*1\r\n:3\r\n").await.unwrap();
            heard(&mut promoted).await;
            promoted
                .write_all(b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n")
                .await
                .unwrap();
            heard(&mut promoted).await;
            promoted.write_all(b"*1\r\n:2\r\n").await.unwrap();
        };
        let asked = async {
            let first = ask(&link).await.unwrap();
            let (second, third) = tokio::join!(ask(&link), ask(&link));
            (first, second.unwrap(), third.unwrap())
        };
        let (answers, ()) = tokio::join!(asked, answers);
        assert_eq!(answers, (vec![1], vec![2], vec![3]));
    }
}
