//! `check`: takes the census of an image and tells what does not fit together.

use crate::cx::Cx;
use crate::open::{Opened, again, in_batches, stack_for};
use instar_image::{Image, Kind, Order, Purpose, Repair, Result, Scope, tally};
use instar_wire::code::encode;
use instar_wire::op::Rules;
use instar_wire::op::check::{Event, Request, Summary};

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
fn repaired<'a>(
    request: &Request,
    top: &Opened<'a>,
    scope: Scope,
    tell: &dyn Fn(Event) -> Result<()>,
    cx: &Cx<'a>,
) -> Result<()> {
    if top.image.censuses(scope).is_empty() {
        return tell(Event::Unchecked);
    }
    let order = Order { drive: cx.drive, extent: request.repair, scope };
    let summary =
        match in_batches(&|findings| tell(Event::Findings(findings)), &mut |report| top.image.repair(&order, report)) {
            Err(error) if error.kind == Kind::Unsupported && scope.as_qemu => return tell(Event::Unchecked),
            summary => summary?,
        };
    if !summary.fixed.is_any() {
        return tell(Event::Summary(summary));
    }
    tell(Event::Repaired(summary.fixed))?;
    let opened = again(cx, &request.top, &request.rules, Purpose::Repair, top)?;
    layer(&*opened.image, scope, tell)
}

fn layer(image: &dyn Image, scope: Scope, tell: &dyn Fn(Event) -> Result<()>) -> Result<()> {
    let censuses = image.censuses(scope);
    if censuses.is_empty() {
        return tell(Event::Unchecked);
    }
    let summary = in_batches(&|findings| tell(Event::Findings(findings)), &mut |report| {
        censuses.iter().try_fold(Summary::NONE, |all, census| Ok(all.and(tally::check(&**census, scope, report)?)))
    })?;
    tell(Event::Summary(summary))
}
