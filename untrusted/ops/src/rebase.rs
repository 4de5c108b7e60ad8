//! `rebase`: an image stands on another one from now on, and reads as before.

use crate::convert;
use crate::cx::Cx;
use crate::open::{Opened, as_they_are, stack, stack_for};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::edit::Footing;
use instar_image::{Kind, Purpose, Result};
use instar_wire::code::encode;
use instar_wire::op::convert::{Event, Goal, Request as Copy, Target};
use instar_wire::op::rebase::Request;
use instar_wire::op::{Below, Source};

/// Brings what will be missing into the image, and has it stand on the other one.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let copy = &request.copy;
    let nothing = || Kind::Unsupported.what("there is no image");
    let (Some(image), Goal::There(target)) = (copy.sources.first(), &copy.target.goal) else { return Err(nothing()) };
    look(request, image, target, cx)?;
    if request.is_safe {
        // An image that was not closed has been repaired by now.
        let cx = &cx.afresh();
        let sources = copy.sources.iter().map(|source| as_they_are(source, cx)).collect::<Result<_>>()?;
        let goal = Goal::There(Box::new(as_they_are(target, cx)?));
        convert::copy(&Copy { sources, target: Target { goal, ..copy.target.clone() }, ..(**copy).clone() }, None, cx)?;
    }
    // What was written to it has changed its file.
    let cx = &cx.afresh();
    let target = as_they_are(target, cx)?;
    let stack = stack_for(cx, &target, &copy.rules, Purpose::Write, &|_| Ok(()))?;
    let (top, below) = stack.split_first().ok_or_else(nothing)?;
    stands(request, below, &mut |footing| top.image.edit()?.stand_on(cx.drive, footing))
}

/// What the image is to stand on, which is the first of these layers if it was looked at.
fn stands(request: &Request, below: &[Opened<'_>], act: &mut dyn FnMut(&Footing<'_>) -> Result<()>) -> Result<()> {
    // It may have to be named by what is otherwise of no interest.
    let told = below.first().map(|below| below.image.describe(true)).transpose()?;
    let format = request.format.as_ref().map(|format| &format.0[..]);
    act(&Footing { name: &request.name.0, format, below: told.as_ref() })
}

/// Opens everything, and tells of it, before anything is changed.
fn look(request: &Request, image: &Source, target: &Source, cx: &Cx<'_>) -> Result<()> {
    let rules = &request.copy.rules;
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let layers = stack_for(cx, image, rules, Purpose::Write, &|step| tell(Event::Step(step)))?;
    let below = match &target.below {
        Below::Instead(below) => stack(cx, below, rules, &|step| tell(Event::Step(step)))?,
        _ => Vec::new(),
    };
    tell(Event::Ready(layers.first().map_or(0, |top| top.told.virtual_size)))?;
    // What cannot be is said before anything is copied for it.
    let Some(top) = layers.first() else { return Ok(()) };
    stands(request, &below, &mut |footing| top.image.edit()?.may_stand_on(footing))
}
