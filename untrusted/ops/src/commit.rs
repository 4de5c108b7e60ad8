//! `commit`: what an image has goes into one below it.

use crate::convert;
use crate::cx::Cx;
use crate::open::{as_they_are, chain, stack, stack_for};
use alloc::vec::Vec;
use instar_image::num::wide;
use instar_image::{Chain, Drive, Kind, Preallocation, Purpose, Result, Walk};
use instar_wire::code::encode;
use instar_wire::op::Source;
use instar_wire::op::commit::Request;
use instar_wire::op::convert::{Event, Goal, Progress, Request as Copy, Share, Written};

/// Makes room below, copies, and leaves the image empty if that is wanted.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let copy = &request.copy;
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let nothing = || Kind::Unsupported.what("there is no image");
    let Some(image) = copy.sources.first() else { return Err(nothing()) };
    if request.looks {
        // Whatever becomes of it, an image that was not closed is repaired first.
        let layers = stack_for(cx, image, &copy.rules, Purpose::Write, &|step| tell(Event::Step(step)))?;
        return tell(Event::Ready(layers.first().map_or(0, |top| top.told.virtual_size)));
    }
    let Goal::There(base) = &copy.target.goal else { return Err(nothing()) };
    lengthen(&as_they_are(image, cx)?, base, request, cx)?;
    let cx = &cx.afresh();
    // What is below may have become longer.
    let image = &as_they_are(image, cx)?;
    let copy = &Copy { sources: Vec::from([image.clone()]), ..(**copy).clone() };
    if copy.progress == Progress::Moved {
        tell(Event::Written(held(image, request, cx)?))?;
    }
    convert::copy(copy, None, cx)?;
    if !request.empties {
        return Ok(());
    }
    tell(Event::Emptied(empty(image, request, cx)?))
}

/// Leaves an image with nothing of its own; tells how many units it had.
fn empty(image: &Source, request: &Request, cx: &Cx<'_>) -> Result<u64> {
    let mut had = None;
    // What replaces its tables needs space that is still in use, behind all else. When that is free, they can move there,
    // and the file becomes shorter.
    for _ in 0..2 {
        let image = as_they_are(image, cx)?;
        let stack = stack_for(cx, &image, &request.copy.rules, Purpose::Write, &|_| Ok(()))?;
        let top = stack.first().ok_or_else(|| Kind::Unsupported.what("there is no image"))?;
        if had.is_none() {
            let unit = top.image.target()?.unit().max(1);
            had = Some(count(&chain(core::slice::from_ref(top), None)?, 1, cx.drive)?.div_ceil(unit));
        }
        match top.image.edit()?.empty(cx.drive) {
            // What it has is below as well, and may stay where it is.
            Err(error) if error.kind == Kind::Unsupported => return Ok(0),
            ended => ended?,
        }
    }
    Ok(had.unwrap_or(0))
}

/// What is copied.
fn held(image: &Source, request: &Request, cx: &Cx<'_>) -> Result<Written> {
    let Share::Above(layers) = request.copy.share else { return Ok(Written { bytes: 0, unit: 0 }) };
    let stack = stack(cx, image, &request.copy.rules, &|_| Ok(()))?;
    let unit = stack.first().map_or(Ok(1), |top| top.image.target().map(|target| target.unit()))?;
    Ok(Written { bytes: count(&chain(&stack, None)?, layers, cx.drive)?, unit })
}

/// How many bytes the topmost layers of a chain have.
fn count(chain: &Chain<'_>, layers: u64, drive: &dyn Drive) -> Result<u64> {
    let mut walk = Walk::new(chain, drive, 0, chain.size());
    let mut bytes = 0u64;
    while let Some((len, found)) = walk.peek()? {
        let is_theirs = found.present && wide(found.depth) < layers;
        bytes = bytes.saturating_add(if is_theirs { len } else { 0 });
        walk.advance(len);
    }
    Ok(bytes)
}

/// The image below gets as long as the one above, if it is shorter.
fn lengthen(image: &Source, base: &Source, request: &Request, cx: &Cx<'_>) -> Result<()> {
    let rules = &request.copy.rules;
    let above = stack(cx, image, rules, &|_| Ok(()))?;
    let wanted = above.first().map_or(0, |top| top.told.virtual_size);
    let stack = stack_for(cx, base, rules, Purpose::Write, &|_| Ok(()))?;
    let Some((top, below)) = stack.split_first().filter(|(top, _)| top.told.virtual_size < wanted) else {
        return Ok(());
    };
    let below = chain(below, None)?;
    top.image.edit()?.resize(cx.drive, wanted, Preallocation::Off, &below).map(drop)
}
