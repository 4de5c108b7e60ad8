//! `create`: lays out an image that holds nothing.

use crate::cx::Cx;
use crate::goal::lay_out;
use crate::open;
use instar_formats::{RAW, by_name};
use instar_image::{Fact, File, Options, Purpose, Recipe, Result};
use instar_wire::code::encode;
use instar_wire::fact::Field;
use instar_wire::op::create::{Event, Made, Request};
use instar_wire::op::{New, Rules, Source};

/// From this version on nobody needs a key to what is only stood on.
const KEYLESS: u32 = 600;

/// Makes it, and tells of it.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let Request { new, rules, .. } = request;
    let mut recipe = new.recipe.clone();
    let step = |step| tell(Event::Step(step));
    let reads = rules.as_qemu && rules.version < KEYLESS;
    let stack = match &new.backing {
        Some(source) if reads => open::stack(cx, &truthful(source, rules, cx)?, rules, &step)?,
        Some(source) => open::stack_for(cx, &truthful(source, rules, cx)?, rules, Purpose::Describe, &step)?,
        None => alloc::vec::Vec::new(),
    };
    let below = stack.first();
    if let Some(below) = below {
        record(&mut recipe, below.format.name());
        recipe.size = if request.as_below { below.told.virtual_size } else { recipe.size };
    }
    tell(Event::Ready(recipe.size))?;
    let written = lay_out(new, &recipe, below, rules, request.is_clean, cx)?;
    tell(Event::Made(Made { written, unit: unit(new, &recipe, rules, cx) }))
}

/// What the user named, as the format that its bytes show: a wrong name for it is not obeyed, unless in qemu-img's ways.
/// Raw is never wrong.
fn truthful(source: &Source, rules: &Rules, cx: &Cx<'_>) -> Result<Source> {
    let mut source = source.clone();
    let is_raw = source.file.pinned.as_ref().is_none_or(|name| name.0 == RAW.name().as_bytes());
    if rules.as_qemu || is_raw {
        return Ok(source);
    }
    let pinned = source.file.pinned.take();
    let file = cx.file(&source.file, source.part.clone())?;
    // What no format claims is for the named one to refuse.
    let found = cx.format_of(&source.file, &file, rules).ok().filter(|found| found.name() != RAW.name());
    source.file.pinned = found.map(|found| found.name().into()).or(pinned);
    Ok(source)
}

/// Has the image say what is below it, if it says anything of that: the format that was found.
fn record(recipe: &mut Recipe, found: &'static str) {
    let named = recipe.text("backing_fmt").map(<[u8]>::to_vec);
    let is_told = match &named {
        Some(named) => named == found.as_bytes(),
        None => found == RAW.name(),
    };
    let Fact::Fields(fields) = &mut recipe.options else { return };
    if is_told || !fields.iter().any(|field| field.name.0 == b"backing_file") {
        return;
    }
    fields.retain(|field| field.name.0 != b"backing_fmt");
    fields.push(Field { name: "backing_fmt".into(), value: found.into() });
}

/// What of the disk is given a place as one, as the image itself tells it.
fn unit(new: &New, recipe: &Recipe, rules: &Rules, cx: &Cx<'_>) -> Option<u64> {
    let file = instar_image::Granted { len: cx.drive.length(new.file.id).ok()?, ..new.file.clone() };
    let options =
        Options { purpose: Purpose::Describe, as_qemu: rules.as_qemu, version: rules.version, ..Options::default() };
    let image = by_name(&recipe.format.0)?.open(File::new(cx.io, &file), &options).ok()?;
    image.describe(false).ok()?.cluster_size
}
