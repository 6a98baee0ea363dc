//! A proxy before an S3 server that changes what is asked or answered: a store, or something before it, that lies; a role
//! or bucket policy that refuses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl Asked {
    /// Whether a listing of versions is asked for.
    pub fn is_listing(&self) -> bool {
        self.method == Method::GET && self.target.contains("?versions") || self.target.contains("&versions")
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; of an answer to HEAD it is not sent.
    pub body: Bytes,
}

impl Answer {
    /// 403, as for a caller without the permission.
    pub fn denied() -> Self {
        let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        Self { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body: body.into() }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Another body.
    pub fn say(&mut self, text: impl Into<String>) {
        self.body = text.into().into();
    }

    /// Gives every element `<name>` of the body other text.
    pub fn rewrite(&mut self, name: &str, with: impl Fn(&str) -> String) {
        let (start, end) = (format!("<{name}>"), format!("</{name}>"));
        let text = self.text();
        let mut parts = text.split(&start);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (inner, rest) = part.split_once(&end).expect("an element that ends");
            out.push_str(&format!("{start}{}{end}{rest}", with(inner)));
        }
        self.say(out);
    }

    /// Gives a header another value, where it is there.
    pub fn header(&mut self, name: &'static str, value: &str) {
        if self.headers.contains_key(name) {
            self.headers.insert(name, value.parse().expect("a header's value"));
        }
    }
}

/// What is done to each request and answer. `None` for the answer: before the store was asked; an answer given then is
/// the answer, and the store is not asked.
type Lie = dyn Fn(&Asked, Option<&mut Answer>) -> Option<Answer> + Send + Sync;

/// A running proxy.
#[derive(Debug, Clone)]
pub struct Liar {
    /// Where it is, as a URL.
    pub endpoint: String,
    lies: Arc<AtomicBool>,
}

impl Liar {
    /// Starts one that refuses what `denies` says.
    pub async fn refusing(
        upstream: SocketAddr,
        denies: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::start(
            upstream,
            Arc::new(move |asked, answer| (answer.is_none() && denies(asked)).then(Answer::denied)),
        )
        .await
    }

    /// Starts one that changes answers.
    pub async fn rewriting(
        upstream: SocketAddr,
        rewrites: impl Fn(&Asked, &mut Answer) + Send + Sync + 'static,
    ) -> Self {
        Self::start(
            upstream,
            Arc::new(move |asked, answer| {
                if let Some(answer) = answer {
                    rewrites(asked, answer);
                }
                None
            }),
        )
        .await
    }

    /// From now on it tells the truth, or lies again.
    pub fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::Relaxed);
    }

    async fn start(upstream: SocketAddr, lie: Arc<Lie>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let lies = Arc::new(AtomicBool::new(true));
        let client: Client<HttpConnector, Incoming> = Client::builder(TokioExecutor::new()).build_http();
        let on = lies.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, lie, on) = (client.clone(), lie.clone(), on.clone());
                let service = hyper::service::service_fn(move |request| {
                    let (client, lie, on) = (client.clone(), lie.clone(), on.clone());
                    async move {
                        let lie = on.load(Ordering::Relaxed).then_some(lie);
                        Ok::<_, Infallible>(handle(&client, upstream, lie.as_deref(), request).await)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { endpoint, lies }
    }
}

async fn handle(
    client: &Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    lie: Option<&Lie>,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let asked = Asked { method, target, headers };
    if let Some(answer) = lie.and_then(|lie| lie(&asked, None)) {
        let body = if asked.method == Method::HEAD { Bytes::new() } else { answer.body };
        let mut response = Response::new(Full::new(body));
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
        return response;
    }
    *request.uri_mut() = format!("http://{upstream}{}", asked.target).parse().expect("a URI");
    let Ok(answer) = client.request(request).await else {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return response;
    };
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut answer = Answer { status: parts.status, headers: parts.headers, body };
    if let Some(lie) = lie {
        lie(&asked, Some(&mut answer));
    }
    (parts.status, parts.headers) = (answer.status, answer.headers);
    if asked.method != Method::HEAD {
        parts.headers.remove(http::header::TRANSFER_ENCODING);
        parts.headers.remove(http::header::CONTENT_LENGTH);
    }
    Response::from_parts(parts, Full::new(answer.body))
}
