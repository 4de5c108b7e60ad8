//! `rebase`: an image stands on another one from now on, and reads as before.

use crate::convert;
use crate::cx::Cx;
use crate::open::stack_for;
use instar_image::{Kind, Purpose, Result};
use instar_wire::code::encode;
use instar_wire::op::convert::{Event, Goal};
use instar_wire::op::rebase::Request;

/// Brings what will be missing into the image, and has it stand on the other one.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let copy = &request.copy;
    let tell = |event: Event| (cx.emit)(&encode(&event));
    if request.is_safe {
        convert::copy(copy, None, cx)?;
    }
    let Goal::There(source) = &copy.target.goal else { return Err(Kind::Unsupported.what("there is no image")) };
    let step = |step| if request.is_safe { Ok(()) } else { tell(Event::Step(step)) };
    // What was written to it has changed its file.
    let source = source.as_it_is(cx.drive.length(source.file.id)?);
    let stack = stack_for(cx, &source, &copy.rules, Purpose::Write, &step)?;
    let top = stack.first().ok_or_else(|| Kind::Unsupported.what("there is no image"))?;
    if !request.is_safe {
        tell(Event::Ready(top.told.virtual_size))?;
    }
    top.image.edit()?.stand_on(cx.drive, &request.name.0, request.format.as_ref().map(|format| &format.0[..]))
}
