//! A proxy on loopback before an HTTP service, which fails as networks and services do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::Dice;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It goes on, and so does the answer.
    Pass,
    /// It waits, then goes on.
    Delay(Duration),
    /// It is answered with this status and goes nowhere.
    Status(u16),
    /// It is answered with this status and code, as S3 says an error, and goes nowhere.
    Answer(u16, &'static str),
    /// The connection is cut; the request goes nowhere.
    CutBefore,
    /// The service does it and answers; the connection is cut before the caller hears of it.
    CutAfter,
    /// The service does it; the answer comes so much later.
    LateAnswer(Duration),
    /// Nobody is there: connections are cut at once.
    Down,
}

/// A request that came, and what became of it.
#[derive(Debug, Clone)]
pub struct Handled {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// What was done to it.
    pub fault: Fault,
    /// What the service answered, where it was asked.
    pub status: Option<u16>,
    /// The request's headers.
    pub headers: http::HeaderMap,
}

#[derive(Debug)]
struct Plan {
    /// For the next requests, one each; the last one first.
    next: Vec<Fault>,
    /// For all others: chances, and the die.
    mix: Vec<(u64, Fault)>,
    dice: Dice,
    handled: Vec<Handled>,
}

impl Plan {
    fn take(&mut self) -> Fault {
        if let Some(fault) = self.next.pop() {
            return fault;
        }
        let total: u64 = self.mix.iter().map(|(weight, _)| weight).sum();
        let mut at = self.dice.below(total.max(1));
        for (weight, fault) in &self.mix {
            if at < *weight {
                return *fault;
            }
            at -= weight;
        }
        Fault::Pass
    }
}

/// A running proxy, on a thread of its own. Stops when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultProxy {
    /// Starts one before `upstream`; everything passes.
    ///
    /// # Panics
    /// Where no port or thread is to be had.
    pub fn start(upstream: SocketAddr) -> Self {
        let plan =
            Plan { next: Vec::new(), mix: vec![(1, Fault::Pass)], dice: Dice::new(1), handled: Vec::new() };
        let plan = Arc::new(Mutex::new(plan));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&plan);
        std::thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime for the proxy");
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                    tokio::select! {
                        () = serve(listener, upstream, shared) => {}
                        _ = stopped => {}
                    }
                });
            })
            .expect("a thread for the proxy");
        Self { address, plan, stop: Some(stop) }
    }

    /// Where it is, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on all requests meet `fault`.
    pub fn set(&self, fault: Fault) {
        self.mix(vec![(1, fault)], 1);
    }

    /// From now on each request meets one of these, by weight; the same seed rolls the same.
    pub fn mix(&self, mix: Vec<(u64, Fault)>, seed: u64) {
        let mut plan = locked(&self.plan);
        plan.mix = mix;
        plan.dice = Dice::new(seed);
        plan.next.clear();
    }

    /// The next requests meet these, in order; those behind them what was set before.
    pub fn next(&self, faults: &[Fault]) {
        locked(&self.plan).next = faults.iter().rev().copied().collect();
    }

    /// What came so far.
    pub fn handled(&self) -> Vec<Handled> {
        locked(&self.plan).handled.clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Cuts the connection when a service returns it.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

async fn serve(listener: tokio::net::TcpListener, upstream: SocketAddr, plan: Arc<Mutex<Plan>>) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if locked(&plan).mix.iter().all(|(_, fault)| *fault == Fault::Down) {
            continue;
        }
        let (client, plan) = (client.clone(), Arc::clone(&plan));
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                handle(client.clone(), upstream, Arc::clone(&plan), request)
            });
            // What is cut ends with an error: that is the purpose.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn handle(
    client: Client<HttpConnector, Full<Bytes>>,
    upstream: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let fault = locked(&plan).take();
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let (method, headers) = (head.method.clone(), head.headers.clone());
    let note = |status| {
        let headers = headers.clone();
        let handled = Handled { method: method.clone(), path: path.clone(), fault, status, headers };
        locked(&plan).handled.push(handled);
    };
    match fault {
        Fault::Down | Fault::CutBefore => {
            note(None);
            return Err(Cut);
        }
        Fault::Status(status) => {
            // Read whole first: a caller that still sends would see a cut connection.
            let _ = body.collect().await;
            note(None);
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Cut)?;
            return Ok(response);
        }
        Fault::Answer(status, code) => {
            let _ = body.collect().await;
            note(None);
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>said by a test</Message>\
                 <RequestId>0</RequestId></Error>"
            );
            // A HEAD's answer has no body, and so no code.
            let body = if method == Method::HEAD { Bytes::new() } else { Bytes::from(text) };
            let mut response = Response::new(Full::new(body));
            *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Cut)?;
            return Ok(response);
        }
        Fault::Delay(time) => tokio::time::sleep(time).await,
        Fault::Pass | Fault::CutAfter | Fault::LateAnswer(_) => {}
    }
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    head.headers.remove(http::header::TRANSFER_ENCODING);
    head.headers.remove(http::header::EXPECT);
    head.uri = format!("http://{upstream}{path}").parse().map_err(|_| Cut)?;
    let Ok(response) = client.request(Request::from_parts(head, Full::new(body))).await else {
        note(None);
        return Err(Cut);
    };
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    note(Some(head.status.as_u16()));
    match fault {
        Fault::CutAfter => return Err(Cut),
        Fault::LateAnswer(time) => tokio::time::sleep(time).await,
        _ => {}
    }
    head.headers.remove(http::header::TRANSFER_ENCODING);
    if method == Method::HEAD {
        // Its length is the object's, and no body follows.
        return Ok(Response::from_parts(head, Full::new(Bytes::new())));
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    Ok(Response::from_parts(head, Full::new(body)))
}
