//! qcow2 images with snapshots, bitmaps, marks and oddities.

use super::patch::{be, extension, set_len, snapshots};
use super::{Kitchen, Recipe};

const DATA: &[&str] = &["write -P 17 0 64k", "write -P 34 1M 128k", "write -c -P 51 3M 64k", "write -z 2M 64k"];
/// The bitmap extension's type.
const BITMAPS: u32 = 0x2385_2875;
/// The external data file's name.
const DATA_FILE: u32 = 0x4441_5441;

/// All of them.
pub fn recipes() -> Vec<Recipe> {
    let mut all = snapshot_counts();
    all.extend(snapshot_extremes());
    all.extend(bitmaps());
    all.extend(marks());
    all.extend(data_files());
    all
}

fn named(id: impl Into<String>, make: impl Fn(&Kitchen<'_>) -> Result<(), String> + Send + Sync + 'static) -> Recipe {
    Recipe::new(id, "qcow2", "disk.qcow2", make)
}

fn snapshot_counts() -> Vec<Recipe> {
    let mut all = Vec::new();
    for compat in ["0.10", "1.1"] {
        for count in 0..=5 {
            all.push(named(format!("qcow2 {compat} with {count} snapshots"), move |kitchen| {
                kitchen.create(&format!("-f qcow2 -o compat={compat} @ 16M"))?;
                kitchen.io("qcow2", kitchen.name, DATA)?;
                for n in 0..count {
                    let name = ["one", "two words", "a-name-that-is-longer-than-its-column", "ünï", "5"][n];
                    kitchen.img(["snapshot", "-c", name, "disk.qcow2"])?;
                    if n == 1 && compat == "1.1" {
                        kitchen.img(["resize", "-q", "disk.qcow2", "32M"])?;
                    }
                }
                Ok(())
            }));
        }
    }
    all
}

/// Values of a snapshot that only a running machine, or nobody, would write.
fn snapshot_extremes() -> Vec<Recipe> {
    let clocks: [u64; 6] = [0, 999_999, 3_723_456_000_000, 360_000_000_000_001, 36_000_000_000_000_000, u64::MAX];
    let sizes: [u64; 6] = [0, 1, 1023, 123_456_789, 1 << 40, u64::MAX];
    let counts: [u64; 6] = [u64::MAX, 0, 1, 12_345_678_901, u64::MAX - 1, 1 << 63];
    let seconds: [u32; 6] = [0, 1, 1_700_000_000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(named(format!("qcow2 with a snapshot of extremes {n}"), move |kitchen| {
            kitchen.create("-f qcow2 @ 16M")?;
            kitchen.img(["snapshot", "-c", "snap", "disk.qcow2"])?;
            let entry = snapshots(&kitchen.path(kitchen.name))?[0];
            kitchen.patch(entry + 16, &seconds[n].to_be_bytes())?;
            kitchen.patch(entry + 20, &(n as u32 * 123_456_789).to_be_bytes())?;
            kitchen.patch(entry + 24, &clocks[n].to_be_bytes())?;
            kitchen.patch(entry + 32, &(sizes[n] as u32).to_be_bytes())?;
            kitchen.patch(entry + 40, &sizes[n].to_be_bytes())?;
            kitchen.patch(entry + 56, &counts[n].to_be_bytes())
        }));
    }
    for (word, bytes) in
        [("newline", b"a\nb"), ("escape", b"\x1b[2"), ("invalid", b"\xff\xfe\x80"), ("quote", b"\"\\\t")]
    {
        all.push(named(format!("qcow2 with a snapshot name of {word}"), move |kitchen| {
            kitchen.create("-f qcow2 @ 16M")?;
            kitchen.img(["snapshot", "-c", "xyz", "disk.qcow2"])?;
            let path = kitchen.path(kitchen.name);
            let entry = snapshots(&path)?[0];
            let name_at = entry + 40 + be(&path, entry + 36, 4)? + be(&path, entry + 12, 2)?;
            kitchen.patch(name_at, bytes)
        }));
    }
    all
}

fn bitmaps() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (at, granularities) in [&["64k"][..], &["512", "2G"], &["4k", "1M", "32k", "128k"]].into_iter().enumerate() {
        all.push(named(format!("qcow2 with bitmaps {at}"), move |kitchen| {
            kitchen.create("-f qcow2 @ 64M")?;
            for (n, granularity) in granularities.iter().enumerate() {
                let name = format!("b{n}");
                kitchen.img(["bitmap", "--add", "-g", granularity, "disk.qcow2", &name])?;
                if n % 2 == 1 {
                    kitchen.img(["bitmap", "--disable", "disk.qcow2", &name])?;
                }
            }
            Ok(())
        }));
    }
    // Flags: in use, auto, both, one that nobody knows; then a type and a granularity nobody knows.
    for (word, at, bytes) in [
        ("in use", 12, [0, 0, 0, 1]),
        ("in use and auto", 12, [0, 0, 0, 3]),
        ("an unknown flag", 12, [0, 0, 0, 0x83]),
        ("an unknown type", 16, [2, 16, 0, 2]),
        ("granularity 63", 16, [1, 63, 0, 2]),
        ("no name", 16, [1, 16, 0, 0]),
        ("a name of 1023", 16, [1, 16, 3, 255]),
        ("extra data", 20, [0, 0, 0, 8]),
    ] {
        all.push(named(format!("qcow2 with a bitmap of {word}"), move |kitchen| {
            kitchen.create("-f qcow2 @ 16M")?;
            kitchen.img(["bitmap", "--add", "disk.qcow2", "b0"])?;
            let path = kitchen.path(kitchen.name);
            let directory = be(&path, extension(&path, BITMAPS)?.at + 16, 8)?;
            kitchen.patch(directory + at, &bytes)
        }));
    }
    all
}

