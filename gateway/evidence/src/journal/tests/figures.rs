//! Figures on the real disk; `cargo test -p evidence --release figures -- --ignored --nocapture`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::RealDisk;

fn real(dir: &Path) -> Journal {
    let disk: SharedDisk = Arc::new(RealDisk);
    Journal::create(disk, &dir.join("journal"), JournalConfig::new(origin(), clock())).unwrap()
}

fn exchange_frames(n: u32) -> Vec<Frame> {
    let leaf = Bytes::from(vec![b'x'; 900]);
    vec![content(n, 0, 1_200), Frame::Record { leaf, hash: Sha256Hex([7; 32]) }]
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

#[test]
#[ignore = "figures: prints, judges nothing"]
fn figures() {
    let temp = tempfile::tempdir_in(std::env::var("FIGURES_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    // The disk itself: 4 KiB and fdatasync, over zero-filled space.
    let disk = RealDisk;
    let file = crate::disk::Disk::create(&disk, &temp.path().join("probe")).unwrap();
    file.prepare(64 << 20).unwrap();
    let mut plain: Vec<Duration> = (0..1_000)
        .map(|n| {
            let start = Instant::now();
            file.write_at(&[std::io::IoSlice::new(&[1; 4096])], n * 4096).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    plain.sort_unstable();
    say(&format!("disk: 4 KiB + fdatasync p50 {:?} p99 {:?}", at(&plain, 0.5), at(&plain, 0.99)));

    let journal = real(temp.path());
    let mut times: Vec<Duration> = (0..2_000)
        .map(|n| {
            let frames = exchange_frames(n);
            let mut reservation = journal.try_reserve(40_000).unwrap();
            let start = Instant::now();
            journal.submit(&mut reservation, frames).wait().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    say(&format!("one caller: commit p50 {:?} p99 {:?}", at(&times, 0.5), at(&times, 0.99)));

    for callers in [1_u32, 8, 64, 512] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let (groups, start) = (journal.groups(), Instant::now());
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let journal = journal.clone();
                runtime.spawn(async move {
                    let mut times = Vec::new();
                    for n in 0..20_000 / callers.max(8) {
                        let mut reservation = journal.reserve(40_000).await.unwrap();
                        let start = Instant::now();
                        journal.submit(&mut reservation, exchange_frames(caller * 10_000 + n)).await.unwrap();
                        times.push(start.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times: Vec<Duration> =
            tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
        let took = start.elapsed().as_secs_f64();
        times.sort_unstable();
        say(&format!(
            "{callers} callers: {:.0} commits/s, {:.0} groups/s, p50 {:?} p99 {:?}",
            times.len() as f64 / took,
            (journal.groups() - groups) as f64 / took,
            at(&times, 0.5),
            at(&times, 0.99)
        ));
    }
    let start = Instant::now();
    let mut bytes = 0_usize;
    let mut behind = 0;
    for seq in 0..8_000 {
        let mut reservation = journal.reserve_blocking(100_000).unwrap();
        let frame = content(1, seq, 65_000);
        while let Err(error) = journal.submit_unacked(&mut reservation, frame.clone()) {
            assert!(matches!(error, JournalError::Behind { .. }), "{error}");
            behind += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        bytes += 65_000;
    }
    journal.submit_free(vec![record(0)]).wait().unwrap();
    let took = start.elapsed().as_secs_f64();
    say(&format!("streams: {:.0} MB/s of content, waited {behind} times", bytes as f64 / took / 1e6));
    journal.close();
    let start = Instant::now();
    let disk: SharedDisk = Arc::new(RealDisk);
    let mut frames = 0;
    let dir = temp.path().join("journal");
    let recovery = recover::<std::convert::Infallible>(disk, &dir, &mut |_| {
        frames += 1;
        Ok(())
    });
    let recovery = recovery.unwrap().unwrap();
    let size = recovery.segments.bytes();
    let took = start.elapsed().as_secs_f64();
    say(&format!("recovery: {frames} frames, {size} bytes, {:.0} MB/s", size as f64 / took / 1e6));
}
