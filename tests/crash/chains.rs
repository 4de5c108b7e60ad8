//! Images that get to stand on others, or whose bytes go below: what the guest reads stays what it is.

use super::{TOP, look, moved, old_or_new, sound, source, with};
use instar_image::{Drive, FileId, Result};
use instar_ops::{commit, rebase};
use instar_testkit::crash::{How, MemFiles, sweep};
use instar_testkit::images::each;
use instar_testkit::place::Scratch;
use instar_testkit::twin::{create, scribble};
use instar_tests::report::Report;
use instar_wire::op::convert::Share;
use instar_wire::op::{Below, Source};

/// What lies below, and what the image is to stand on.
pub const BELOW: FileId = FileId(1);
const NEW: FileId = FileId(2);
const SIZE: u64 = 512 << 10;

/// Kinds of images that can stand on others: format and options.
const TOPS: &[(&str, &str)] = &[
    ("qcow2", "cluster_size=512"),
    ("qcow2", "cluster_size=512,compat=0.10"),
    ("qcow2", "cluster_size=4096,refcount_bits=1"),
    ("qcow2", "cluster_size=4096,refcount_bits=64"),
    ("qcow2", "cluster_size=65536"),
    ("qcow2", "cluster_size=16384,extended_l2=on"),
    ("qed", "cluster_size=4096"),
    ("qed", "cluster_size=65536"),
];
const BASES: &[&str] = &["raw", "qcow2", "vmdk", "qed", "vdi"];

fn options(list: &str) -> String {
    if list.is_empty() { String::new() } else { format!("-o {list} ") }
}

/// An image over another one, and a third one that has nothing to do with them; all of different lengths.
fn furnished(top: (&str, &str), below: &str, new: &str, seed: u64) -> MemFiles {
    let scratch = Scratch::new("crash chains");
    let (path, round) = (scratch.path(), |len: u64| len.next_multiple_of(64 << 10));
    let len = |n: u64| round(SIZE - (seed * 7 + n * 3) % 4 * (64 << 10));
    create(path, &format!("-f {below} below {}", len(1)));
    scribble(path, below, "below", len(1), seed, 6);
    create(path, &format!("-f {new} new {}", len(2)));
    scribble(path, new, "new", len(2), seed + 1, 6);
    create(path, &format!("-f {} {}-b below -F {below} top {}", top.0, options(top.1), len(3)));
    scribble(path, top.0, "top", len(3), seed + 2, 6);
    MemFiles::load(path, &["top", "below", "new"])
}

pub fn stand(
    drive: &dyn Drive,
    start: &MemFiles,
    format: &str,
    new: Option<(&str, &str)>,
    compress: bool,
    is_safe: bool,
) -> Result<()> {
    with(drive, |cx| {
        let top = source(start.granted(TOP), format);
        let new_below = |(new, _)| Below::Instead(Box::new(source(start.granted(NEW), new)));
        let below = new.filter(|_| is_safe).map_or(Below::None, new_below);
        let target = Source { below, ..top.clone() };
        let request = instar_wire::op::rebase::Request {
            copy: moved(top, Share::Below, target, compress),
            is_safe,
            name: new.map_or("", |(_, name)| name).into(),
            format: new.map(|(format, _)| format.into()),
        };
        rebase::run(&request, cx)
    })
}

#[test]
fn what_gets_to_stand_on_another_image_reads_the_same_whatever_happens() {
    let report = Report::new("crash rebase");
    let jobs: Vec<(usize, (&str, &str))> = TOPS.iter().copied().enumerate().collect();
    each(&jobs, |_, (number, top)| {
        for (turn, new) in [Some(BASES[number % BASES.len()]), None].into_iter().enumerate() {
            let seed = (number * 2 + turn) as u64;
            let start = furnished(*top, BASES[(number + 2) % BASES.len()], new.unwrap_or("raw"), seed);
            let before = look(&start, TOP, top.0).expect("an image").0;
            let compress = top.0 == "qcow2" && number % 2 == 1 && !top.1.contains("extended");
            let judge = |files: &MemFiles, how: &How| {
                let now = sound(files, TOP, top.0, how)?;
                if now == before { Ok(()) } else { Err("the guest reads something else".to_owned()) }
            };
            let tried =
                sweep(&start, |drive| stand(drive, &start, top.0, new.map(|new| (new, "new")), compress, true), judge);
            report.tried();
            if let Err(bad) = tried {
                report.fault(format!("{top:?} to {new:?}: {bad:?}"));
            }
        }
    });
    report.end();
}

pub fn sink(drive: &dyn Drive, start: &MemFiles, format: &str, below: &str, empties: bool) -> Result<()> {
    with(drive, |cx| {
        let top = source(start.granted(TOP), format);
        let base = source(start.granted(BELOW), below);
        let top = Source { below: Below::Instead(Box::new(base.clone())), ..top };
        let request =
            instar_wire::op::commit::Request { copy: moved(top, Share::Above(1), base, false), empties, looks: false };
        commit::run(&request, cx)
    })
}

/// The image reads as before, and every sector of the one below is as it was or as it is to be.
pub fn sunk(
    files: &MemFiles,
    how: &How,
    (top, base): (&str, &str),
    before: &[u8],
    was: &[u8],
) -> std::result::Result<(), String> {
    if sound(files, TOP, top, how)? != before {
        return Err("the guest reads something else".to_owned());
    }
    old_or_new(&sound(files, BELOW, base, how)?, was, before, how)
}

#[test]
fn what_goes_below_reads_the_same_from_above_whatever_happens() {
    let report = Report::new("crash commit");
    // What can become longer, and what is there already.
    let bases = ["raw", "qcow2", "qed", "vmdk"];
    let tops: Vec<(&str, &str)> = TOPS.iter().copied().chain([("qcow", "")]).collect();
    let jobs: Vec<(usize, (&str, &str))> = tops.into_iter().enumerate().collect();
    each(&jobs, |_, (number, top)| {
        let base = bases[number % bases.len()];
        let start = furnished(*top, base, "raw", 100 + *number as u64);
        let before = look(&start, TOP, top.0).expect("an image").0;
        let was = look(&start, BELOW, base).expect("an image").0;
        let judge = |files: &MemFiles, how: &How| sunk(files, how, (top.0, base), &before, &was);
        let tried = sweep(&start, |drive| sink(drive, &start, top.0, base, true), judge);
        report.tried();
        if let Err(bad) = tried {
            report.fault(format!("{top:?} into {base}: {bad:?}"));
        }
    });
    report.end();
}
