//! Copies to devices: all that was there is garbage, and none of it may show.

use crate::judge::{cell, content, put, seed};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::program;
use instar_testkit::random::Dice;
use instar_testkit::run::{Ran, Run};
use instar_tests::report::{Report, difference};
use std::path::Path;

/// A loop device, for as long as it is held.
pub struct Loop(pub String);

impl Loop {
    /// Of a file; none where there are none.
    pub fn of(path: &Path) -> Option<Loop> {
        let ran = Run::new("losetup").args(["-f", "--show", "-P"]).arg(path).go();
        (ran.code() == Some(0)).then(|| Loop(ran.out().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Run::new("losetup").args(["-d", &self.0]).go();
    }
}

/// Length of what is copied.
const LEN: u64 = 6 << 20;
/// What is asked for besides the format; `-n`: an image is there already.
const WAYS: &[&[&str]] = &[
    &["-O", "raw"],
    &["-O", "raw", "-n"],
    &["-O", "raw", "-S", "0"],
    &["-O", "raw", "-o", "preallocation=full"],
    &["-O", "qcow2"],
    &["-O", "qcow2", "-n"],
    &["-O", "qcow2", "-n", "-c"],
    &["-O", "qcow2", "-c"],
    &["-O", "qcow2", "-S", "0"],
    &["-O", "qcow2", "-o", "cluster_size=512"],
    &["-O", "qcow2", "-o", "cluster_size=2M"],
    &["-O", "qcow2", "-o", "extended_l2=on"],
    &["-O", "qcow2", "-o", "compat=0.10"],
    &["-O", "qcow2", "-o", "preallocation=metadata"],
    &["-O", "qcow2", "-o", "preallocation=metadata,compat=0.10"],
    &["-O", "qcow2", "-o", "preallocation=falloc"],
    &["-O", "qcow2", "-o", "preallocation=full"],
];
/// Lengths of devices: more than enough, exactly enough for the bytes alone, and too little.
const DEVICES: &[u64] = &[16 << 20, LEN, 4 << 20, 1 << 20, 65536];

struct Case {
    way: &'static [&'static str],
    device: u64,
    seed: u64,
}

impl Case {
    fn format(&self) -> &'static str {
        self.way[1]
    }

    /// Copies to a new device full of garbage; what was said, with the name of the device left out, and what there is.
    fn copy(&self, run: Run, folder: &Path, name: &str) -> Result<(Ran, String, Loop), String> {
        let file = folder.join(name);
        std::fs::write(&file, vec![0xee; self.device as usize]).expect("a file");
        let device = Loop::of(&file).ok_or("  no loop device")?;
        if self.way.contains(&"-n") && self.format() == "qcow2" {
            let create = ["create", "-q", "-f", "qcow2", &device.0, "6M"];
            maker().img().args(create).go();
            // Some of it is in use.
            let some = ["-f", "qcow2", "-c", "write -P 5 1M 300k", "-c", "write -P 6 5M 1M", &device.0];
            maker().io().args(some).go();
        }
        let line = run.folder(folder).args(["convert", "-f", "raw"]).args(self.way).args(["in.raw", &device.0]);
        let ran = line.go();
        let said = ran.err().replace(&device.0, "DEVICE");
        Ok((ran, said, device))
    }

    fn judge(&self, folder: &Path) -> Result<(), String> {
        let mut dice = Dice::new(self.seed);
        let disk = if self.seed.is_multiple_of(2) {
            content(&mut dice, LEN)
        } else {
            // This does not fit where there is no space for all of it.
            (0..LEN).map(|_| dice.below(256) as u8).collect()
        };
        put(&folder.join("in.raw"), &disk);
        let (want, wanted, theirs) = self.copy(maker().img().called("qemu-img"), folder, "theirs")?;
        let (got, said, ours) = self.copy(program().quirky(&maker().version, cell(self.seed)), folder, "ours")?;
        // Which part of an image has no room, and where, is for each to find out.
        let is_short = self.device <= LEN && self.format() == "qcow2";
        let shortened = |text: &str| match text.find(" at byte ").or(text.find("converting qcow2: ")) {
            Some(at) if is_short => text[..at].to_owned(),
            _ => text.to_owned(),
        };
        let differs = difference("stderr", shortened(&wanted).as_bytes(), shortened(&said).as_bytes());
        // The real program cannot pack what has its space already.
        let packs_more = ["-n", "-c"].iter().all(|word| self.way.contains(word))
            && wanted.contains("Input/output error")
            && got.code() == Some(0);
        if !packs_more && (want.end != got.end || !differs.is_empty()) {
            return Err(format!("  ends with {:?}, not {:?}\n{differs}", got.end, want.end));
        }
        if got.code() != Some(0) {
            return Ok(());
        }
        drop(theirs);
        let words = ["convert", "-f", self.format(), "-O", "raw", &ours.0, "read.raw"];
        maker().img().folder(folder).args(words).must();
        let bytes = std::fs::read(folder.join("read.raw")).map_err(|e| e.to_string())?;
        if let Some(at) = disk.iter().zip(&bytes).position(|(want, got)| want != got) {
            return Err(format!("  the content differs at {at}: {:x} is there", bytes[at]));
        }
        if self.format() == "raw" {
            return match bytes.get(disk.len()..) {
                Some(rest) if rest.iter().all(|byte| *byte == 0xee) => Ok(()),
                _ => Err("  the rest of the device is not as it was".into()),
            };
        }
        let checked = maker().img().args(["check", "-f", "qcow2", &ours.0]).go();
        let is_fine = checked.code() == Some(0) && bytes.len() == disk.len();
        if is_fine { Ok(()) } else { Err(format!("  {} bytes; {}{}", bytes.len(), checked.out(), checked.err())) }
    }
}

