//! `info`: opens an image, and with `chain` every image below it, and tells what they are.

use crate::cx::Cx;
use crate::open::{Descent, Opened};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_formats::{FORMATS, RAW};
use instar_image::probe::claims;
use instar_image::{Fact, Purpose, Result, info};
use instar_wire::code::encode;

/// Tells one image, or the whole chain.
pub fn run(request: &info::Request, cx: &Cx<'_>) -> Result<()> {
    let purpose = if request.open_data_file { Purpose::DescribeWhole } else { Purpose::Describe };
    let mut descent = Descent::new(cx, &request.top, &request.rules, purpose);
    loop {
        let mut layer = descent.open(request.extra)?;
        identify(&mut layer)?;
        if layer.granted.pinned.is_none() && layer.format.name() == RAW.name() {
            // What was only found to be raw is handled with care: by sectors, so that no header can be written into it.
            layer.told.limits.request = 512;
        }
        // Told before the chain is followed: who asks for a verdict on every reference wants to know who refers.
        (cx.emit)(&encode(&info::Event::Image(Box::new(layer.told.clone()))))?;
        layer.image.snapshots(&mut |some| (cx.emit)(&encode(&info::Event::Snapshots(some))))?;
        if !request.chain || layer.told.backing.is_none() || !descent.descend(&layer)? {
            return Ok(());
        }
    }
}

/// Adds the finding every image has: whether its bytes could be taken for another format as well.
fn identify(layer: &mut Opened<'_>) -> Result<()> {
    let names = claims(&layer.file, FORMATS)?.into_iter();
    let others: Vec<Fact> = names.filter(|name| *name != layer.format.name()).map(Fact::from).collect();
    let finding = info::Finding { check: "one-format".into(), ok: others.is_empty(), detail: others.into() };
    layer.told.findings.push(finding);
    Ok(())
}
