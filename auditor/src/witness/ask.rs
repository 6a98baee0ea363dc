//! Asking witnesses what they saw last of the registry.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use schemas::trust::Trust;

use crate::registry::WitnessNote;
use crate::time;

/// How long a witness may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes.
const LIMIT: usize = 64 << 10;

/// Asks every witness of the trust file that has a URL, all at once. An answer is only what the witness says: it is
/// verified later. Gives also who did not answer, and why.
///
/// # Errors
/// No runtime, no TLS.
pub fn latest(trust: &Trust) -> anyhow::Result<(Vec<WitnessNote>, Vec<String>)> {
    let Some(registry) = &trust.registry else { return Ok((Vec::new(), Vec::new())) };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .context("the system's root certificates")?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build(connector);
    let urls = trust.witnesses.iter().filter_map(|witness| witness.url.as_deref());
    let urls: Vec<String> =
        urls.map(|base| format!("{}/checkpoint/{}", base.trim_end_matches('/'), registry.origin)).collect();
    let asked = Some(time::now());
    // One that is silent must not keep the others waiting.
    let answers = runtime.block_on(async {
        let asking = urls.iter().map(|url| tokio::time::timeout(PATIENCE, get(&client, url)));
        futures_util::future::join_all(asking).await
    });
    let (mut notes, mut silent) = (Vec::new(), Vec::new());
    for (from, answer) in urls.into_iter().zip(answers) {
        match answer {
            Ok(Ok(note)) => notes.push(WitnessNote { from, note, asked }),
            Ok(Err(error)) => silent.push(format!("{from}: {error:#}")),
            Err(_) => silent.push(format!("{from}: no answer within {} s", PATIENCE.as_secs())),
        }
    }
    Ok((notes, silent))
}

async fn get(
    client: &Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: &str,
) -> anyhow::Result<Vec<u8>> {
    let answer = client.get(url.parse().context("not a URL")?).await?;
    if !answer.status().is_success() {
        bail!("status {}", answer.status());
    }
    let body = Limited::new(answer.into_body(), LIMIT).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(body.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Instant;

    use schemas::Origin;
    use schemas::trust::{TrustedRegistry, TrustedWitness};

    use super::*;

    /// Answers each request after so long.
    fn witness(after: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                std::thread::sleep(after);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
                open.push(stream);
            }
        });
        url
    }

    #[test]
    fn witnesses_are_asked_all_at_once() {
        let half = Duration::from_millis(1500);
        let witness =
            |url: String| TrustedWitness { key: "x".into(), organisation: "y".into(), url: Some(url) };
        let mut witnesses: Vec<_> = (0..4).map(|_| witness(self::witness(half))).collect();
        witnesses.push(witness("http://127.0.0.1:1/".into()));
        let registry = TrustedRegistry { origin: Origin::registry("acme").unwrap(), key: String::new() };
        let trust = Trust { registry: Some(registry), witnesses, ..Trust::default() };
        let (asked, begun) = (time::now(), Instant::now());
        let (notes, silent) = latest(&trust).unwrap();
        assert!(begun.elapsed() < half * 3, "one after the other: {:?}", begun.elapsed());
        assert!(notes.iter().all(|note| note.note == b"hi" && note.asked.is_some_and(|at| at >= asked)));
        assert_eq!((notes.len(), silent.len()), (4, 1));
        assert!(silent[0].starts_with("http://127.0.0.1:1/checkpoint/acme/registry/log: "), "{silent:?}");
    }
}
