//! Questions to the verbs that change images where they stand.

use super::{COPY, HALF, Place, Row, ZSTD, data_mib, half, half_qcow2, heavy, light};
use instar_testkit::build::fragmented::Fragmented;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What needs no more than a start and a few sectors.
const SMALL: &[(&str, f64)] = COPY;
const SNAPSHOT: &[(&str, f64)] = &[("process", 0.4), ("kvm", 0.5)];
const MOVED: &[(&str, f64)] = ZSTD;
/// Any less than qemu-img.
const LESS: &[(&str, f64)] = &[("process", 1.0), ("kvm", 1.0)];

/// 256 GiB, of which no two neighbours lie beside each other. They lie within a block of counts or two all the same: where
/// they lie all over the file, qemu-img takes minutes for each snapshot.
const DISK: Fragmented = Fragmented { cluster_bits: 16, clusters: 1 << 22, spread: 1 << 15 };

/// All of them.
pub const ROWS: &[Row] = &[
    heavy("snapshot", "-c of 256 GiB, fragmented", large, &["snapshot", "-c", "two", "{}"], SNAPSHOT)
        .changing(&["large.qcow2"]),
    heavy("snapshot", "-a of the same", taken, &["snapshot", "-a", "one", "{}"], SNAPSHOT).changing(&["taken.qcow2"]),
    heavy("snapshot", "-d of the same", taken, &["snapshot", "-d", "one", "{}"], SNAPSHOT).changing(&["taken.qcow2"]),
    heavy("check", "-r leaks of 256 GiB, fragmented", leaking, &["check", "-q", "-r", "leaks", "{}"], HALF)
        .changing(&["leaking.qcow2"]),
    heavy("check", "-r all of the same, counts missing", wrong, &["check", "-q", "-r", "all", "{}"], HALF)
        .changing(&["wrong.qcow2"]),
    heavy("commit", "into an empty qcow2", commit, &["commit", "-q", "{}"], MOVED)
        .changing(&["base.qcow2", "overlay.qcow2"]),
    heavy("commit", "the same with -d", commit, &["commit", "-q", "-d", "{}"], MOVED).changing(&["base.qcow2"]),
    heavy("commit", "the same into raw", commit_raw, &["commit", "-q", "-d", "{}"], MOVED).changing(&["base.raw"]),
    heavy("rebase", "an eighth differs", rebase, &["rebase", "-b", "other.raw", "-F", "raw", "{}"], MOVED)
        .changing(&["moved.qcow2"]),
    heavy("rebase", "onto nothing", rebase, &["rebase", "-b", "", "{}"], MOVED).changing(&["moved.qcow2"]),
    light("amend", "compat=0.10", small, &["amend", "-o", "compat=0.10", "{}"], SMALL).changing(&["small.qcow2"]),
    light("amend", "compat=1.1", old, &["amend", "-o", "compat=1.1", "{}"], SMALL).changing(&["old.qcow2"]),
    light("amend", "refcount_bits=32", small, &["amend", "-o", "refcount_bits=32", "{}"], SMALL)
        .changing(&["small.qcow2"]),
    light("amend", "size=2G", small, &["amend", "-o", "size=2G", "{}"], SMALL).changing(&["small.qcow2"]),
    light("resize", "qcow2 of 1 GiB to 2 GiB", small, &["resize", "{}", "2G"], SMALL).changing(&["small.qcow2"]),
    light("resize", "raw of 1 GiB to 2 GiB", small_raw, &["resize", "-f", "raw", "{}", "2G"], SMALL)
        .changing(&["small.raw"]),
    light("resize", "vmdk, beside qemu-img's qcow2", small_vmdk, &["resize", "{}", "2G"], SMALL)
        .changing(&["small.vmdk", "small.qcow2"])
        .beside("small.qcow2"),
    light("resize", "vhdx, beside qemu-img's qcow2", small_vhdx, &["resize", "{}", "2G"], SMALL)
        .changing(&["small.vhdx", "small.qcow2"])
        .beside("small.qcow2"),
    light("resize", "qcow2 of 1 TiB to 2 TiB", tera, &["resize", "{}", "2T"], LESS).changing(&["tera.qcow2"]),
    heavy("resize", "the same with all its tables", tera, &["resize", "--preallocation=metadata", "{}", "2T"], LESS)
        .changing(&["tera.qcow2"]),
];

