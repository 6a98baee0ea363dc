//! MinIO: answers as AWS does wherever it was compared. No longer maintained; for tests only.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cached::cached;
use super::s3::S3Server;

/// As in `tests/run`.
const VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

/// MinIO.
#[derive(Debug, Clone, Copy)]
pub struct Minio;

impl Minio {
    /// Starts one on a free port with an empty folder.
    pub fn start() -> S3Server {
        Self::with(None)
    }

    /// Starts one that has a key service with one key.
    pub fn start_with(keys: MinioKeys) -> S3Server {
        Self::with(Some(keys))
    }

    fn with(keys: Option<MinioKeys>) -> S3Server {
        let binary = cached("minio", VERSION);
        S3Server::start("minio", move |address, folder| {
            let (data, certs) = (folder.join("data"), folder.join("certs"));
            std::fs::create_dir_all(&data).expect("a data folder");
            std::fs::create_dir_all(&certs).expect("a folder of certificates");
            let mut command = Command::new(&binary);
            command
                .args(["server", "--quiet", "--address", &address.to_string()])
                .args(["--console-address", "127.0.0.1:0"])
                // Empty: plain HTTP. With `public.crt` and `private.key` in it: TLS.
                .arg("--certs-dir")
                .arg(certs)
                .arg(data)
                .env("MINIO_ROOT_USER", S3Server::ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", S3Server::SECRET_KEY)
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off")
                .env("GOMAXPROCS", "2");
            if let Some(keys) = &keys {
                command.env("MINIO_KMS_SECRET_KEY", keys.variable());
            }
            command
        })
    }
}

/// A key service of MinIO's own.
#[derive(Debug, Clone, Default)]
pub struct MinioKeys {
    destroyed: Arc<AtomicBool>,
}

impl MinioKeys {
    /// The key's name.
    pub const NAME: &'static str = "evidence-key";

    /// From the next start on there are other bytes under its name.
    pub fn destroy(&self) {
        self.destroyed.store(true, Ordering::Relaxed);
    }

    fn variable(&self) -> String {
        use base64::Engine as _;
        let bytes = [u8::from(self.destroyed.load(Ordering::Relaxed)); 32];
        format!("{}:{}", Self::NAME, base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}
