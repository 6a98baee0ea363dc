//! Certificate authorities for tests.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates in a folder: `ca.pem`, `cert.pem` and `key.pem`.
pub(crate) struct Pki {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) roots: rustls::RootCertStore,
    pub(crate) client: (CertificateDer<'static>, Vec<u8>),
}

/// A CA, a certificate for `localhost`, and one for a caller.
pub(crate) fn pki() -> Pki {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["localhost".into()])
        .unwrap()
        .signed_by(&server_key, &issuer)
        .unwrap();
    let client_key = rcgen::KeyPair::generate().unwrap();
    let client = rcgen::CertificateParams::new(vec!["caller".into()])
        .unwrap()
        .signed_by(&client_key, &issuer)
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca_cert.pem()).unwrap();
    std::fs::write(dir.path().join("cert.pem"), server.pem()).unwrap();
    gateway::output::write_new(&dir.path().join("key.pem"), server_key.serialize_pem().as_bytes(), 0o600)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    Pki { dir, roots, client: (client.der().clone(), client_key.serialize_der()) }
}

impl Pki {
    /// Puts this certificate and key in the place of those in `folder`.
    pub(crate) fn copy_to(&self, folder: &std::path::Path) {
        for name in ["cert.pem", "key.pem"] {
            let bytes = std::fs::read(self.dir.path().join(name)).unwrap();
            // A new file in the old one's place, as certificate tools do it.
            let fresh = folder.join(format!("{name}.new"));
            gateway::output::write_new(&fresh, &bytes, 0o600).unwrap();
            std::fs::rename(fresh, folder.join(name)).unwrap();
        }
    }

    /// A server for `localhost` that offers `alpn`.
    pub(crate) fn server(&self, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(self.dir.path().join("cert.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.dir.path().join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}
