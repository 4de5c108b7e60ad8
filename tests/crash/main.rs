//! Images that are changed where they stand, and what is left of them if that ends at any moment.

use instar_image::tally::check;
use instar_image::{Drive, FileId, Granted, Purpose, Result, Scope};
use instar_ops::cx::{Alone, Cx};
use instar_ops::open::{chain, stack_for};
use instar_testkit::content::read;
use instar_testkit::crash::{How, MemFiles, Recorder, Trouble};
use instar_testkit::made::said;
use instar_wire::op::check::Weight;
use instar_wire::op::convert::{Bitmaps, Goal, Progress, Request, Share, Target};
use instar_wire::op::{Rules, Source};

mod chains;
mod families;
mod over;
mod repairs;
mod requests;

/// The image that is changed.
const TOP: FileId = FileId(0);
/// What a format says of itself while it is written to, and what of it is only a copy.
/// And a count that says too much.
const EXPECTED: &[&str] = &[
    "image was not closed correctly",
    "is not the same as its second copy",
    "allocated blocks mismatch",
    "there is no footer at the end of the file",
    "than its copy at the front of the file, which counts",
];

/// A raw image below another one is what that one calls it; qemu-img does not know that disks of some kinds stand on others.
fn rules(image: &Source) -> Rules {
    let is_family = |name: &&[u8]| image.file.pinned.as_ref().is_some_and(|format| format.0 == *name);
    Rules { as_qemu: ![&b"vpc"[..], b"vhdx"].iter().any(is_family), version: 0 }
}

fn with<T>(drive: &dyn Drive, act: impl FnOnce(&Cx<'_>) -> Result<T>) -> Result<T> {
    let emit = |_: &[u8]| Ok(());
    let crew = Alone { drive, emit: &emit };
    act(&Cx { io: drive, drive, crew: &crew, emit: &emit })
}

fn source(granted: Granted, format: &str) -> Source {
    Source::whole(Granted { pinned: Some(format.into()), ..granted })
}

/// What is asked for when bytes move into an image that is there.
fn moved(from: Source, share: Share, target: Source, compress: bool) -> Box<Request> {
    Box::new(Request {
        rules: rules(&from),
        sources: vec![from],
        snapshot: None,
        share,
        target: Target {
            goal: Goal::There(Box::new(target)),
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
    })
}

/// What an image holds with all below it, and what is wrong with it.
fn look(files: &MemFiles, id: FileId, format: &str) -> Result<(Vec<u8>, Vec<String>)> {
    let recorder = Recorder::new(files, Trouble::Never);
    with(&recorder, |cx| {
        let top = source(files.granted(id), format);
        let rules = rules(&top);
        let whole = chain(&stack_for(cx, &top, &rules, Purpose::Read, &|_| Ok(()))?, None)?;
        let bytes = read(&whole, &recorder, 0, whole.size())?;
        let stack = stack_for(cx, &top, &rules, Purpose::Check, &|_| Ok(()))?;
        let (scope, mut wrongs) = (Scope { as_qemu: false, version: 0 }, Vec::new());
        for census in stack.iter().flat_map(|opened| opened.image.censuses(scope)) {
            check(&*census, scope, &mut |finding| {
                if finding.weight != Weight::Leak {
                    wrongs.push(said(&finding.what));
                }
                Ok(())
            })?;
        }
        Ok((bytes, wrongs))
    })
}

fn is_whole(how: &How) -> bool {
    matches!(how, How::Whole | How::Lost)
}

/// Reads it, and wants nothing to be wrong that need not be.
fn sound(files: &MemFiles, id: FileId, format: &str, how: &How) -> std::result::Result<Vec<u8>, String> {
    let (now, wrongs) = look(files, id, format).map_err(|error| format!("it cannot be read: {error:?}"))?;
    let is_expected = |wrong: &&String| !is_whole(how) && EXPECTED.iter().any(|words| wrong.contains(words));
    let wrongs: Vec<&String> = wrongs.iter().filter(|wrong| !is_expected(wrong)).collect();
    if wrongs.is_empty() { Ok(now) } else { Err(format!("{wrongs:?}")) }
}

/// Every sector is as it was or as it is to be, and when all is done as it is to be. What had none read as zeroes; what is
/// not to get one stays.
fn old_or_new(now: &[u8], old: &[u8], new: &[u8], how: &How) -> std::result::Result<(), String> {
    for (number, sector) in now.chunks(512).enumerate() {
        let part = number * 512..number * 512 + sector.len();
        let is_old = old.get(part.clone()).map_or(sector.iter().all(|byte| *byte == 0), |old| old == sector);
        let is_new = new.get(part).map_or(is_old, |new| new == sector);
        if !is_new && (is_whole(how) || !is_old) {
            return Err(format!("sector {number} is neither what it was nor what it is to be"));
        }
    }
    Ok(())
}
