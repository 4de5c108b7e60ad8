//! `snapshot`: lists what an image has.

use crate::cx::Cx;
use crate::open::stack;
use instar_image::Result;
use instar_wire::code::encode;
use instar_wire::op::snapshot::{Event, Request};

/// Tells the snapshots of the top layer.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let stack = stack(cx, &request.source, &request.rules, &|step| tell(Event::Step(step)))?;
    match stack.first() {
        Some(top) => top.image.snapshots(&mut |some| tell(Event::Snapshots(some))),
        None => Ok(()),
    }
}
