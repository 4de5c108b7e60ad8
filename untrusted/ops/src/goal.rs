//! The image that is written to: made, or opened, and sealed when all is in it.

use crate::cx::Cx;
use crate::ledger::Ledger;
use crate::open::{Opened, chain, stack, stack_for};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_formats::{RAW, by_name};
use instar_image::former::Former;
use instar_image::{
    Chain, Drive, File, FileId, Granted, Kind, Options, Place, Purpose, Random, Recipe, Result, Site, Target,
};
use instar_wire::op::convert::{self, Event};
use instar_wire::op::{New, Rules, Source, Step};

/// An image that is open to be written to.
pub struct Goal {
    /// What gives out its places; none if it takes whatever comes, one byte after the other.
    pub target: Option<Box<dyn Target>>,
    /// What was in it.
    pub former: Option<Former>,
    /// If all bytes of its disk have their place: the bytes of the disk, and the place of the first.
    pub rows: Option<Vec<(u64, u64, Place)>>,
}

/// References to what has been written that may wait to be written themselves.
pub const WAITING_MAX: usize = 1 << 16;
/// Parts of which a disk can consist whose bytes all have their place.
const ROWS_MAX: usize = 1 << 16;

impl Goal {
    /// All that was written where bytes have their place is there for good: what it was copied from may go.
    pub fn settle(&self, drive: &dyn Drive) -> Result<()> {
        let files: BTreeSet<u32> = self.rows.iter().flatten().map(|(_, _, place)| place.file.0).collect();
        files.into_iter().try_for_each(|file| drive.flush(FileId(file)))
    }
}

/// The image that the user wants, which is to hold `total` bytes.
pub fn open(asked: &convert::Request, total: u64, cx: &Cx<'_>, tell: &dyn Fn(Event) -> Result<()>) -> Result<Goal> {
    let (request, rules) = (&asked.target, &asked.rules);
    let (target, former) = match &request.goal {
        convert::Goal::Stream(stream) => {
            let place = Place { file: stream.file.id, at: stream.at };
            return Ok(Goal { target: None, former: None, rows: Some(Vec::from([(0, u64::MAX, place)])) });
        }
        convert::Goal::New(new) => {
            let needed = request.at.saturating_add(total).next_multiple_of(512);
            let recipe = Recipe { size: request.len.unwrap_or(needed), ..new.recipe.clone() };
            let (target, below) = make(new, &recipe, rules, request.is_clean, cx, tell)?;
            // What is encrypted or has its space already need not read as anything.
            let is_bare = recipe.text("preallocation").is_none_or(|how| how == b"off") && target.fixed(0).is_none();
            let is_blank = is_bare || (request.is_zero && target.cipher().is_none());
            let is_known = is_blank && !target.is_solid();
            let nothing = || Chain { layers: Vec::new() };
            (target, Some(Former { own: nothing(), below: below.unwrap_or_else(nothing), is_known, next: None }))
        }
        convert::Goal::There(source) => {
            let file = Granted { len: cx.drive.length(source.file.id)?, ..source.file.clone() };
            let source = Source { file, ..(**source).clone() };
            let purpose = match (asked.share == convert::Share::Below, request.is_clean) {
                (true, _) => Purpose::WriteToStand,
                (false, true) => Purpose::Write,
                (false, false) => Purpose::WriteOver,
            };
            // Of what is only written to, nothing is told but what had to be repaired.
            let mends = |step| if matches!(step, Step::Found(_)) { tell(Event::Step(step)) } else { Ok(()) };
            let opened = there(&source, rules, purpose, cx, &mends);
            let mut opened = opened.inspect_err(|_| _ = tell(Event::Unopened))?;
            // What stands on it reads as before, and finds what it was made on.
            if asked.share != convert::Share::Whole {
                opened.0.keep_identity();
            }
            (opened.0, Some(beneath(asked, opened.1, cx)?))
        }
    };
    if target.size() < request.at.saturating_add(total) {
        return Err(Kind::TooBig.what("output file is smaller than input file"));
    }
    if request.compress && target.packing().is_none() {
        return Err(Kind::Unsupported.what("Compression not supported for this file format"));
    }
    let rows = rows(&*target);
    Ok(Goal { target: Some(target), former, rows })
}

/// Opens an image that is there.
fn there(
    source: &Source,
    rules: &Rules,
    purpose: Purpose,
    cx: &Cx<'_>,
    tell: &dyn Fn(Step) -> Result<()>,
) -> Result<(Box<dyn Target>, Former)> {
    let stack = stack_for(cx, source, rules, purpose, tell)?;
    let target = over(&stack)?;
    Ok((target, former(&stack)?))
}

