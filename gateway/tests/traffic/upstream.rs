//! TLS and HTTP/2 to providers.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use schemas::record::{End, ProviderEnd};
use tokio::net::TcpStream;

use crate::pki::{Pki, pki};
use crate::provider::{COMPLETION, DONE, Provider, delta, events, pieces, whole};
use crate::rig::{Rig, Setup, next, read, read_bytes, send};

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;

async fn answering(pki: &Pki, alpn: &[&[u8]]) -> Provider {
    Provider::start_over(Some(pki.server(alpn)), |_| async { whole(200, "application/json", COMPLETION) })
        .await
}

/// A provider at `host`, trusted by the CA of `trusted`.
fn over_tls(provider: &Provider, host: &str, trusted: &Pki) -> Setup {
    Setup {
        base_url: Some(format!("https://{host}:{}", provider.address.port())),
        provider: format!(", ca: {}", trusted.dir.path().join("ca.pem").display()),
        ..Setup::default()
    }
}

async fn is_refused(provider: &Provider, setup: Setup) {
    let rig = Rig::start(provider, setup).await;
    let (status, headers, body) = read(rig.chat(QUESTION).await).await;
    assert_eq!(status, 502);
    assert_eq!(headers["x-affidavit-reason"], "provider_unreachable");
    let told = String::from_utf8_lossy(&body).to_lowercase();
    assert!(!told.contains("certificate"), "why is in the record, not in the answer: {told}");
    assert!(provider.seen().is_empty(), "nothing is sent to whom is not trusted");
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.provider_status), (End::Unreachable, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_trusted_by_the_ca_that_is_given_for_it() {
    let pki = pki();
    let provider = answering(&pki, &[b"http/1.1"]).await;
    let rig = Rig::start(&provider, over_tls(&provider, "localhost", &pki)).await;
    let (status, _, body) = read(rig.chat(QUESTION).await).await;
    assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()));
    assert_eq!(provider.seen()[0].version, Version::HTTP_11);
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].end, End::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_of_another_ca_gets_nothing() {
    let (own, other) = (pki(), pki());
    let provider = answering(&own, &[b"http/1.1"]).await;
    is_refused(&provider, over_tls(&provider, "localhost", &other)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_certificate_names_another_host_gets_nothing() {
    let pki = pki();
    let provider = answering(&pki, &[b"http/1.1"]).await;
    is_refused(&provider, over_tls(&provider, "127.0.0.1", &pki)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_speaks_http2_gets_all_exchanges_on_one_connection() {
    let pki = pki();
    let provider = answering(&pki, &[b"h2", b"http/1.1"]).await;
    let rig = Rig::start(&provider, over_tls(&provider, "localhost", &pki)).await;
    // The first opens the connection.
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = rig.post("/openai/v1/chat/completions").body(Full::from(QUESTION)).unwrap();
        let address = rig.address;
        answers.push(tokio::spawn(async move { read(send(address, request).await).await }));
    }
    for answer in answers {
        let (status, _, body) = answer.await.unwrap();
        assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()));
    }
    let seen = provider.seen();
    assert!(seen.iter().all(|seen| seen.version == Version::HTTP_2 && seen.body == QUESTION));
    assert_eq!((seen.len(), provider.connections()), (21, 1));
    let evidence = rig.stop().await;
    assert_eq!((evidence.count("intent"), evidence.count("outcome")), (21, 21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_http2_passes_and_one_that_is_reset_is_a_provider_abort() {
    let pki = pki();
    let (first, second) = (events(), events());
    let (whole_stream, cut_stream) = (first.0, second.0);
    let responses = std::sync::Mutex::new(vec![second.1, first.1]);
    let provider = Provider::start_over(Some(pki.server(&[b"h2"])), move |_| {
        let response = responses.lock().unwrap().pop().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, over_tls(&provider, "localhost", &pki)).await;
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let event = delta("x");
    let mut response = rig.chat(asked).await;
    whole_stream.send(event.clone()).await;
    assert_eq!(read_bytes(response.body_mut(), event.len()).await, event.as_bytes());
    whole_stream.send(DONE).await;
    drop(whole_stream);
    assert_eq!(read(response).await.2, DONE);
    let mut response = rig.chat(asked).await;
    cut_stream.send(event.clone()).await;
    read_bytes(response.body_mut(), event.len()).await;
    cut_stream.cut().await;
    assert!(next(response.body_mut()).await.unwrap().is_err(), "no clean end");
    let evidence = rig.stop().await;
    let ends: Vec<_> =
        evidence.outcomes().iter().map(|outcome| (outcome.end, outcome.provider_end)).collect();
    assert_eq!(
        ends,
        [(End::Complete, Some(ProviderEnd::Seen)), (End::ProviderAbort, Some(ProviderEnd::Cut))]
    );
}

/// What a provider that speaks for the gateway puts behind its body, and one trailer that is its own.
fn planted() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for name in [
        "x-affidavit-receipt",
        "x-affidavit-receipt-outcome",
        "x-affidavit-exchange",
        "set-cookie",
        "x-checksum",
    ] {
        trailers.insert(name, "planted".parse().unwrap());
    }
    trailers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_provider_pass_but_cookies_and_what_would_speak_for_the_gateway() {
    let pki = pki();
    let provider = Provider::start_over(Some(pki.server(&[b"h2"])), |seen| async move {
        let streamed = seen.body.windows(6).any(|word| word == b"stream");
        let (sender, response) = if streamed {
            let (sender, response) = events();
            sender.send(delta("x")).await;
            sender.send(DONE).await;
            (sender, response)
        } else {
            let (sender, body) = pieces();
            sender.send(COMPLETION).await;
            (sender, Response::builder().header("content-type", "application/json").body(body).unwrap())
        };
        sender.trailers(planted()).await;
        response
    })
    .await;
    let rig = Rig::start(&provider, over_tls(&provider, "localhost", &pki)).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // What comes within a moment goes in one write, and that is not always so: several of each.
    for asked in [[QUESTION; 8], [r#"{"model":"m","stream":true,"messages":[]}"#; 8]].concat() {
        let request = Request::post("http://gateway/openai/v1/chat/completions")
            .header("authorization", format!("Bearer {}", rig.key))
            .header("content-type", "application/json")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(asked.as_bytes())))
            .unwrap();
        let body = caller.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        let names: Vec<_> = body.trailers().unwrap().keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["x-checksum"], "{asked}");
    }
    drop(caller);
    rig.stop().await;
}
