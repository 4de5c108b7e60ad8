//! Images that are written to where they stand, and what is left of them if that ends at any moment.

use instar_formats::by_name;
use instar_image::tally::check;
use instar_image::{Chain, Drive, FileId, Granted, Purpose, Result, Scope};
use instar_ops::convert::copy;
use instar_ops::cx::{Alone, Cx};
use instar_ops::open::{chain, stack_for};
use instar_testkit::content::read;
use instar_testkit::crash::{How, MemFiles, sweep};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::twin::{create, scribble};
use instar_tests::report::Report;
use instar_wire::op::check::Weight;
use instar_wire::op::convert::{Bitmaps, Goal, Progress, Request, Share, Target};
use instar_wire::op::{Rules, Source};
use std::path::Path;

mod chains;
mod families;
mod repairs;

const TOP: FileId = FileId(0);
/// The bytes that are copied.
const FROM: FileId = FileId(1);
const RULES: Rules = Rules { as_qemu: false, version: 0 };

/// Kinds of images that hold something and can be written over, which streams cannot: format, options, and whether what is written is packed.
const KINDS: &[(&str, &str, bool)] = &[
    ("qcow2", "cluster_size=512", false),
    ("qcow2", "cluster_size=512,compat=0.10", false),
    ("qcow2", "cluster_size=4096,refcount_bits=1", false),
    ("qcow2", "cluster_size=4096,refcount_bits=64", true),
    ("qcow2", "cluster_size=16384,extended_l2=on", false),
    ("qcow", "", false),
    ("qcow", "", true),
    ("qed", "cluster_size=4096", false),
    ("vmdk", "subformat=monolithicSparse", false),
    ("parallels", "cluster_size=65536", false),
    ("vpc", "subformat=dynamic", false),
    ("vhdx", "block_size=1M", false),
];

fn with<T>(drive: &dyn Drive, act: impl FnOnce(&Cx<'_>) -> Result<T>) -> Result<T> {
    let emit = |_: &[u8]| Ok(());
    let crew = Alone { drive, emit: &emit };
    act(&Cx { io: drive, drive, crew: &crew, emit: &emit })
}

fn source(granted: Granted, format: &str) -> Source {
    Source::whole(Granted { pinned: Some(format.into()), ..granted })
}

/// What the image holds, and what is wrong with it.
fn look(files: &MemFiles, format: &str) -> Result<(Vec<u8>, Vec<String>)> {
    let recorder = instar_testkit::crash::Recorder::new(files, instar_testkit::crash::Trouble::Never);
    with(&recorder, |cx| {
        let top = source(files.granted(TOP), format);
        let whole: Chain<'_> = chain(&stack_for(cx, &top, &RULES, Purpose::Read, &|_| Ok(()))?, None)?;
        let bytes = read(&whole, &recorder, 0, whole.size())?;
        let stack = stack_for(cx, &top, &RULES, Purpose::Check, &|_| Ok(()))?;
        let (scope, mut wrongs) = (Scope { as_qemu: false, version: 0 }, Vec::new());
        for census in stack.iter().flat_map(|opened| opened.image.censuses(scope)) {
            check(&*census, scope, &mut |finding| {
                if finding.weight != Weight::Leak {
                    wrongs.push(instar_testkit::made::said(&finding.what));
                }
                Ok(())
            })?;
        }
        Ok((bytes, wrongs))
    })
}

/// Copies the second file over the image, as `convert -n` does.
fn pour(drive: &dyn Drive, start: &MemFiles, format: &str, compress: bool) -> Result<()> {
    with(drive, |cx| {
        let request = Request {
            sources: vec![source(start.granted(FROM), "raw")],
            rules: RULES.clone(),
            snapshot: None,
            share: Share::Whole,
            target: Target {
                goal: Goal::There(Box::new(source(start.granted(TOP), format))),
                at: 0,
                len: None,
                is_zero: false,
                is_clean: true,
                compress,
            },
            sparse: 4096,
            salvage: false,
            offload: false,
            bitmaps: Bitmaps::None,
            progress: Progress::Passed,
        };
        copy(&request, None, cx)
    })
}

/// What a format says of itself while it is written to, and what of it is only a copy.
const EXPECTED: &[&str] = &[
    "image was not closed correctly",
    "is not the same as its second copy",
    "there is no footer at the end of the file",
    "than its copy at the front of the file, which counts",
];

/// Every sector is as it was or as it is to be.
fn judge(files: &MemFiles, format: &str, before: &[u8], after: &[u8], how: &How) -> std::result::Result<(), String> {
    let (now, wrongs) = look(files, format).map_err(|error| format!("it cannot be read: {error:?}"))?;
    for (number, sector) in now.chunks(512).enumerate() {
        let part = number * 512..(number * 512 + sector.len());
        let is_new = sector == &after[part.clone()];
        if !is_new && (matches!(how, How::Whole | How::Lost) || sector != &before[part]) {
            return Err(format!("sector {number} is neither what it was nor what it is to be"));
        }
    }
    let is_crash = !matches!(how, How::Whole | How::Lost);
    let is_expected = |wrong: &&String| is_crash && EXPECTED.iter().any(|words| wrong.contains(words));
    let wrongs: Vec<&String> = wrongs.iter().filter(|wrong| !is_expected(wrong)).collect();
    if wrongs.is_empty() { Ok(()) } else { Err(format!("{wrongs:?}")) }
}

/// An image that qemu-img has made and written to, and what is to be written over it.
fn furnished(path: &Path, format: &str, options: &str, seed: u64) -> MemFiles {
    let options = if options.is_empty() { String::new() } else { format!("-o {options} ") };
    create(path, &format!("-f {format} {options}disk 4M"));
    scribble(path, format, "disk", 1 << 20, seed, 6);
    if format == "qcow2" && !options.contains("refcount_bits=1") {
        maker().img().folder(path).args(["snapshot", "-c", "s", "disk"]).must();
        scribble(path, format, "disk", 1 << 20, seed + 1, 2);
    }
    let mut files = MemFiles::load(path, &["disk"]);
    let mut dice = Dice::new(seed);
    let size = with(&instar_testkit::crash::Recorder::new(&files, instar_testkit::crash::Trouble::Never), |cx| {
        let stack = stack_for(cx, &source(files.granted(TOP), format), &RULES, Purpose::Read, &|_| Ok(()))?;
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
        let (before, _) = look(&start, format).expect("an image");
        let after = start.bytes(FROM);
        report.tried();
        let swept = sweep(
            &start,
            |drive| pour(drive, &start, format, compress),
            |files, how| judge(files, format, &before, &after, how),
        );
        if let Err(bad) = swept {
            report.fault(format!("{format} {options} {compress}\n  {bad:?}"));
        }
    });
    report.end();
}
