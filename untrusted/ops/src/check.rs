//! `check`: takes the census of an image and tells what does not fit together.

use crate::cx::Cx;
use crate::open::{Descent, Opened, stack_for};
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_image::{Image, Kind, Order, Purpose, Repair, Report, Result, Scope, tally};
use instar_wire::code::encode;
use instar_wire::op::Rules;
use instar_wire::op::check::{Event, Finding, Request, Summary};

/// Findings that are told at once.
const BATCH: usize = 256;

/// Checks the top layer, or all of them; the top layer may be repaired, and is then checked once more.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let purpose = if request.repair == Repair::None { Purpose::Check } else { Purpose::Repair };
    let stack = stack_for(cx, &request.top, &request.rules, purpose, &|step| tell(Event::Step(step)))?;
    tell(Event::Ready)?;
    let wanted = if request.chain { stack.len() } else { 1 };
    let Rules { as_qemu, version } = request.rules;
    let scope = Scope { as_qemu, version };
    let mut layers = stack.iter().take(wanted);
    if request.repair != Repair::None
        && let Some(top) = layers.next()
    {
        repaired(request, top, scope, &tell, cx)?;
    }
    layers.try_for_each(|opened| layer(&*opened.image, scope, &tell))
}

/// Repairs a layer, and looks at what has become of it.
fn repaired(
    request: &Request,
    top: &Opened<'_>,
    scope: Scope,
    tell: &dyn Fn(Event) -> Result<()>,
    cx: &Cx<'_>,
) -> Result<()> {
    let order = Order { drive: cx.drive, extent: request.repair, scope };
    let summary = match told(tell, &mut |report| top.image.repair(&order, report)) {
        Err(error) if error.kind == Kind::Unsupported && scope.as_qemu => return tell(Event::Unchecked),
        summary => summary?,
    };
    if !summary.fixed.is_any() {
        return tell(Event::Summary(summary));
    }
    tell(Event::Repaired(summary.fixed))?;
    // What was read before the repair is not to be relied on.
    let now = Cx { io: cx.drive, ..*cx };
    let mut source = request.top.clone();
    source.file.len = cx.drive.length(source.file.id)?;
    let opened = Descent::new(&now, &source, &request.rules, Purpose::Repair).open(false)?;
    layer(&*opened.image, scope, tell)
}

fn layer(image: &dyn Image, scope: Scope, tell: &dyn Fn(Event) -> Result<()>) -> Result<()> {
    let censuses = image.censuses(scope);
    if censuses.is_empty() {
        return tell(Event::Unchecked);
    }
    let summary = told(tell, &mut |report| {
        censuses.iter().try_fold(Summary::NONE, |all, census| Ok(all.and(tally::check(&**census, scope, report)?)))
    })?;
    tell(Event::Summary(summary))
}

/// Tells what is found, some at once.
fn told(
    tell: &dyn Fn(Event) -> Result<()>,
    search: &mut dyn FnMut(Report<'_>) -> Result<Summary>,
) -> Result<Summary> {
    let batch: RefCell<Vec<Finding>> = RefCell::default();
    let ended = search(&mut |finding| {
        batch.borrow_mut().push(finding);
        let is_full = batch.borrow().len() >= BATCH;
        if is_full { tell(Event::Findings(batch.take())) } else { Ok(()) }
    });
    // What was found before it could not go on is told as well.
    let rest = batch.take();
    if !rest.is_empty() {
        tell(Event::Findings(rest))?;
    }
    ended
}