/// Header fields that the tools set only in passing.
fn marks() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (word, at, value) in [
        ("dirty", 72, 1u64),
        ("corrupt", 72, 2),
        ("dirty and corrupt", 72, 3),
        ("an unknown incompatible feature", 72, 1 << 40),
        ("two unknown incompatible features", 72, 1 << 63 | 1 << 5),
        ("external data without a name", 72, 4),
        ("zstd mark without zstd", 72, 8),
        ("extended L2 mark", 72, 16),
        ("unknown compatible features", 80, 1 << 40 | 1),
        ("unknown autoclear features", 88, 1 << 40 | 3),
        ("a huge size", 24, u64::MAX >> 1),
        ("no L1 table", 40, 0),
    ] {
        all.push(named(format!("qcow2 with {word}"), move |kitchen| {
            kitchen.create("-f qcow2 @ 16M")?;
            kitchen.patch(at, &value.to_be_bytes())
        }));
    }
    for (word, len) in
        [("half a header", 50u64), ("a header alone", 104), ("a cluster alone", 65536), ("no L1", 3 * 65536)]
    {
        all.push(named(format!("qcow2 cut to {word}"), move |kitchen| {
            kitchen.create("-f qcow2 @ 16M")?;
            set_len(&kitchen.path(kitchen.name), len)
        }));
    }
    all.push(named("qcow2 with a header extension nobody knows", |kitchen| {
        kitchen.create("-f qcow2 @ 16M")?;
        let first = extension(&kitchen.path(kitchen.name), 0x6803_f857)?;
        kitchen.patch(first.at - 8, &[0x12, 0x34, 0x56, 0x78])
    }));
    all
}

fn data_files() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (word, name) in
        [("newline", b"ab\nc.dat"), ("invalid", b"\xff\xfe.dat12"), ("json", b"json:{}!"), ("up", b"../d.dat")]
    {
        all.push(named(format!("qcow2 with a data file of {word}"), move |kitchen| {
            kitchen.create("-f qcow2 -o data_file=abcd.efg @ 16M")?;
            let place = extension(&kitchen.path(kitchen.name), DATA_FILE)?;
            kitchen.patch(place.at, name)
        }));
    }
    all.push(named("qcow2 whose data file is missing", |kitchen| {
        kitchen.create("-f qcow2 -o data_file=gone.data @ 16M")?;
        std::fs::remove_file(kitchen.path("gone.data")).map_err(|e| e.to_string())
    }));
    all.push(named("qcow2 whose data file is elsewhere", |kitchen| {
        std::fs::create_dir(kitchen.path("sub")).map_err(|e| e.to_string())?;
        kitchen.create("-f qcow2 -o data_file=sub/far.data,data_file_raw=on @ 16M")
    }));
    all
}
