//! TLS to callers: rustls with ring, and mTLS where callers must show a certificate.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use x509_cert::der::Decode as _;

use crate::config::TlsFiles;

/// Why the files of a listener make no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The certificate chain and key do not work together, or cannot be used.
    #[error("certificate or key: {0}")]
    Certificate(#[from] rustls::Error),
    /// The roots for callers' certificates cannot be used.
    #[error("client_ca: {0}")]
    ClientCa(String),
}

/// When the first certificate of a listener's chain that ends does so, seconds since 1970; `None` where none can be read.
pub(crate) fn expires(files: &TlsFiles) -> Option<u64> {
    let ends = files.certificate.iter().filter_map(|der| {
        let read = x509_cert::Certificate::from_der(der).ok()?;
        Some(read.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
    });
    ends.min()
}

/// Makes the TLS configuration of one listener.
///
/// HTTP/2 is offered before HTTP/1.1.
///
/// # Errors
/// What of the files cannot be used.
pub(crate) fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let mut store = rustls::RootCertStore::empty();
            for root in roots {
                store.add(root.clone()).map_err(|error| TlsError::ClientCa(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
                .build()
                .map_err(|error| TlsError::ClientCa(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(files.certificate.clone(), files.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
