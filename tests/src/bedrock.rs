//! Bedrock's runtime on loopback, which checks each signature with botocore: `tests/bedrock/provider.py`.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// An access key's id, secret and session token, and the one after it.
pub const KEYS: [[&str; 3]; 2] = [
    ["AKIDGATEWAY", "gateway-secret-key-0123456789", "gateway-session-token"],
    ["AKIDROTATED", "rotated-secret-key-0123456789", "rotated-session-token"],
];

/// A Python with `tests/requirements.txt`.
///
/// # Panics
/// Where `AFFIDAVIT_PYTHON` names none.
pub fn python() -> Command {
    let python = std::env::var("AFFIDAVIT_PYTHON")
        .expect("AFFIDAVIT_PYTHON names a Python with tests/requirements.txt");
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// A running provider. Ends with its owner.
#[derive(Debug)]
pub struct Bedrock {
    /// Its base URL.
    pub url: String,
    process: Child,
}

impl Bedrock {
    /// Starts it; each request is a line of JSON in `seen`.
    ///
    /// # Panics
    /// Where Python does not start or has no port.
    pub fn start(seen: &Path) -> Self {
        let mut command = python();
        command.arg(crate::root().join("tests/bedrock/provider.py")).arg(seen).stdout(Stdio::piped());
        let mut process = command.spawn().expect("Python starts");
        let mut port = String::new();
        let out = process.stdout.take().expect("a pipe");
        std::io::BufReader::new(out).read_line(&mut port).expect("a port");
        Self { url: format!("http://127.0.0.1:{}", port.trim()), process }
    }
}

impl Drop for Bedrock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes an access key into the files that [`provider`] names.
///
/// # Panics
/// Where they cannot be written.
pub fn write_key(dir: &Path, key: [&str; 3]) {
    for (file, text) in ["aws.id", "aws.secret", "aws.token"].iter().zip(key) {
        std::fs::write(dir.join(file), text).expect("a file");
    }
}

/// The gateway's provider `bedrock` at `url`, with the access key in `dir`.
pub fn provider(dir: &Path, url: &str) -> String {
    let place = |name: &str| format!("{{ file: {}/{name} }}", dir.display());
    format!(
        "  - name: bedrock\n    dialect: bedrock\n    base_url: {url}\n    aws:\n      region: us-east-1\n      \
         access_key_id: {}\n      secret_access_key: {}\n      session_token: {}\n",
        place("aws.id"),
        place("aws.secret"),
        place("aws.token")
    )
}
