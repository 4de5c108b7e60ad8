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
        if want.end != got.end || !differs.is_empty() {
            return Err(format!("  ends with {:?}, not {:?}\n{differs}", got.end, want.end));
        }
        if want.code() != Some(0) {
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