/// The topmost image of a stack, to be written over: somebody relies on what is there.
pub fn over(stack: &[Opened<'_>]) -> Result<Box<dyn Target>> {
    let target = stack.first().map(|top| top.image.target()).transpose()?;
    let mut target = target.ok_or_else(|| Kind::Unsupported.what("nothing was opened"))?;
    target.keep_order();
    Ok(target)
}

/// What is in the topmost image of a stack before it is written over, and below it.
pub fn former(stack: &[Opened<'_>]) -> Result<Former> {
    // What will lie below need not be what it was made on.
    let (own, below) = stack.split_at_checked(1).unwrap_or_default();
    Ok(Former { own: chain(own, None)?, below: chain(below, None)?, is_known: true, next: None })
}

/// If the target is a source that is to stand on something else: what lies below it is what it stands on yet, whatever
/// happens meanwhile.
fn beneath(asked: &convert::Request, former: Former, cx: &Cx<'_>) -> Result<Former> {
    let Some(source) = asked.sources.first().filter(|_| asked.share == convert::Share::Below) else {
        return Ok(former);
    };
    let layers = stack(cx, source, &asked.rules, &|_| Ok(()))?;
    let below = chain(layers.get(1..).unwrap_or_default(), None)?;
    Ok(Former { next: Some(former.below), below, ..former })
}

/// Makes an image, and opens it; and what lies below it.
fn make(
    new: &New,
    recipe: &Recipe,
    rules: &Rules,
    is_clean: bool,
    cx: &Cx<'_>,
    tell: &dyn Fn(Event) -> Result<()>,
) -> Result<(Box<dyn Target>, Option<Chain<'static>>)> {
    let below = new.backing.as_ref().map(|source| stack(cx, source, rules, &|_| Ok(()))).transpose();
    let below = below.inspect_err(|_| _ = tell(Event::Unmade))?;
    let top = below.as_ref().and_then(|stack| stack.first());
    lay_out(new, recipe, top, rules, is_clean, cx).inspect_err(|_| _ = tell(Event::Unmade))?;
    let format = by_name(&recipe.format.0).ok_or_else(|| unknown(recipe))?;
    let granted = |file: &Granted| Granted { len: cx.drive.len(file.id), ..file.clone() };
    let options = Options {
        purpose: Purpose::Read,
        as_qemu: rules.as_qemu,
        version: rules.version,
        key: new.key.clone(),
        beside: new.beside.as_ref().map(granted),
        ..Options::default()
    };
    let image = format.open(File::new(cx.drive, &granted(&new.file)), &options);
    let image = image.inspect_err(|_| _ = tell(Event::Unopened))?;
    Ok((image.target()?, below.map(|below| chain(&below, None)).transpose()?))
}

/// Lays out an image that holds nothing; answers how many bytes were written. `is_clean`: its file reads as zeroes; on a
/// device, what others left would be taken for tables.
pub fn lay_out(
    new: &New,
    recipe: &Recipe,
    below: Option<&Opened<'_>>,
    rules: &Rules,
    is_clean: bool,
    cx: &Cx<'_>,
) -> Result<u64> {
    let is_bare = is_clean || recipe.format.0 == RAW.name().as_bytes();
    let how = recipe.text("preallocation").filter(|how| [&b"falloc"[..], b"full"].contains(how));
    if let Some(how) = how.filter(|_| !is_bare) {
        let words = "Could not resize image: Failed to resize underlying file: Preallocation mode '{}' unsupported for \
                     this non-regular file";
        return Err(Kind::Unsupported.what(words).arg(how));
    }
    let ledger = Ledger::new(cx.drive, Some(new.file.id).filter(|_| !is_bare));
    let format = by_name(&recipe.format.0).ok_or_else(|| unknown(recipe))?;
    // It may have to be named by what is otherwise of no interest.
    let below = below.map(|below| below.image.describe(true)).transpose()?;
    let site = Site {
        drive: &ledger,
        file: new.file.id,
        beside: new.beside.as_ref().map(|file| file.id),
        name: &new.name.0,
        below: below.as_ref(),
        key: new.key.as_ref(),
        rules,
        time: new.time,
        random: RefCell::new(Random::new(&new.seed.0)),
    };
    format.create(recipe, &site)?;
    Ok(ledger.written())
}

fn unknown(recipe: &Recipe) -> instar_image::Error {
    Kind::Unsupported.what("Unknown file format '{}'").arg(recipe.format.clone())
}

/// The rows in which the bytes of a disk lie, if all have their place.
pub fn rows(target: &dyn Target) -> Option<Vec<(u64, u64, Place)>> {
    let mut rows = Vec::new();
    let mut at = 0;
    while at < target.size() {
        let (len, spot) = target.fixed(at).filter(|(len, spot)| *len > 0 && spot.tweak.is_none())?;
        if rows.len() >= ROWS_MAX {
            return None;
        }
        rows.push((at, len, spot.place));
        at = at.saturating_add(len);
    }
    Some(rows)
}

/// Where a byte lies that is in one of the rows, and how many follow it there.
pub fn row_at(rows: &[(u64, u64, Place)], at: u64) -> (u64, Place) {
    let index = rows.partition_point(|(start, ..)| *start <= at).saturating_sub(1);
    let nowhere = (0, 0, Place { file: FileId(u32::MAX), at: 0 });
    let (start, len, place) = rows.get(index).copied().unwrap_or(nowhere);
    let skip = at.saturating_sub(start);
    (len.saturating_sub(skip), place.ahead(skip))
}
