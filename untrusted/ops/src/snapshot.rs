//! `snapshot`: lists what an image has, takes one more, applies or deletes one.

use crate::cx::Cx;
use crate::open::{stack, stack_for};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::edit::NewSnapshot;
use instar_image::info::Snapshot;
use instar_image::{Edit, Image, Kind, Purpose, Result};
use instar_wire::code::encode;
use instar_wire::op::snapshot::{Action, Event, Request};

/// Does what is asked of the top layer.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let step = |step| tell(Event::Step(step));
    let stack = match request.action {
        Action::List => stack(cx, &request.source, &request.rules, &step)?,
        _ => stack_for(cx, &request.source, &request.rules, Purpose::Write, &step)?,
    };
    let Some(top) = stack.first() else { return Ok(()) };
    if request.action != Action::List {
        tell(Event::Ready)?;
    }
    let image = &*top.image;
    let drive = cx.drive;
    match &request.action {
        Action::List => image.snapshots(&mut |some| tell(Event::Snapshots(some))),
        Action::Take(new) => {
            let new = NewSnapshot { name: &new.name.0, date_sec: new.date_sec, date_nsec: new.date_nsec };
            changeable(image, "Operation not supported")?.take_snapshot(drive, &new)
        }
        Action::Apply(pick) => {
            let mut edit = changeable(image, "Block driver does not support snapshots")?;
            if image.bitmaps().is_some_and(|bitmaps| !bitmaps.is_empty()) {
                return Err(Kind::Unsupported.what("Device has active dirty bitmaps"));
            }
            let all = all(image)?;
            let by_id = all.iter().position(|one| one.id == *pick);
            let found = by_id.or_else(|| all.iter().position(|one| one.name == *pick));
            let is_split = top.told.children.iter().any(|child| child.name.0 == b"data-file");
            let missing = || match is_split {
                true => Kind::Unsupported.what("Failed to load snapshot: Operation not supported"),
                false => Kind::Unsupported.what("Failed to load snapshot: No such file or directory"),
            };
            edit.apply_snapshot(drive, found.ok_or_else(missing)?)
        }
        Action::Delete(name) => {
            let found = all(image)?.iter().position(|one| one.name == *name);
            let missing = || Kind::Unsupported.what("snapshot not found");
            let number = found.ok_or_else(missing)?;
            image.edit()?.delete_snapshot(drive, number)
        }
    }
}

/// What changes an image that can have snapshots; `words` say that it cannot.
fn changeable<'i>(image: &'i dyn Image, words: &'static str) -> Result<Box<dyn Edit + 'i>> {
    if image.can_have_snapshots() { image.edit() } else { Err(Kind::Unsupported.what(words)) }
}

fn all(image: &dyn Image) -> Result<Vec<Snapshot>> {
    let mut all = Vec::new();
    image.snapshots(&mut |some| {
        all.extend(some);
        Ok(())
    })?;
    Ok(all)
}
