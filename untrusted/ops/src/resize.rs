//! `resize`: an image gets longer or shorter where it stands.

use crate::cx::Cx;
use crate::open::{chain, stack_for};
use instar_image::{Kind, Preallocation, Purpose, Result};
use instar_wire::code::encode;
use instar_wire::op::resize::{Event, Request, Sizes, Space};

/// The largest disk: what is left of the range of offsets when gigabytes are counted.
const SIZE_MAX: u64 = i64::MAX.unsigned_abs() - ((1 << 30) - 1);

/// Changes the top layer; nothing is changed before everything below it has been opened.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let step = |step| tell(Event::Step(step));
    let stack = stack_for(cx, &request.source, &request.rules, Purpose::Write, &step)?;
    let top = stack.first().ok_or_else(|| Kind::Unsupported.what("there is no image"))?;
    let old = top.told.virtual_size;
    let new = request.amount.of(old);
    tell(Event::Ready(Sizes { old, new }))?;
    let size = new.ok_or_else(|| Kind::Unsupported.what("New image size must be positive"))?;
    if size > SIZE_MAX {
        return Err(Kind::TooBig.what("offset({}) exceeds maximum({})").arg(size).arg(SIZE_MAX));
    }
    if request.source.part.as_ref().is_some_and(|part| part.size.is_some()) {
        return Err(Kind::Unsupported.what("Cannot resize fixed-size raw disks"));
    }
    let space = match request.space {
        Space::Off => Preallocation::Off,
        Space::Metadata => Preallocation::Metadata,
        Space::Falloc => Preallocation::Falloc,
        Space::Full => Preallocation::Full,
    };
    let below = chain(stack.get(1..).unwrap_or_default(), None)?;
    let now = top.image.edit()?.resize(cx.drive, size, space, &below)?;
    tell(Event::Resized(now))
}
