//! A server that answers every request in the same way, whatever it is asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The server; it lives as long as the test's process.
#[derive(Debug)]
pub struct Answering {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Answering {
    /// On a free port, with this status line and body.
    ///
    /// # Panics
    /// Where no port can be had.
    pub fn start(status: &str, body: &str) -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), status, body)
    }

    /// The same on an address.
    ///
    /// # Panics
    /// Where somebody else listens there.
    pub fn on(address: SocketAddr, status: &str, body: &str) -> Self {
        let listener = TcpListener::bind(address).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let answer =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answered(stream, &answer);
            }
        });
        Self { address }
    }
}

/// Reads a request to its end, and answers it.
fn answered(mut stream: TcpStream, answer: &str) {
    let (mut seen, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    let whole = |seen: &[u8]| {
        let head = seen.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&seen[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(head + 4 + length.parse::<usize>().ok()?)
    };
    while whole(&seen).is_none_or(|length| seen.len() < length) {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => seen.extend_from_slice(&chunk[..read]),
        }
    }
    // Whoever left is not waited for.
    let _ = stream.write_all(answer.as_bytes());
}