fn large(place: &Place) -> Result<PathBuf, String> {
    let path = place.path("large.qcow2");
    DISK.write(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn taken(place: &Place) -> Result<PathBuf, String> {
    let path = place.path("taken.qcow2");
    DISK.write(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    place.make(&["snapshot", "-c", "one", "taken.qcow2"])?;
    Ok(path)
}

/// Some clusters are counted twice.
fn leaking(place: &Place) -> Result<PathBuf, String> {
    miscounted(place, "leaking.qcow2", |_| 2)
}

/// Some are counted twice, and some not at all.
fn wrong(place: &Place) -> Result<PathBuf, String> {
    miscounted(place, "wrong.qcow2", |number| if number % 2 == 0 { 2 } else { 0 })
}

/// Every 64th cluster has another count.
fn miscounted(place: &Place, name: &str, count: fn(u64) -> u8) -> Result<PathBuf, String> {
    let path = place.path(name);
    let write = || -> std::io::Result<()> {
        DISK.write(&path)?;
        let file = File::options().read(true).write(true).open(&path)?;
        let word = |at: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).map(|()| u64::from_be_bytes(bytes))
        };
        let (table, per_block) = (word(48)?, 1u64 << (DISK.cluster_bits - 1));
        for number in per_block / 64..DISK.clusters / 64 {
            let cluster = number * 64;
            let block = word(table + cluster / per_block * 8)?;
            file.write_all_at(&[0, count(number)], block + cluster % per_block * 2)?;
        }
        Ok(())
    };
    write().map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// An overlay, half full, over nothing.
fn commit(place: &Place) -> Result<PathBuf, String> {
    overlay(place, "overlay.qcow2", "qcow2", "base.qcow2")
}

fn commit_raw(place: &Place) -> Result<PathBuf, String> {
    overlay(place, "overlay_raw.qcow2", "raw", "base.raw")
}

fn overlay(place: &Place, name: &str, format: &str, base: &str) -> Result<PathBuf, String> {
    let path = place.path(name);
    super::super::timing::copy(&half_qcow2(place)?, &path)?;
    place.make(&["create", "-q", "-f", format, base, &format!("{}M", data_mib() * 2)])?;
    if format == "raw" {
        let write = || File::options().write(true).open(place.path(base))?.write_all_at(&super::partitioned(), 0);
        write().map_err(|e| format!("{base}: {e}"))?;
    }
    place.make(&["rebase", "-q", "-u", "-b", base, "-F", format, name])?;
    Ok(path)
}

/// An empty overlay over a base that has a twin with some differences.
fn rebase(place: &Place) -> Result<PathBuf, String> {
    const PIECE: u64 = 2 << 20;
    let (from, other) = (half(place)?, place.path("other.raw"));
    if !other.exists() {
        super::super::timing::copy(&from, &other)?;
        let write = || -> std::io::Result<()> {
            let file = File::options().write(true).open(&other)?;
            (0..data_mib() / 16).try_for_each(|n| file.write_all_at(&vec![0x5a; PIECE as usize], n * 16 * PIECE))?;
            file.write_all_at(&super::partitioned(), 0)
        };
        write().map_err(|e| format!("{}: {e}", other.display()))?;
    }
    place.make(&["create", "-q", "-f", "qcow2", "-b", "half.raw", "-F", "raw", "moved.qcow2"])?;
    Ok(place.path("moved.qcow2"))
}

fn create(place: &Place, name: &str, arguments: &[&str], size: &str) -> Result<PathBuf, String> {
    place.make(&[&["create", "-q"], arguments, &[name, size]].concat())?;
    Ok(place.path(name))
}

fn small(place: &Place) -> Result<PathBuf, String> {
    create(place, "small.qcow2", &["-f", "qcow2"], "1G")
}

fn old(place: &Place) -> Result<PathBuf, String> {
    create(place, "old.qcow2", &["-f", "qcow2", "-o", "compat=0.10"], "1G")
}

fn small_raw(place: &Place) -> Result<PathBuf, String> {
    create(place, "small.raw", &["-f", "raw"], "1G")
}

fn small_vmdk(place: &Place) -> Result<PathBuf, String> {
    small(place)?;
    create(place, "small.vmdk", &["-f", "vmdk"], "1G")
}

fn small_vhdx(place: &Place) -> Result<PathBuf, String> {
    small(place)?;
    create(place, "small.vhdx", &["-f", "vhdx"], "1G")
}

fn tera(place: &Place) -> Result<PathBuf, String> {
    create(place, "tera.qcow2", &["-f", "qcow2"], "1T")
}
