//! Loss of power at every point, and what each sync is for.

use super::*;
use crate::disk::{Call, Crash, Fault};

/// What the caller was told is durable.
#[derive(Default, Clone)]
struct Told {
    journal: bool,
    records: Vec<(u64, Frame)>,
    content: Vec<ContentFrame>,
}

impl Told {
    /// The same, while nothing was on its way: then nothing can be torn either.
    fn check_idle(&self, disk: &SimDisk) -> Result<(), String> {
        self.check(disk)?;
        match recovered_or_error(disk)? {
            Some((recovery, _)) if recovery.tail != Tail::Clean => Err(format!("{:?}", recovery.tail)),
            _ => Ok(()),
        }
    }

    /// Says what of it is not there.
    fn check(&self, disk: &SimDisk) -> Result<(), String> {
        let Some((recovery, frames)) = recovered_or_error(disk)? else {
            return if self.journal { Err("the journal is gone".into()) } else { Ok(()) };
        };
        if !recovery.losses.is_empty() {
            return Err(format!("{:?}", recovery.losses));
        }
        for record in &self.records {
            if !frames.contains(record) {
                return Err(format!("{record:?} was acknowledged and is gone"));
            }
        }
        for frame in &self.content {
            let mut found = recovery.segments.content(&frame.exchange, frame.part);
            if !found.any(|found| found.is_ok_and(|found| found == *frame)) {
                return Err(format!("{:?}/{} was acknowledged and is gone", frame.exchange, frame.seq));
            }
        }
        Ok(())
    }
}

type Found = (Recovery, Vec<(u64, Frame)>);

fn recovered_or_error(disk: &SimDisk) -> Result<Option<Found>, String> {
    let disk: SharedDisk = shared(disk);
    if disk.entry(dir()).map_err(|error| error.to_string())?.is_none() {
        return Ok(None);
    }
    let mut frames = Vec::new();
    let recovery = recover::<std::convert::Infallible>(disk, dir(), &mut |found| {
        frames.push((found.position, found.frame.clone()));
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    Ok(recovery.map(|recovery| (recovery, frames)))
}

/// Groups over three segments, made as they are needed or all `ahead`, and spill files; `see` is called whenever somebody
/// was told something.
fn scenario(
    disk: &SimDisk,
    ahead: bool,
    told: &mut Told,
    see: &mut dyn FnMut(&SimDisk, &Told),
) -> Result<(), JournalError> {
    let journal = Journal::create(shared(disk), dir(), small_config())?;
    told.journal = true;
    see(disk, told);
    if ahead {
        drop(journal.reserve_blocking(4 * 45_000)?);
        see(disk, told);
    }
    for n in 0.. {
        if journal.segments().bytes() == 3 * (64 << 10) {
            break;
        }
        let mut reservation = journal.reserve_blocking(40_000)?;
        let mut frames = Vec::new();
        let mut promised = Vec::new();
        if n % 6 == 4 {
            let mut spill = SpillWriter::create(&journal, &exchange(n), PartName::ProviderResponse, 0)?;
            for seq in 0..3 {
                spill.write(content_frame(n, seq, 6_000))?;
                promised.push(content_frame(n, seq, 6_000));
            }
            frames.push(Frame::Spill(spill.finish()?));
        } else {
            journal.submit_unacked(&mut reservation, content(n, 0, 3_000))?;
            frames.push(content(n, 1, 7_000));
            promised.extend([content_frame(n, 0, 3_000), content_frame(n, 1, 7_000)]);
        }
        frames.push(record(n));
        let synced = journal.submit(&mut reservation, frames).wait()?;
        told.records.push((synced.positions.start, record(n)));
        told.content.extend(promised);
        see(disk, told);
    }
    journal.close();
    Ok(())
}

const CRASHES: [Crash; 5] = [
    Crash::DropAll,
    Crash::KeepAll,
    Crash::Random { seed: 1, sector: 512 },
    Crash::Random { seed: 2, sector: 4096 },
    Crash::Random { seed: 3, sector: 512 },
];

#[test]
fn what_was_acknowledged_survives_a_loss_of_power_at_every_change() {
    let mut points = 0;
    for n in 0.. {
        let disk = SimDisk::new();
        disk.fault_at_change(n / 2, Fault::PowerOff);
        let mut told = Told::default();
        let done = scenario(&disk, n % 2 == 0, &mut told, &mut |_, _| ()).is_ok();
        for crash in CRASHES {
            let disk = disk.fork();
            disk.crash(crash);
            told.check(&disk)
                .unwrap_or_else(|error| panic!("power lost at change {}, {crash:?}: {error}", n / 2));
        }
        if disk.hits() == 0 {
            assert!(done);
            break;
        }
        points = n;
    }
    assert!(points > 100, "{points} points");
}

#[test]
fn without_any_one_sync_something_acknowledged_is_lost() {
    let mut sites = std::collections::BTreeSet::new();
    for ahead in [false, true] {
        let disk = SimDisk::new();
        scenario(&disk, ahead, &mut Told::default(), &mut |disk, told| {
            for crash in CRASHES {
                let disk = disk.fork();
                disk.crash(crash);
                assert_eq!(told.check_idle(&disk), Ok(()), "with all syncs it holds");
            }
        })
        .unwrap();
        sites.extend(disk.sites());
    }
    let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    for name in [
        ": +journals",
        "/journals: +epoch",
        "/journals/epoch/segment-#.journal, first",
        "/journals/epoch: +segment-#.journal",
        "/journals/epoch/segment-#.journal",
        "/journals/epoch/#-#-#-#-#-#-#.spill, first",
        "/journals/epoch: +#-#-#-#-#-#-#.spill",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert_eq!(names.len(), 7, "{names:?}");
    for site in sites {
        let mut broken = 0;
        for ahead in [false, true] {
            let disk = SimDisk::new();
            disk.ignore(Some(site.clone()));
            scenario(&disk, ahead, &mut Told::default(), &mut |disk, told| {
                let disk = disk.fork();
                disk.crash(Crash::DropAll);
                broken += u32::from(told.check_idle(&disk).is_err());
            })
            .unwrap();
        }
        assert!(broken > 0, "{site:?} could be left out and nobody would notice");
    }
}

#[test]
fn a_torn_group_keeps_what_is_whole_at_its_beginning() {
    let mut torn = 0;
    for seed in 0..60 {
        let disk = SimDisk::new();
        let journal = Journal::create(shared(&disk), dir(), small_config()).unwrap();
        put(&journal, vec![record(0)]).wait().unwrap();
        let mut reservation = journal.reserve_blocking(40_000).unwrap();
        disk.fault_at(Call::SyncData, 0, Fault::PowerOff);
        let frames: Vec<Frame> = (0..6).flat_map(|n| [content(n, 0, 1_000), record(n + 1)]).collect();
        assert!(journal.submit(&mut reservation, frames.clone()).wait().is_err());
        disk.crash(Crash::Random { seed, sector: if seed % 2 == 0 { 512 } else { 4096 } });
        let (recovery, found) = recovered(&disk).unwrap();
        assert!(recovery.losses.is_empty());
        assert_eq!(found[0], (0, record(0)));
        assert!(
            found[1..].iter().map(|(_, frame)| frame).eq(frames[..found.len() - 1].iter()),
            "seed {seed}"
        );
        let cut = matches!(recovery.tail, Tail::Torn { .. });
        assert!(cut || found.len() == 13 || found.len() == 1, "seed {seed}: cut silently");
        torn += usize::from(cut && found.len() > 1);
    }
    assert!(torn > 3, "some were torn in the middle: {torn}");
}
