//! `info`: opens an image, and with `chain` every image below it, and tells what they are.

use crate::cx::Cx;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_formats::{FORMATS, RAW};
use instar_image::probe::claims;
use instar_image::{Bytes, Error, Fact, File, Format, Granted, Kind, Options, Result, Role, info};
use instar_wire::code::encode;
use instar_wire::op::{Part, Rules};

/// Tells one image, or the whole chain.
pub fn run(request: &info::Request, cx: &Cx<'_>) -> Result<()> {
    let mut layer = request.top.file.clone();
    let mut options = Options {
        raw_offset: request.top.raw.offset,
        raw_size: request.top.raw.size,
        open_data_file: request.open_data_file,
        as_qemu: request.rules.as_qemu,
        version: request.rules.version,
        key: request.top.key.clone(),
        beside: request.top.beside.clone(),
    };
    let mut part = request.top.part.clone();
    loop {
        let below = tell(request, cx, &layer, part.take(), &options)?;
        match below {
            Some(granted) => layer = granted,
            None => return Ok(()),
        }
        options.raw_offset = None;
        options.raw_size = None;
        options.key = None;
        options.beside = None;
    }
}

/// Tells one layer; answers the layer below if the chain goes on.
fn tell(
    request: &info::Request,
    cx: &Cx<'_>,
    layer: &Granted,
    part: Option<Part>,
    options: &Options,
) -> Result<Option<Granted>> {
    let file = cx.file(layer, part)?;
    let format = cx.format_of(layer, &file, &request.rules)?;
    let image = format.open(file, options)?;
    let mut told = image.describe(request.extra)?;
    identify(&file, format, &mut told)?;
    if layer.pinned.is_none() && format.name() == RAW.name() {
        // What was only found to be raw is handled with care: by sectors, so that no header can be written into it.
        told.limits.request = 512;
    }
    let backing = told.backing.clone().filter(|_| request.chain);
    // Told before the chain is followed: who asks for a verdict on every reference wants to know who refers.
    (cx.emit)(&encode(&info::Event::Image(Box::new(told))))?;
    image.snapshots(&mut |some| (cx.emit)(&encode(&info::Event::Snapshots(some))))?;
    let Some(backing) = backing else { return Ok(None) };
    // A layer that cannot be had is told as the one at fault, not the one that names it.
    let mut granted = cx.io.related(layer.id, Role::Backing, &backing.name.0).map_err(|e| Error { file: None, ..e })?;
    heed_claim(cx, &request.rules, &mut granted, backing.format.as_ref())?;
    Ok(Some(granted))
}

/// A format name in an image is a claim: in qemu-img's ways it is obeyed, otherwise the bytes must bear it out.
fn heed_claim(cx: &Cx<'_>, rules: &Rules, granted: &mut Granted, claim: Option<&Bytes>) -> Result<()> {
    let Some(claim) = claim else { return Ok(()) };
    if rules.as_qemu {
        granted.pinned = Some(claim.clone());
        return Ok(());
    }
    let found = cx.format_of(granted, &File::new(cx.io, granted), rules)?;
    if found.name().as_bytes() == claim.0 {
        return Ok(());
    }
    Err(Kind::Refused
        .what("the overlay calls it '{}', its bytes say '{}'")
        .file(granted.id)
        .arg(claim.clone())
        .arg(found.name()))
}

/// Adds the finding every image has: whether its bytes could be taken for another format as well.
fn identify(file: &File<'_>, format: &dyn Format, told: &mut info::Image) -> Result<()> {
    let others: Vec<Fact> =
        claims(file, FORMATS)?.into_iter().filter(|name| *name != format.name()).map(Fact::from).collect();
    told.findings.push(info::Finding { check: "one-format".into(), ok: others.is_empty(), detail: others.into() });
    Ok(())
}
