//! Files that share what they hold: on a file system that can do that, copies take no space.

use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, Small, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use std::fs;
use std::path::Path;

/// Bytes of the disk that are not zeroes, about; as many others are.
const DATA: u64 = 32 << 20;
/// So much of what is copied may be laid down once more: tables, ends, and what does not lie where blocks do.
const SLACK: u64 = 4 << 20;

/// Lines that copy, the file that they write to, and its format.
const LINES: &[(&str, &str, &str)] = &[
    ("convert -f raw -O raw plain new", "new", "raw"),
    ("convert -f raw -O qcow2 plain new", "new", "qcow2"),
    ("convert -f raw -O qcow2 -o cluster_size=4k plain new", "new", "qcow2"),
    ("convert -f raw -O qcow2 -o data_file=more plain new", "new", "qcow2"),
    ("convert -f qcow2 -O qcow2 top new", "new", "qcow2"),
    ("convert -f qcow2 -O raw top new", "new", "raw"),
    ("convert -f raw -O vhdx plain new", "new", "vhdx"),
    ("convert -f raw -O vmdk plain new", "new", "vmdk"),
    ("convert -n -f raw -O qcow2 plain below", "below", "qcow2"),
    ("commit -d top", "below", "qcow2"),
    ("rebase -b  top", "top", "qcow2"),
];

/// A disk with data of odd places and lengths, zeroes among them, and the same as an image on an empty one.
fn make(folder: &Path) {
    let mut dice = Dice::new(5);
    let mut bytes = vec![0; 2 * DATA as usize];
    let mut at = 0;
    while at < bytes.len() {
        let len = (dice.below(3 << 20) as usize + 1).min(bytes.len() - at);
        if dice.below(2) == 0 {
            bytes[at..at + len].iter_mut().for_each(|byte| *byte = dice.below(255) as u8 + 1);
        }
        at += len;
    }
    fs::write(folder.join("plain"), &bytes).expect("a disk");
    let img = |line: &str| maker().img().folder(folder).args(line.split(' ')).must();
    img("create -q -f qcow2 below 64M");
    img("convert -f raw -O qcow2 plain top");
    img("rebase -u -b below -F qcow2 top");
    fs::File::open(folder.join("top")).and_then(|file| file.sync_all()).expect("a disk");
}

#[test]
fn copies_take_no_space_where_files_can_share_it() {
    let scratch = Scratch::new("shared");
    for (number, (line, target, format)) in LINES.iter().enumerate() {
        let Some(place) = Small::sharing(scratch.path().join(format!("xfs{number}"))) else {
            return skipped("files that share what they hold: no XFS can be made and mounted here");
        };
        make(place.path());
        let before = place.used();
        let cell = Cell::all()[number % Cell::all().len()];
        program().qemu("10.0.2", cell).folder(place.path()).args(line.split(' ')).must();
        let more = place.used().saturating_sub(before);
        assert!(more < SLACK, "{line}: {more} bytes more are in use");
        let img = |words: &[&str]| maker().img().folder(place.path()).args(words).must();
        img(&["compare", "-f", "raw", "-F", format, "plain", target]);
        if *format != "raw" {
            img(&["check", "-q", "-f", format, target]);
        }
    }
}
