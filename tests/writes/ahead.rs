//! Space that is set aside before it is needed: copies are quicker for it, and nothing else is to be seen of it.

use crate::broken::{failed_well, state};
use crate::formats::{Format, format};
use crate::judge::{accepted, put, quietly, seed};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, Small, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const FORMATS: [&str; 6] = ["qcow2", "vmdk", "vdi", "vhdx", "qed", "parallels"];
const PAGE: u64 = 4096;
const DISK: u64 = 256 << 20;

/// A disk whose second half is nothing: more could come than does.
fn disk(path: &Path) -> Vec<u8> {
    let mut dice = Dice::new(seed());
    let mut bytes = vec![0; 96 << 20];
    bytes[..40 << 20].fill_with(|| dice.below(256) as u8);
    put(path, &bytes);
    bytes
}

/// The copy of `source` into `out`.
fn copy(cell: Cell, format: &Format, source: &Path, place: &Path) -> Run {
    let run = program().quirky(&maker().version, cell).folder(place);
    run.args(["convert", "-f", "raw", "-O", format.name]).arg(source).arg("out")
}

/// Does the same where no space can be set aside; answers how often that was tried.
fn refused(run: Run, log: &Path) -> usize {
    let run = run.through(["-e", "trace=fallocate", "-e", "inject=fallocate:error=ENOSPC", "--"]).through([log]);
    quietly(&run.through(["strace", "-f", "-qq", "-o"])).expect("a copy");
    let log = fs::read_to_string(log).expect("what was traced");
    log.lines().filter(|line| line.contains(", FALLOC_FL_KEEP_SIZE, ")).count()
}

#[test]
fn what_is_set_aside_and_not_needed_goes_back() {
    let scratch = Scratch::new("writes-ahead");
    let source = scratch.path().join("in.raw");
    let bytes = disk(&source);
    let traces = Run::new("sh").args(["-c", "strace -qq true"]).go().end == End::Code(0);
    each(&FORMATS, |number, name| {
        let (format, turn) = (format(name), number as u64);
        let places = (
            Small::ext4(scratch.path().join(format!("ext{number}")), DISK),
            Small::mount(scratch.path().join(format!("small{number}")), "128m"),
        );
        let (Some(ext), Some(memory)) = places else {
            return skipped("space set aside: this user cannot mount a file system");
        };
        for cell in Cell::all() {
            let run = copy(*cell, format, &source, ext.path());
            quietly(&run).expect("a copy");
            let about = fs::metadata(ext.path().join("out")).expect("the copy");
            // What tells where a file has its blocks takes some as well.
            let spare = (about.blocks() * 512).saturating_sub(about.len().next_multiple_of(PAGE));
            assert!(spare <= 4 * PAGE, "{name}: {spare} bytes more than are needed");
            if !traces {
                skipped("space that cannot be set aside: strace is not here or may not trace");
                continue;
            }
            // What cannot be had ahead may be there when it is needed.
            let log = scratch.path().join(format!("log{number}"));
            assert!(refused(run, &log) > 0, "{name}");
            accepted(ext.path(), format, "out", &bytes, turn).expect("what was copied");
            // Where looking for space takes no time, nobody does it ahead.
            assert_eq!(refused(copy(*cell, format, &source, memory.path()), &log), 0, "{name}");
        }
    });
}

#[test]
fn a_disk_that_is_nearly_full_takes_what_it_has_room_for() {
    let scratch = Scratch::new("writes-ahead-full");
    let source = scratch.path().join("in.raw");
    let bytes = disk(&source);
    each(&FORMATS, |number, name| {
        let (format, turn) = (format(name), number as u64);
        let Some(ext) = Small::ext4(scratch.path().join(format!("ext{number}")), DISK) else {
            return skipped("nearly full disks: this user cannot mount a file system");
        };
        let (place, empty) = (ext.path(), ext.used());
        for cell in Cell::all() {
            quietly(&copy(*cell, format, &source, place)).expect("a copy");
            let need = ext.used() - empty;
            fs::remove_file(place.join("out")).expect("the copy");
            for (room, fits) in [(need + 32 * PAGE, true), (need - 64 * PAGE, false), (need / 2, false)] {
                let len = ext.room() - room;
                let fill = fs::File::create(place.join("fill")).expect("a file");
                rustix::fs::fallocate(&fill, rustix::fs::FallocateFlags::empty(), 0, len).expect("filling");
                drop(fill);
                let (before, used) = (state(place), ext.used());
                let ran = copy(*cell, format, &source, place).go();
                if fits {
                    assert_eq!((ran.end, ran.err().as_str()), (End::Code(0), ""), "{name}");
                } else {
                    assert!(ran.err().contains("No space left on device"), "{name}: {}", ran.err());
                    failed_well(&ran, &before, &state(place)).expect("nothing but words");
                    assert_eq!(ext.used(), used, "{name}");
                }
                fs::remove_file(place.join("fill")).expect("the file that fills");
                if fits {
                    accepted(place, format, "out", &bytes, turn).expect("what was copied");
                    ["out", "read.raw"].iter().for_each(|name| fs::remove_file(place.join(name)).expect("a file"));
                }
            }
        }
    });
}

#[test]
fn what_is_not_filled_has_no_space_set_aside() {
    let scratch = Scratch::new("writes-ahead-gaps");
    let Some(ext) = Small::ext4(scratch.path().join("ext"), DISK) else {
        return skipped("space that is not filled: this user cannot mount a file system");
    };
    let source = scratch.path().join("in.raw");
    let mut bytes = vec![0; 64 << 20];
    bytes.chunks_mut(16 * PAGE as usize).for_each(|cluster| cluster[..PAGE as usize].fill(7));
    put(&source, &bytes);
    for cell in Cell::all() {
        quietly(&copy(*cell, format("qcow2"), &source, ext.path())).expect("a copy");
        let about = fs::metadata(ext.path().join("out")).expect("the copy");
        assert!(about.len() > 64 << 20 && about.blocks() * 512 < 5 << 20, "{} blocks", about.blocks());
    }
    accepted(ext.path(), format("qcow2"), "out", &bytes, 0).expect("what was copied");
}
