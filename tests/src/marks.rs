//! The watermarks of a running gateway, read from its metrics while it works (DU-1).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Journaled, sealed, shipped, archived: in this order none is behind the next.
const MARKS: [&str; 4] = ["journaled", "sealed", "shipped", "archived"];

/// One reading of the four.
pub type Reading = [u64; 4];

/// Reads the watermarks of one life of a gateway over and over.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Vec<Reading>>,
}

impl Watch {
    /// Begins to read at an admin address.
    pub fn start(admin: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let reader = std::thread::spawn(move || {
            let mut readings = Vec::new();
            while !told.load(Ordering::Relaxed) {
                readings.extend(read(admin));
                std::thread::sleep(Duration::from_millis(5));
            }
            readings
        });
        Self { stop, reader }
    }

    /// Ends, and gives what was read, in order.
    ///
    /// # Panics
    /// Where a mark fell, or was ahead of the one that it follows.
    pub fn end(self) -> Vec<Reading> {
        self.stop.store(true, Ordering::Relaxed);
        let readings = self.reader.join().expect("a reader of metrics");
        for (n, reading) in readings.iter().enumerate() {
            assert!(reading.is_sorted_by(|before, after| before >= after), "{MARKS:?}: {reading:?}");
            let before = readings[n.saturating_sub(1)];
            assert!(
                before.iter().zip(reading).all(|(b, a)| b <= a),
                "{MARKS:?}: {before:?}, then {reading:?}"
            );
        }
        readings
    }
}

/// The four marks; `None` where the gateway does not answer, or does not know them yet.
pub fn read(admin: SocketAddr) -> Option<Reading> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    // Cut by the gateway's death: nothing was said.
    text.contains("# EOF").then_some(())?;
    let mark = |name: &str| {
        let line = format!("gateway_records{{mark=\"{name}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok())
    };
    let mut reading = [0; 4];
    for (at, name) in reading.iter_mut().zip(MARKS) {
        *at = mark(name)?;
    }
    Some(reading)
}
