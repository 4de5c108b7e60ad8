//! Images that are written over, as `convert -n` does.

use super::{TOP, look, moved, old_or_new, rules, sound, source, with};
use instar_formats::by_name;
use instar_image::{Drive, FileId, Purpose, Result};
use instar_ops::convert::copy;
use instar_ops::open::stack_for;
use instar_testkit::crash::{MemFiles, Recorder, Trouble, sweep};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::twin::{create, scribble};
use instar_tests::report::Report;
use instar_wire::op::convert::Share;
use std::path::Path;

/// The bytes that are copied.
const FROM: FileId = FileId(1);

/// Kinds of images that can be written over: format, options, and whether what is written is packed. They hold something, but
/// for streams, which can be written only once.
pub const KINDS: &[(&str, &str, bool)] = &[
    ("qcow2", "cluster_size=512", false),
    ("qcow2", "cluster_size=512,compat=0.10", false),
    ("qcow2", "cluster_size=4096,refcount_bits=1", false),
    ("qcow2", "cluster_size=4096,refcount_bits=64", true),
    ("qcow2", "cluster_size=16384,extended_l2=on", false),
    ("qcow", "", false),
    ("qcow", "", true),
    ("qed", "cluster_size=4096", false),
    ("vmdk", "subformat=monolithicSparse", false),
    ("vmdk", "subformat=monolithicSparse,hwversion=4", false),
    ("vmdk", "subformat=streamOptimized", true),
    ("vmdk", "subformat=streamOptimized,hwversion=4", true),
    ("parallels", "cluster_size=65536", false),
    ("vdi", "", false),
    ("vpc", "subformat=dynamic", false),
    ("vhdx", "block_size=1M", false),
];

/// Of a VMDK whose header that counts stands at its end.
const ENDED: &str = ",hwversion=4";

/// Gives it such a header.
fn ended(files: &mut MemFiles) {
    let bytes = files.bytes(TOP);
    let mut footer = vec![0; 3 * 512];
    footer[12] = 3;
    footer[512..1024].copy_from_slice(&bytes[..512]);
    files.poke(TOP, bytes.len() as u64, &footer);
    files.poke(TOP, 56, &[0xff; 8]);
}

/// Copies the second file over the image.
fn pour(drive: &dyn Drive, start: &MemFiles, format: &str, compress: bool) -> Result<()> {
    let (from, top) = (source(start.granted(FROM), "raw"), source(start.granted(TOP), format));
    with(drive, |cx| copy(&moved(from, Share::Whole, top, compress), None, cx))
}

/// An image that qemu-img has made and written to, and what is to be written over it.
fn furnished(path: &Path, format: &str, options: &str, seed: u64) -> MemFiles {
    let (is_ended, is_stream) = (options.ends_with(ENDED), options.contains("streamOptimized"));
    let options = if options.is_empty() { String::new() } else { format!("-o {options} ") };
    create(path, &format!("-f {format} {options}disk 4M"));
    if !is_stream {
        scribble(path, format, "disk", 1 << 20, seed, 6);
    }
    if format == "qcow2" && !options.contains("refcount_bits=1") {
        maker().img().folder(path).args(["snapshot", "-c", "s", "disk"]).must();
        scribble(path, format, "disk", 1 << 20, seed + 1, 2);
    }
    let mut files = MemFiles::load(path, &["disk"]);
    if is_ended {
        ended(&mut files);
    }
    let mut dice = Dice::new(seed);
    let size = with(&Recorder::new(&files, Trouble::Never), |cx| {
        let top = source(files.granted(TOP), format);
        let stack = stack_for(cx, &top, &rules(&top), Purpose::Read, &|_| Ok(()))?;
        Ok(stack[0].told.virtual_size)
    });
    let mut bytes = vec![0; size.expect("an image") as usize];
    for _ in 0..6 {
        let at = dice.below(2 << 20) as usize / 512 * 512;
        let len = (1 + dice.below(20)) as usize * 512;
        bytes[at..at + len].fill(1 + dice.below(255) as u8);
    }
    files.add("in.raw", &bytes);
    files
}

#[test]
fn what_is_written_over_is_old_or_new() {
    let scratch = Scratch::new("crash-over");
    let report = Report::new("crash over");
    let turns: Vec<u64> = (0..KINDS.len() as u64).collect();
    each(&turns, |_, turn| {
        let (format, options, compress) = KINDS[*turn as usize];
        assert!(by_name(format.as_bytes()).is_some());
        let path = scratch.folder(&format!("place{turn}"));
        let start = furnished(&path, format, options, turn + 1);
        let (before, _) = look(&start, TOP, format).expect("an image");
        let after = start.bytes(FROM);
        report.tried();
        let swept = sweep(
            &start,
            |drive| pour(drive, &start, format, compress),
            |files, how| old_or_new(&sound(files, TOP, format, how)?, &before, &after, how),
        );
        if let Err(bad) = swept {
            report.fault(format!("{format} {options} {compress}\n  {bad:?}"));
        }
    });
    report.end();
}
