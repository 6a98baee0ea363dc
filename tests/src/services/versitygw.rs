//! Versity S3 gateway over a plain folder: differs from AWS in a few answers, so a good second judge.

use std::process::Command;

use super::cached::cached;
use super::s3::S3Server;

/// As in `tests/run`.
const VERSION: &str = "v1.8.0";

/// Versity S3 gateway.
#[derive(Debug, Clone, Copy)]
pub struct Versitygw;

impl Versitygw {
    /// Starts one on a free port with an empty folder.
    pub fn start() -> S3Server {
        let binary = cached("versitygw", VERSION);
        S3Server::start("versitygw", move |address, folder| {
            let [data, versions] = ["data", "versions"].map(|name| folder.join(name));
            for path in [&data, &versions] {
                std::fs::create_dir_all(path).expect("a data folder");
            }
            let mut command = Command::new(&binary);
            command
                .args(["--port", &address.to_string(), "posix", "--versioning-dir"])
                .arg(versions)
                .arg(data)
                .env("ROOT_ACCESS_KEY", S3Server::ACCESS_KEY)
                .env("ROOT_SECRET_KEY", S3Server::SECRET_KEY)
                .env("GOMAXPROCS", "2");
            command
        })
    }
}
