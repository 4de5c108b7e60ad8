//! `commit`: what an image has goes into one below it.

use crate::convert;
use crate::cx::Cx;
use crate::open::{chain, stack_for};
use instar_image::{Below, Chain, Kind, Preallocation, Purpose, Result};
use instar_wire::op::Source;
use instar_wire::op::commit::Request;
use instar_wire::op::convert::Goal;

/// Makes room below, copies, and leaves the image empty if that is wanted.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let copy = &request.copy;
    let nothing = || Kind::Unsupported.what("there is no image");
    let (Some(source), Goal::There(base)) = (copy.sources.first(), &copy.target.goal) else { return Err(nothing()) };
    lengthen(source, base, request, cx)?;
    convert::copy(copy, None, cx)?;
    if !request.empties {
        return Ok(());
    }
    let stack = stack_for(cx, source, &copy.rules, Purpose::Write, &|_| Ok(()))?;
    stack.first().ok_or_else(nothing)?.image.edit()?.empty(cx.drive)
}

/// The image below gets as long as the one above, if it is shorter.
fn lengthen(source: &Source, base: &Source, request: &Request, cx: &Cx<'_>) -> Result<()> {
    let rules = &request.copy.rules;
    let size = |source: &Source, purpose: Purpose| {
        let stack = stack_for(cx, source, rules, purpose, &|_| Ok(()))?;
        stack.first().map(|top| top.told.virtual_size).ok_or_else(|| Kind::Unsupported.what("there is no image"))
    };
    let wanted = size(source, Purpose::Read)?;
    let stack = stack_for(cx, base, rules, Purpose::Write, &|_| Ok(()))?;
    let Some(top) = stack.first().filter(|top| top.told.virtual_size < wanted) else { return Ok(()) };
    let below: Chain<'_> = chain(stack.get(1..).unwrap_or_default(), None)?;
    top.image.edit()?.resize(cx.drive, wanted, Preallocation::Off, &Below::new(&below)).map(drop)
}
