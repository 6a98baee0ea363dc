//! moto: an S3 that forgets its promises. It lets retention be shortened: the store that a probe must catch.

use std::process::Command;

use super::s3::S3Server;

/// moto's server (`tests/requirements.txt`). Its data is in memory: gone after [`S3Server::pause`].
#[derive(Debug, Clone, Copy)]
pub struct Moto;

impl Moto {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// Where `AFFIDAVIT_PYTHON` does not name a Python that has it; `tests/run` does.
    pub fn start() -> S3Server {
        let python = std::env::var_os("AFFIDAVIT_PYTHON").expect("AFFIDAVIT_PYTHON, as `tests/run` sets it");
        S3Server::start("moto", move |address, _| {
            let mut command = Command::new(&python);
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()]);
            command
        })
    }
}
