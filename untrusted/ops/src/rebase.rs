//! `rebase`: an image stands on another one from now on, and reads as before.

use crate::convert;
use crate::cx::Cx;
use crate::open::{stack, stack_for};
use alloc::boxed::Box;
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
        let now = |source: &Source| Ok(source.as_it_is(cx.drive.length(source.file.id)?));
        let sources = copy.sources.iter().map(now).collect::<Result<_>>()?;
        let goal = Goal::There(Box::new(now(target)?));
        convert::copy(&Copy { sources, target: Target { goal, ..copy.target.clone() }, ..(**copy).clone() }, None, cx)?;
    }
    // What was written to it has changed its file.
    let cx = &cx.afresh();
    let target = target.as_it_is(cx.drive.length(target.file.id)?);
    let stack = stack_for(cx, &target, &copy.rules, Purpose::Write, &|_| Ok(()))?;
    let (top, below) = stack.split_first().ok_or_else(nothing)?;
    let footing = Footing {
        name: &request.name.0,
        format: request.format.as_ref().map(|format| &format.0[..]),
        below: below.first().map(|below| &below.told),
    };
    top.image.edit()?.stand_on(cx.drive, &footing)
}

/// Opens everything, and tells of it, before anything is changed.
fn look(request: &Request, image: &Source, target: &Source, cx: &Cx<'_>) -> Result<()> {
    let rules = &request.copy.rules;
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let layers = stack_for(cx, image, rules, Purpose::Write, &|step| tell(Event::Step(step)))?;
    if let Below::Instead(below) = &target.below {
        stack(cx, below, rules, &|step| tell(Event::Step(step)))?;
    }
    tell(Event::Ready(layers.first().map_or(0, |top| top.told.virtual_size)))
}
