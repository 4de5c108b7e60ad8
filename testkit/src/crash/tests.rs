//! The harness catches what it is there to catch.

use super::{Bad, How, MemFiles, Recorder, Tried, Trouble, sweep};
use instar_image::{Drive, Error, FileId, Io, Kind, Place};

const FILE: FileId = FileId(0);
/// A toy of a format: one reference in the first sector leads to a value, and a count of uses beside it.
const REFERENCE: u64 = 0;
const COUNTS: u64 = 512;
const OLD: u64 = 4096;
const NEW: u64 = 8192;
/// Length of the value: two sectors.
const LEN: usize = 1024;

fn at(at: u64) -> Place {
    Place { file: FILE, at }
}

fn toy() -> MemFiles {
    let mut bytes = vec![0; NEW as usize];
    bytes[REFERENCE as usize..][..8].copy_from_slice(&OLD.to_le_bytes());
    bytes[COUNTS as usize] = 1;
    bytes[OLD as usize..][..LEN].fill(b'o');
    MemFiles::of(&bytes)
}

fn number(files: &dyn Io, place: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    files.read(FILE, place, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The value is the old one or the new one, and what is referred to is counted as used.
fn judge(files: &MemFiles, how: &How) -> Result<(), String> {
    let place = number(files, REFERENCE).map_err(|_| "no reference")?;
    let mut value = vec![0; LEN];
    files.read(FILE, place, &mut value).map_err(|_| "the reference leads out of the file")?;
    let of = |byte: u8| value.iter().all(|v| *v == byte);
    if !of(b'n') && (how.is_over() || !of(b'o')) {
        return Err(format!("the value is {:?}…{:?}", value[0] as char, value[LEN - 1] as char));
    }
    let mut counts = [0; 2];
    files.read(FILE, COUNTS, &mut counts).map_err(|_| "no counts")?;
    let index = usize::from(place == NEW);
    if counts[index] == 0 { Err(format!("what is referred to at {place} counts as free")) } else { Ok(()) }
}

fn claim(drive: &dyn Drive) -> Result<(), Error> {
    drive.write(at(COUNTS + 1), &[1])?;
    drive.write(at(NEW), &[b'n'; LEN])
}

fn link(drive: &dyn Drive) -> Result<(), Error> {
    drive.write(at(REFERENCE), &NEW.to_le_bytes())
}

fn release(drive: &dyn Drive) -> Result<(), Error> {
    drive.write(at(COUNTS), &[0])
}

fn flush(drive: &dyn Drive) -> Result<(), Error> {
    drive.flush(FILE)
}

type Step = fn(&dyn Drive) -> Result<(), Error>;

fn change(steps: &[Step]) -> Result<Tried, Bad> {
    sweep(&toy(), |drive| steps.iter().try_for_each(|step| step(drive)), judge)
}

#[test]
fn what_is_right_is_passed() {
    let tried = change(&[claim, flush, link, flush, release, flush]).unwrap();
    // Three sectors and the length; one sector; one sector. Every call fails once, and then always.
    assert_eq!(tried, Tried { states: 16 + 2 + 2, failures: 14, epochs: 3 });
}

#[test]
fn what_is_wrong_is_caught() {
    let torn: Step = |drive| drive.write(at(OLD), &[b'n'; LEN]);
    let silent: Step = |drive| release(drive).or(Ok(()));
    let cut: Step = |drive| drive.set_length(FILE, OLD + 512);
    let zero: Step = |drive| drive.zero(at(OLD), LEN as u64, true);
    let swallow: Step = |drive| claim(drive).or(Ok(()));
    let wrong: &[(&str, &[Step])] = &[
        ("linked before it is claimed", &[link, flush, claim, flush, release, flush]),
        ("released before another is linked", &[claim, flush, release, flush, link, flush]),
        ("no flush before it is linked", &[claim, link, flush, release, flush]),
        ("no flush before it is released", &[claim, flush, link, release, flush]),
        ("no flush at the end", &[claim, flush, link]),
        ("two sectors at once", &[torn, flush]),
        ("cut before another is linked", &[claim, cut, flush, link, flush]),
        ("zeroed before another is linked", &[claim, flush, zero, link, flush]),
        ("a failure that nobody hears of", &[swallow, flush, link, flush, silent, flush]),
        ("nothing is done", &[flush]),
    ];
    for (title, steps) in wrong {
        assert!(change(steps).is_err(), "{title}");
    }
}

#[test]
fn many_sectors_are_sampled_the_same_way() {
    // One sector out of two hundred is linked too early.
    let start = MemFiles::of(&vec![0; 200 << 10]);
    let run = |drive: &dyn Drive| {
        for sector in 1..201 {
            drive.write(at(sector * 512), &[1; 512])?;
        }
        drive.write(at(0), &[1])?;
        drive.flush(FILE)
    };
    let judge = |files: &MemFiles, how: &How| {
        let bytes = files.bytes(FILE);
        let is_whole = bytes[512..201 * 512].iter().all(|byte| *byte == 1);
        let linked = bytes[0] == 1;
        if (linked && !is_whole) || (how.is_over() && !linked) { Err("linked too early".into()) } else { Ok(()) }
    };
    let bad = sweep(&start, run, judge).unwrap_err();
    assert_eq!(bad.how, sweep(&start, run, judge).unwrap_err().how);
    let right = |drive: &dyn Drive| {
        (1..201).try_for_each(|sector| drive.write(at(sector * 512), &[1; 512]))?;
        drive.flush(FILE)?;
        drive.write(at(0), &[1])?;
        drive.flush(FILE)
    };
    let tried = sweep(&start, right, judge).unwrap();
    assert!(tried.states > 1000, "{tried:?}");
}

#[test]
fn files_are_flushed_each_by_itself() {
    let mut start = toy();
    let other = start.add("other", &[0; 512]);
    let run = |drive: &dyn Drive| {
        drive.write(Place { file: other, at: 0 }, &[1])?;
        drive.flush(FILE)?;
        drive.write(at(0), &[1])?;
        drive.flush(FILE)
    };
    let judge = |files: &MemFiles, how: &How| {
        let is_lost = matches!(how, How::Crash(_)) && files.bytes(FILE)[0] == 1 && files.bytes(other)[0] == 0;
        if is_lost { Err("the other file is behind".into()) } else { Ok(()) }
    };
    assert!(sweep(&start, run, judge).is_err());
}

#[test]
fn files_are_kept_as_they_are() {
    const FAR: u64 = 1 << 44;
    let start = MemFiles::of(b"begin");
    let drive = Recorder::new(&start, Trouble::Never);
    drive.write(at(FAR), b"far").unwrap();
    drive.copy(at(FAR), at(10_000), 3, instar_image::file::Zeroes::Written).unwrap();
    drive.zero(at(0), FAR + 1, false).unwrap();
    let (files, ..) = drive.end();
    assert_eq!(files.len(FILE), FAR + 3);
    let mut bytes = [9; 3];
    files.read(FILE, FAR, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0ar");
    files.read(FILE, 10_000, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 3]);
    // What was cut off is not there when the file grows again.
    let mut files = start.clone();
    files.cut(FILE, 2);
    files.grow(FILE, 4);
    assert_eq!(files.bytes(FILE), b"be\0\0");
    assert_eq!(start.bytes(FILE), b"begin");
    assert_eq!(files.read(FILE, 3, &mut bytes).map_err(|e| e.kind), Err(Kind::Io));
}
