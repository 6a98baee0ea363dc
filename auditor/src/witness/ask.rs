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

/// How long a witness may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes.
const LIMIT: usize = 64 << 10;

/// Asks every witness of the trust file that has a URL. An answer is only what the witness says: it is verified later.
/// Gives also who did not answer, and why.
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
    runtime.block_on(async {
        let (mut notes, mut silent) = (Vec::new(), Vec::new());
        for witness in &trust.witnesses {
            let Some(base) = &witness.url else { continue };
            let url = format!("{}/checkpoint/{}", base.trim_end_matches('/'), registry.origin);
            match tokio::time::timeout(PATIENCE, get(&client, &url)).await {
                Ok(Ok(note)) => notes.push(WitnessNote { from: url, note }),
                Ok(Err(error)) => silent.push(format!("{url}: {error:#}")),
                Err(_) => silent.push(format!("{url}: no answer within {} s", PATIENCE.as_secs())),
            }
        }
        Ok((notes, silent))
    })
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
