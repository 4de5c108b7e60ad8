//! `measure`: how large an image would be that holds what another one holds, or nothing yet.

use crate::cx::Cx;
use crate::map::each;
use crate::open::{Opened, chain, snapshot, stack};
use crate::rows::shut;
use alloc::vec::Vec;
use instar_formats::by_name;
use instar_image::measure::{Bitmap, Content, Input};
use instar_image::{Chain, Fact, Kind, Result};
use instar_wire::code::encode;
use instar_wire::op::Recipe;
use instar_wire::op::Rules;
use instar_wire::op::map::ZERO;
use instar_wire::op::measure::{Event, Measured, Request};

/// Measures the image that a recipe describes.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let recipe = &request.recipe;
    let Some(source) = &request.source else {
        tell(Event::Ready)?;
        return tell(Event::Measured(measure(recipe, &Content::nothing())?));
    };
    let stack = stack(cx, source, &request.rules, &|step| tell(Event::Step(step)))?;
    let chain = match &request.snapshot {
        None => {
            let chain = chain(&stack, None)?;
            tell(Event::Ready)?;
            chain
        }
        Some(pick) => {
            tell(Event::Ready)?;
            chain(&stack, Some(snapshot(&stack, pick)?))?
        }
    };
    let chain = shut(chain);
    let count = |unit: u64| {
        units(&chain, cx, unit).inspect_err(|_| {
            let _ = tell(Event::Stopped);
        })
    };
    let content = Content { input: Some(Input { bitmaps: bitmaps(&stack, &request.rules), count: &count }) };
    let recipe = Recipe { size: chain.size(), ..recipe.clone() };
    tell(Event::Measured(measure(&recipe, &content)?))
}

fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let unknown = || Kind::Unsupported.what("Unknown file format '{}'").arg(recipe.format.clone());
    by_name(&recipe.format.0).ok_or_else(unknown)?.measure(recipe, content)
}

/// How many units of this length hold data.
fn units(chain: &Chain<'static>, cx: &Cx<'_>, unit: u64) -> Result<u64> {
    let (mut at, mut count, mut counted) = (0u64, 0u64, 0u64);
    each(chain, cx.drive, 0, chain.size(), &mut |row| {
        let end = at.saturating_add(row.len);
        if !row.is(ZERO) {
            // Units below `counted` have been counted; the first of this row may be among them.
            let first = at.checked_div(unit).unwrap_or(0).max(counted);
            let last = end.div_ceil(unit.max(1));
            count = count.saturating_add(last.saturating_sub(first));
            counted = last.max(counted);
        }
        at = end;
        Ok(true)
    })?;
    Ok(count)
}

/// From this version on qemu-img knows bitmaps in Parallels images.
const PARALLELS_BITMAPS: u32 = 802;

/// The bitmaps of an image, where its format and version can have any.
fn bitmaps(stack: &[Opened<'_>], rules: &Rules) -> Option<Vec<Bitmap>> {
    let top = stack.first()?;
    if top.format.name() == "parallels" {
        return (rules.version == 0 || rules.version >= PARALLELS_BITMAPS).then(Vec::new);
    }
    let specific = top.told.specific.as_ref()?;
    if top.format.name() != "qcow2" || specific.get("compat") != Some(&"1.1".into()) {
        return None;
    }
    let Some(Fact::List(list)) = specific.get("bitmaps") else { return Some(Vec::new()) };
    let bitmap = |fact: &Fact| match (fact.get("name")?, fact.get("granularity")?) {
        (Fact::Text(name), Fact::Count(granularity)) => {
            Some(Bitmap { name_len: name.0.len() as u64, granularity: *granularity })
        }
        _ => None,
    };
    Some(list.iter().filter_map(bitmap).collect())
}
