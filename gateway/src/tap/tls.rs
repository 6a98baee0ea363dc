//! TLS to a sink, and to a collector.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::config::TapFiles;
use crate::dispatch::pool::{PoolError, system_roots};

/// The client's side of TLS.
///
/// # Errors
/// Roots or a certificate that cannot be used.
pub(crate) fn client(files: &TapFiles) -> Result<Arc<ClientConfig>, PoolError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &files.roots {
        Some(given) => {
            let mut store = RootCertStore::empty();
            for root in given {
                store.add(root.clone())?;
            }
            Arc::new(store)
        }
        None if files.uses_tls => system_roots()?,
        None => Arc::new(RootCertStore::empty()),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &files.client {
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}
