//! How much memory large disks take.
//!
//! In a program of its own: what a program holds counts as memory of those that it starts, until they are under way.
#![allow(missing_docs)]

mod changes;

use instar_testkit::build::fragmented::Fragmented;
use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, Small, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Run};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

const MIB_IN_KIB: u64 = 1 << 10;
/// What telling of a large disk may take.
const TOLD_KIB: u64 = 200 * MIB_IN_KIB;
/// What copying may take.
const COPIED_KIB: u64 = 300 * MIB_IN_KIB;

fn bounded(run: &Run, most_kib: u64) {
    let ran = run.clone().measured().go();
    assert_eq!(ran.end, End::Code(0), "{}\n{}", run.line(), ran.err());
    assert!(ran.peak_kib() < most_kib, "{} KiB: {}", ran.peak_kib(), run.line());
}

/// A disk of 64 TiB in a folder, which is told with what holds it; nothing if there is no place for one.
fn fragmented(scratch: &Scratch) -> Option<(PathBuf, Option<Small>)> {
    let disk = Fragmented { cluster_bits: 21, clusters: 1 << 25, spread: 1 << 25 };
    assert_eq!(disk.size(), 64 << 40);
    let mut folder = scratch.path().to_owned();
    let mut memory = None;
    // Not every file system has files this long; one in memory has.
    if disk.write(&folder.join("disk.qcow2")).is_err() {
        folder.push("memory");
        memory = Small::mount(folder.clone(), "1g");
        if memory.is_none() {
            skipped("a disk of 64 TiB: no file may be that long here, and this user cannot mount another place");
            return None;
        }
        disk.write(&folder.join("disk.qcow2")).expect("a disk of tables");
    }
    Some((folder, memory))
}

#[test]
fn a_fragmented_disk_of_64_tib_is_told_of_in_little_memory() {
    let scratch = Scratch::new("fragmented");
    let Some((folder, _memory)) = fragmented(&scratch) else { return };
    for cell in Cell::all() {
        let ask = |words: &[&str]| {
            let run = program().native(*cell).folder(&folder).args(words).arg("disk.qcow2");
            // Gigabytes of lines are not kept here.
            run.in_shell(r#"exec "$@" >/dev/null"#).limit(Duration::from_secs(300))
        };
        bounded(&ask(&["map", "--output=json"]), TOLD_KIB);
        bounded(&ask(&["measure", "-O", "qcow2", "--output=json"]), TOLD_KIB);
    }
}

#[test]
fn a_fragmented_disk_of_64_tib_is_repaired_in_little_memory() {
    let scratch = Scratch::new("repaired");
    let Some((folder, _memory)) = fragmented(&scratch) else { return };
    let file = File::options().read(true).write(true).open(folder.join("disk.qcow2")).expect("a disk");
    let word = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("a word");
        u64::from_be_bytes(bytes)
    };
    for cell in Cell::all() {
        let repair = |extent: &str| {
            let run = program().native(*cell).folder(&folder).args(["check", "-q", "-r", extent, "disk.qcow2"]);
            bounded(&run.in_shell(r#"exec "$@" 2>/dev/null"#).limit(Duration::from_secs(300)), COPIED_KIB);
        };
        // A count that is too high, and then none for thousands of clusters.
        let counts = word(48);
        file.write_all_at(&[0, 9], word(counts + 8) + 64).expect("a count");
        repair("leaks");
        file.write_all_at(&[0; 8], counts + 8).expect("no block");
        repair("all");
    }
}

#[test]
fn a_gibibyte_is_copied_in_little_memory() {
    let scratch = Scratch::new("gibibyte");
    let tile: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(n >> 9) >> 13) as u8 | 1).collect();
    let mut file = File::create(scratch.path().join("disk.raw")).expect("a disk");
    (0..1024).for_each(|_| file.write_all(&tile).expect("its bytes"));
    drop(file);
    let convert = |run: Run, more: &[&str], to: &str| {
        let run = run.folder(scratch.path()).args(["convert", "-f", "raw"]).args(more).arg("disk.raw").arg(to);
        run.limit(Duration::from_secs(300)).must();
    };
    convert(maker().img(), &["-c", "-W", "-m", "8", "-O", "qcow2"], "packed.qcow2");
    convert(maker().img(), &["-W", "-O", "qcow2"], "plain.qcow2");
    for cell in Cell::all() {
        for (format, name) in [("raw", "disk.raw"), ("qcow2", "plain.qcow2"), ("qcow2", "packed.qcow2")] {
            let run = program().native(*cell).folder(scratch.path()).limit(Duration::from_secs(300));
            bounded(&run.args(["convert", "-f", format, "-O", "raw", name, "out.raw"]), COPIED_KIB);
        }
    }
}
