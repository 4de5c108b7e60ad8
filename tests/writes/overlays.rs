//! Copies that stand on another image: what is the same there is left out, and nothing else.

use crate::formats::{FORMATS, Format};
use crate::judge::{content, count, ours, put, quietly, read, same, seed, sound};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_tests::report::Report;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What of a disk an overlay of the default cluster size keeps by itself.
const UNIT: usize = 64 << 10;

/// Disks of which one is much like the other.
fn alike(dice: &mut Dice) -> (Vec<u8>, Vec<u8>) {
    let len = (1 << 20) + dice.below(6 << 11) * 512;
    let base = content(dice, len);
    let other = content(dice, len);
    let mut disk = base.clone();
    for _ in 0..dice.below(5) {
        let at = (dice.below(len) / 512 * 512) as usize;
        let end = (at + ((1 + dice.below(600)) * 512) as usize).min(disk.len());
        match dice.below(3) {
            0 => disk[at..end].fill(0),
            _ => disk[at..end].copy_from_slice(&other[at..end]),
        }
    }
    (base, disk)
}

/// Puts a disk into an image of which the files in the folder tell; answers what names it.
fn source(folder: &Path, dice: &mut Dice, base: &[u8], disk: &[u8]) -> Vec<String> {
    put(&folder.join("in.raw"), disk);
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    if dice.once_in(2) {
        return words("-f raw in.raw");
    }
    // What others left out of an overlay is not in the source itself.
    let backing = if base.len() == disk.len() { "base" } else { "in.raw" };
    let format = if backing == "base" { "qcow2" } else { "raw" };
    let make = ["create", "-q", "-f", "qcow2", "-b", backing, "-F", format, "in.qcow2"];
    maker().img().folder(folder).args(make).must();
    let mut run = maker().io().folder(folder).args(["-f", "qcow2", "-c", "map"]);
    let differs = |(number, (new, old)): (usize, (&[u8], &[u8]))| (new != old).then_some(number);
    for number in disk.chunks(UNIT).zip(base.chunks(UNIT)).enumerate().filter_map(differs) {
        let (at, end) = (number * UNIT, disk.len().min((number + 1) * UNIT));
        put(&folder.join(format!("piece{number}")), &disk[at..end]);
        run = run.args(["-c", &format!("write -s piece{number} {at} {}", end - at)]);
    }
    run.arg("in.qcow2").must();
    words("-f qcow2 in.qcow2")
}

fn judge(folder: &Path, format: &Format, seed: u64) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let (base, mut disk) = alike(&mut dice);
    // The one may be longer than the other.
    if format.name == "qcow2" && dice.once_in(3) {
        let len = (dice.below(disk.len() as u64 * 2) / 512 * 512) as usize;
        disk.resize(len.max(UNIT), 0);
    }
    put(&folder.join("base.raw"), &base);
    let below = if format.name == "vmdk" { "vmdk" } else { "qcow2" };
    maker().img().folder(folder).args(["convert", "-f", "raw", "-O", below, "base.raw", "base"]).must();
    let source = if below == "vmdk" {
        put(&folder.join("in.raw"), &disk);
        vec!["-f".to_owned(), "raw".to_owned(), "in.raw".to_owned()]
    } else {
        source(folder, &mut dice, &base, &disk)
    };
    // The real program fails to pack such overlays of qcow.
    let packs = format.name == "qcow2" && dice.once_in(3);
    let lanes = (1 + dice.below(6)).to_string();
    let arguments = |made: &str, lanes: &str| {
        let mut words: Vec<String> = ["convert", "-m", lanes, "-O", format.name].map(str::to_owned).to_vec();
        words.extend(packs.then(|| "-c".to_owned()));
        words.extend(["-B", "base", "-F", below].map(str::to_owned));
        words.extend(source.iter().cloned());
        words.push(made.to_owned());
        words
    };
    quietly(&ours(seed).folder(folder).args(arguments("ours", &lanes)))?;
    quietly(&maker().img().folder(folder).args(arguments("theirs", "4")))?;
    let limit = disk.len() as u64 + (4 << 20);
    let words = format.words("ours");
    same(&disk, &read(maker().img(), folder, &words, limit)?)?;
    sound(maker(), folder, format, &words)?;
    let len = |name: &str| {
        let facts = std::fs::metadata(folder.join(name)).expect("a file");
        // Where something is hidden, a file has a hole.
        if format.name == "qed" { facts.blocks() * 512 } else { facts.len() }
    };
    if len("ours") > len("theirs") && !packs {
        return Err(format!("  {} bytes, and the other has {}", len("ours"), len("theirs")));
    }
    if format.name == "qcow2" { only_what_differs(folder, &base, &disk) } else { Ok(()) }
}

/// Whether every unit that the overlay has differs from what lies below it.
fn only_what_differs(folder: &Path, base: &[u8], disk: &[u8]) -> Result<(), String> {
    let map = maker().img().folder(folder).args(["map", "--output=json", "-f", "qcow2", "ours"]).must();
    let map: serde_json::Value = serde_json::from_slice(&map.stdout).map_err(|e| e.to_string())?;
    let number = |run: &serde_json::Value, key: &str| run[key].as_u64().unwrap_or(u64::MAX) as usize;
    for run in map.as_array().into_iter().flatten().filter(|run| run["depth"] == 0 && run["present"] == true) {
        let (start, end) = (number(run, "start"), number(run, "start") + number(run, "length"));
        for at in (start / UNIT * UNIT..end).step_by(UNIT) {
            let unit = &disk[at..disk.len().min(at + UNIT)];
            let rest = base.len().clamp(at, at + unit.len());
            let (inside, beyond) = unit.split_at(rest - at);
            if *inside == base[at.min(base.len())..rest] && beyond.iter().all(|byte| *byte == 0) {
                return Err(format!("  what is at {at} is there below as well"));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_the_same_below_is_left_out() {
    let scratch = Scratch::new("overlays");
    let report = Report::new("writes overlays");
    let mut cases: Vec<(&'static Format, u64)> = Vec::new();
    for number in 0..count(60) {
        let name = Dice::new(seed() + number).one(&["qcow2", "qcow2", "qcow2", "qcow2", "qed", "vmdk", "qcow"]);
        cases.push((FORMATS.iter().find(|format| format.name == name).expect("a format"), seed() + number));
    }
    each(&cases, |number, (format, seed)| {
        let folder = scratch.folder(&format!("case{number}"));
        report.tried();
        if let Err(why) = judge(&folder, format, *seed) {
            report.fault(format!("{}, seed {seed}\n{why}", format.name));
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&folder);
        }
    });
    report.end();
}
