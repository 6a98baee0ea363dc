//! What all S3 servers have in common: an endpoint, one pair of keys, a data folder, a client.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation};

use crate::process::{Process, free_port};

/// Makes the command that serves `data` on an address with these keys.
type Serve = Box<dyn Fn(SocketAddr, &Path) -> Command + Send + Sync>;

/// A running S3 server. Ends when dropped, with its data.
pub struct S3Server {
    /// Its name, for messages.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    process: Option<Process>,
    serve: Serve,
    folder: tempfile::TempDir,
}

impl std::fmt::Debug for S3Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Server").field("name", &self.name).field("address", &self.address).finish()
    }
}

impl S3Server {
    /// The access key id of every server here.
    pub const ACCESS_KEY: &'static str = "affidavit-test";
    /// Its secret.
    pub const SECRET_KEY: &'static str = "affidavit-test-secret";
    /// The region of every server here.
    pub const REGION: &'static str = "us-east-1";

    pub(super) fn start(
        name: &'static str,
        serve: impl Fn(SocketAddr, &Path) -> Command + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix(name).tempdir().expect("a folder for a server");
        let mut server = Self { name, address: free_port(), process: None, serve: Box::new(serve), folder };
        server.resume();
        server
    }

    /// Where it is, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its folder: data, and its log `server.log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Ends the process; its data stays for [`S3Server::resume`].
    pub fn pause(&mut self) {
        self.process = None;
    }

    /// Starts the process on the same port and data.
    ///
    /// # Panics
    /// Where it does not answer S3 requests within a minute.
    pub fn resume(&mut self) {
        let mut command = (self.serve)(self.address, self.folder.path());
        let log = self.folder.path().join("server.log");
        self.process = Some(Process::listening(&mut command, &log, self.address));
        // It listens before it answers.
        let start = Instant::now();
        while !self.answers() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{} does not answer:\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether a request without a signature is refused as S3 does it, not as a server that still starts.
    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = std::net::TcpStream::connect(self.address) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        if write!(stream, "GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).is_err() {
            return false;
        }
        let mut head = [0; 12];
        stream.read_exact(&mut head).is_ok() && !head.ends_with(b"503")
    }

    /// A client with the server's keys.
    pub fn client(&self) -> Client {
        Self::client_at(&self.endpoint())
    }

    /// A client with the same keys for another address of the server, for example a proxy's.
    pub fn client_at(endpoint: &str) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(Self::REGION))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::new(Self::ACCESS_KEY, Self::SECRET_KEY, None, None, "tests"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Client::from_conf(config)
    }

    /// Makes a bucket with object lock, and so with versioning; no default retention.
    ///
    /// # Panics
    /// Where the server refuses.
    pub async fn create_locked_bucket(&self, name: &str) {
        self.client()
            .create_bucket()
            .bucket(name)
            .object_lock_enabled_for_bucket(true)
            .send()
            .await
            .unwrap_or_else(|e| {
                let e = aws_sdk_s3::error::DisplayErrorContext(&e);
                std::panic::panic_any(format!("{}: bucket `{name}`: {e}\n{}", self.name, self.log()))
            });
    }

    /// The variables that the usual credential chain reads.
    pub fn environment() -> [(&'static str, &'static str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY),
            ("AWS_REGION", Self::REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}
