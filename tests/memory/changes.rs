//! Changes of large disks that hold little, all over a long file.

use super::{MIB_IN_KIB, bounded};
use instar_testkit::build::thin::Thin;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use std::path::Path;
use std::time::Duration;

/// What the larger of two processes may take, so that both together stay within 300 MiB.
const HALF_KIB: u64 = 150 * MIB_IN_KIB;
const LIMIT: Duration = Duration::from_secs(300);
const TIB: u64 = 1 << 40;

/// Runs each of these lines in little memory, and has the real program look at what has become of the image.
fn change(cell: Cell, folder: &Path, lines: &[&[&str]], size: u64) {
    for words in lines {
        let run = program().native(cell).folder(folder).args(*words);
        bounded(&run.in_shell(r#"exec "$@" >/dev/null"#).limit(LIMIT), HALF_KIB);
    }
    let ask = |words: &[&str]| maker().img().folder(folder).args(words).arg("disk.qcow2").limit(LIMIT).must();
    ask(&["check", "-q"]);
    let told: serde_json::Value = serde_json::from_str(&ask(&["info", "--output=json"]).out()).expect("JSON");
    assert_eq!(told["virtual-size"], size);
}

#[test]
fn a_thin_disk_of_64_tib_is_changed_in_little_memory() {
    let scratch = Scratch::new("thin");
    // More counts than are kept in memory, though most of them are nothing.
    let disk = Thin { cluster_bits: 16, size: 64 * TIB, tables: 512, each: 64, spread: 1 << 25, leaked: 1000 };
    for cell in Cell::all() {
        disk.write(&scratch.path().join("disk.qcow2")).expect("a disk of tables");
        let lines: [&[&str]; 8] = [
            &["check", "-q", "-r", "leaks", "disk.qcow2"],
            &["snapshot", "-c", "one", "disk.qcow2"],
            &["snapshot", "-a", "one", "disk.qcow2"],
            &["snapshot", "-d", "one", "disk.qcow2"],
            &["resize", "-q", "disk.qcow2", "65T"],
            &["resize", "-q", "--shrink", "disk.qcow2", "32T"],
            &["amend", "-q", "-o", "refcount_bits=32", "disk.qcow2"],
            &["check", "-q", "-r", "all", "disk.qcow2"],
        ];
        change(*cell, scratch.path(), &lines, 32 * TIB);
    }
}

/// At 4 KiB, tables of the first level are as long as they can be, and a disk is no longer than 8 TiB.
#[test]
fn long_tables_become_shorter_in_little_memory() {
    let scratch = Scratch::new("short");
    let thin = |cluster_bits, size| Thin { cluster_bits, size, tables: 256, each: 16, spread: 1 << 17, leaked: 0 };
    for cell in Cell::all() {
        for disk in [thin(12, 8 * TIB), thin(16, 10 * TIB)] {
            disk.write(&scratch.path().join("disk.qcow2")).expect("a disk of tables");
            let lines: [&[&str]; 4] = [
                &["snapshot", "-c", "one", "disk.qcow2"],
                &["snapshot", "-a", "one", "disk.qcow2"],
                &["snapshot", "-d", "one", "disk.qcow2"],
                &["resize", "-q", "--shrink", "disk.qcow2", "1T"],
            ];
            change(*cell, scratch.path(), &lines, TIB);
        }
    }
}
