//! An HTTP/1.1 caller over a bare socket, that remembers every byte it got and can go away at any of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers besides `host` and `content-length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Call {
    /// A POST of JSON.
    pub fn post(path: &str, key: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST".into(),
            path: path.into(),
            headers: vec![
                ("authorization".into(), format!("Bearer {key}")),
                ("content-type".into(), "application/json".into()),
            ],
            body: body.into(),
        }
    }
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    fn head(&self, host: SocketAddr) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method == "POST" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head
    }
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Got {
    /// HTTP status; 0 where no head came.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body's bytes as far as they came, chunk framing undone.
    pub body: Vec<u8>,
    /// Trailers, names in lower case.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as HTTP says it must.
    pub whole: bool,
    /// When bytes came, and how long the body was then.
    came: Vec<(Instant, usize)>,
}

impl Got {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// The exchange's id, where the gateway told it.
    pub fn exchange(&self) -> Option<&str> {
        self.header("x-affidavit-exchange")
    }
    /// How much of the body had come `before` its last byte.
    pub fn came(&self, before: Duration) -> usize {
        let Some((last, _)) = self.came.last() else { return 0 };
        let old = self.came.iter().rev().find(|(at, _)| last.duration_since(*at) >= before);
        old.map_or(0, |(_, length)| *length)
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// When the caller goes away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Leave {
    /// After this many body bytes.
    pub after_bytes: Option<usize>,
    /// After this long without a byte.
    pub after_silence: Option<Duration>,
}

/// Sends `call` on a connection of its own and reads the answer to its end.
pub async fn send(host: SocketAddr, call: &Call) -> Got {
    send_until(host, call, Leave::default()).await
}

/// Sends `call` and reads until the end or until `leave` says to go. Never fails: what came is what is returned.
pub async fn send_until(host: SocketAddr, call: &Call, leave: Leave) -> Got {
    let mut got = Got::default();
    let Ok(mut stream) = TcpStream::connect(host).await else { return got };
    let _ = stream.set_nodelay(true);
    let mut out = call.head(host).into_bytes();
    out.extend_from_slice(&call.body);
    // The gateway may answer and close before it has read all: read on whatever the write says.
    let (mut reader, mut writer) = stream.split();
    let write = async {
        let _ = writer.write_all(&out).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read(&mut reader, leave, &mut got) => {}
        () = write => {}
    }
    got
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin), leave: Leave, got: &mut Got) {
    let mut raw = Vec::new();
    let mut state = Framing::Head;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let ended = advance(&mut raw, &mut state, got);
        if got.came.last().map_or(0, |(_, length)| *length) < got.body.len() {
            got.came.push((Instant::now(), got.body.len()));
        }
        if ended {
            got.whole = true;
            return;
        }
        if leave.after_bytes.is_some_and(|n| got.body.len() >= n) {
            return;
        }
        let silence = leave.after_silence.unwrap_or(Duration::from_secs(120));
        match tokio::time::timeout(silence, stream.read(&mut buffer)).await {
            Ok(Ok(n)) if n > 0 => raw.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            _ => {
                got.whole = matches!(state, Framing::UntilClose);
                return;
            }
        }
    }
}

enum Framing {
    Head,
    Length(usize),
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
}

/// Moves what is whole from `raw` into `got`; true at the body's proper end.
fn advance(raw: &mut Vec<u8>, state: &mut Framing, got: &mut Got) -> bool {
    loop {
        match state {
            Framing::Head => {
                let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
                let head = String::from_utf8_lossy(&raw[..end]).into_owned();
                raw.drain(..end + 4);
                let mut lines = head.split("\r\n");
                got.status = lines
                    .next()
                    .and_then(|l| l.split(' ').nth(1).and_then(|s| s.parse().ok()))
                    .unwrap_or_default();
                if got.status == 100 {
                    continue;
                }
                got.headers = lines
                    .filter_map(|l| l.split_once(':'))
                    .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
                    .collect();
                *state = if got.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
                    Framing::ChunkSize
                } else if let Some(length) = got.header("content-length").and_then(|v| v.parse().ok()) {
                    Framing::Length(length)
                } else if got.status == 204 || got.status == 304 {
                    Framing::Length(0)
                } else {
                    Framing::UntilClose
                };
            }
            Framing::Length(left) => {
                let n = raw.len().min(*left);
                got.body.extend(raw.drain(..n));
                *left -= n;
                return *left == 0;
            }
            Framing::ChunkSize => {
                let Some(end) = raw.windows(2).position(|w| w == b"\r\n") else { return false };
                let line = String::from_utf8_lossy(&raw[..end]).into_owned();
                raw.drain(..end + 2);
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
                *state = if size == 0 { Framing::Trailers } else { Framing::Chunk(size) };
            }
            Framing::Chunk(left) => {
                let n = raw.len().min(*left);
                got.body.extend(raw.drain(..n));
                *left -= n;
                if *left > 0 {
                    return false;
                }
                *state = Framing::ChunkEnd;
            }
            Framing::ChunkEnd => {
                if raw.len() < 2 {
                    return false;
                }
                raw.drain(..2);
                *state = Framing::ChunkSize;
            }
            Framing::Trailers => {
                let Some(end) = raw.windows(2).position(|w| w == b"\r\n") else { return false };
                let line = String::from_utf8_lossy(&raw[..end]).into_owned();
                raw.drain(..end + 2);
                match line.split_once(':') {
                    Some((name, value)) => {
                        got.trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()))
                    }
                    None if end == 0 => return true,
                    None => {}
                }
            }
            Framing::UntilClose => {
                got.body.append(raw);
                return false;
            }
        }
    }
}
