//! `check`: takes the census of an image and tells what does not fit together.

use crate::cx::Cx;
use crate::open::{Opened, stack_for};
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_image::{Purpose, Result, Scope, tally};
use instar_wire::code::encode;
use instar_wire::op::Rules;
use instar_wire::op::check::{Event, Finding, Request, Summary};

/// Findings that are told at once.
const BATCH: usize = 256;

/// Checks the top layer, or all of them.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let stack = stack_for(cx, &request.top, &request.rules, Purpose::Check, &|step| tell(Event::Step(step)))?;
    tell(Event::Ready)?;
    let wanted = if request.chain { stack.len() } else { 1 };
    let Rules { as_qemu, version } = request.rules;
    let scope = Scope { as_qemu, version };
    stack.iter().take(wanted).try_for_each(|opened| layer(opened, scope, &tell))
}

fn layer(opened: &Opened<'_>, scope: Scope, tell: &dyn Fn(Event) -> Result<()>) -> Result<()> {
    let censuses = opened.image.censuses(scope);
    if censuses.is_empty() {
        return tell(Event::Unchecked);
    }
    let batch: RefCell<Vec<Finding>> = RefCell::default();
    let mut report = |finding| {
        batch.borrow_mut().push(finding);
        let is_full = batch.borrow().len() >= BATCH;
        if is_full { tell(Event::Findings(batch.take())) } else { Ok(()) }
    };
    let ended = censuses
        .iter()
        .try_fold(Summary::NONE, |all, census| Ok(all.and(tally::check(&**census, scope, &mut report)?)));
    // What was found before it could not go on is told as well.
    let rest = batch.take();
    if !rest.is_empty() {
        tell(Event::Findings(rest))?;
    }
    tell(Event::Summary(ended?))
}