#[test]
fn devices_hold_what_is_copied_and_nothing_else() {
    let scratch = Scratch::new("devices");
    scratch.put("probe", [0; 4096]);
    if Loop::of(&scratch.path().join("probe")).is_none() {
        return skipped("copies to devices: no loop device can be had");
    }
    let report = Report::new("writes devices");
    let mut cases = Vec::new();
    for way in WAYS {
        for device in DEVICES {
            cases.extend((0..2).map(|n| Case { way, device: *device, seed: seed() + n }));
        }
    }
    each(&cases, |number, case| {
        let folder = scratch.folder(&format!("case{number}"));
        report.tried();
        if let Err(why) = case.judge(&folder) {
            report.fault(format!("{} to {} bytes, seed {}\n{why}", case.way.join(" "), case.device, case.seed));
        }
        let _ = std::fs::remove_dir_all(folder);
    });
    report.end();
}

/// Changes one after the other; the disk is only ever cut behind what is looked at.
const CHANGES: &[&str] = &[
    "resize -f qcow2 DEVICE 40M",
    "snapshot -c first DEVICE",
    "resize -f qcow2 --shrink DEVICE 12M",
    "bitmap -f qcow2 --add DEVICE b",
    "snapshot -c second DEVICE",
    "snapshot -d first DEVICE",
    "bitmap -f qcow2 --remove DEVICE b",
    "amend -f qcow2 -o refcount_bits=64 DEVICE",
    "amend -f qcow2 -o compat=0.10,refcount_bits=16 DEVICE",
    "snapshot -a second DEVICE",
    "rebase -u -f qcow2 -b BELOW -F raw DEVICE",
    "rebase -u -f qcow2 -b  DEVICE",
    "check -f qcow2 -r all DEVICE",
    "snapshot -d second DEVICE",
    "resize -f qcow2 --shrink DEVICE 10M",
];

/// No room, and what follows when something had none before.
const EXPECTED: &[&str] = &["No space left on device", "snapshot", "bitmap"];

/// The image on a device of that length goes through all changes, of which some may find no room.
/// Answers how many did not.
fn changed(folder: &Path, len: u64, seed: u64) -> Result<usize, String> {
    let mut failed = 0;
    let name = format!("changed-{len}");
    std::fs::write(folder.join(&name), vec![0xee; len as usize]).expect("a file");
    let (device, below) = (Loop::of(&folder.join(&name)).ok_or("  no loop device")?, folder.join("below.raw"));
    std::fs::write(&below, [0; 4096]).expect("a file");
    maker().img().args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", &device.0, "16M"]).must();
    maker().io().args(["-f", "qcow2", "-c", "write -P 5 0 512k", "-c", "write -P 6 9M 64k", &device.0]).must();
    for line in CHANGES {
        let words = line.split(' ').map(|word| match word {
            "DEVICE" => device.0.clone(),
            "BELOW" => below.display().to_string(),
            _ => word.to_owned(),
        });
        let ran = program().native(cell(seed)).folder(folder).args(words).go();
        failed += usize::from(ran.err().contains(EXPECTED[0]));
        if ran.code() != Some(0) && !EXPECTED.iter().any(|words| ran.err().contains(words)) {
            return Err(format!("  {line}: {:?} {}", ran.end, ran.err()));
        }
        let checked = maker().img().args(["check", "-f", "qcow2", &device.0]).go();
        // Leaks are no fault where something had no room.
        if !matches!(checked.code(), Some(0 | 3)) {
            return Err(format!("  {line}: {}{}", checked.out(), checked.err()));
        }
        let reads = ["-r", "-f", "qcow2", "-c", "read -P 5 0 512k", "-c", "read -P 6 9M 64k", &device.0];
        let read = maker().io().args(reads).go();
        if read.out().contains("failed") || read.code() != Some(0) {
            return Err(format!("  {line}: {}{}", read.out(), read.err()));
        }
    }
    Ok(failed)
}

#[test]
fn what_stands_on_a_device_is_changed_there() {
    let scratch = Scratch::new("devices-changed");
    scratch.put("probe", [0; 4096]);
    if Loop::of(&scratch.path().join("probe")).is_none() {
        return skipped("changes on devices: no loop device can be had");
    }
    let report = Report::new("changes on devices");
    // From plenty of room down to less than one change needs.
    let lens = [8 << 20, 700 << 10, 660 << 10, 644 << 10, 636 << 10, 632 << 10, 628 << 10];
    let mut failed = Vec::new();
    for (number, len) in lens.into_iter().enumerate() {
        report.tried();
        match changed(scratch.path(), len, seed() + number as u64) {
            Ok(count) => failed.push(count),
            Err(fault) => report.fault(format!("{len} bytes\n{fault}")),
        }
    }
    report.end();
    assert!(failed[0] == 0 && failed.iter().any(|count| *count > 0), "{failed:?}");
}
