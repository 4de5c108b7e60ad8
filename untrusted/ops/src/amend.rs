//! `amend`: an image gets other options of its format.

use crate::cx::Cx;
use crate::open::{Opened, chain, stack_for, stack_unrepaired};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use instar_image::edit::{Amended as How, Amendment};
use instar_image::{Fact, File, Granted, Image, Kind, Options, Preallocation, Purpose, Random, Recipe, Result};
use instar_wire::code::encode;
use instar_wire::op::amend::{Amended, Event, Progress, Request};

/// Work is told of when another part of it, of so many, has been done.
const PARTS: u64 = 100;

/// What is wished of an image of this format, if it can be changed at all and was not left as only a repair can make it
/// whole.
fn wished<'r>(request: &'r Request, top: &Opened<'_>) -> Result<&'r Recipe> {
    if top.image.must_be_repaired() {
        let words = "'{file}' was not closed properly: 'instar check -r all' repairs it";
        return Err(Kind::Refused.what(words).file(top.granted.id));
    }
    let name = top.format.name();
    let wish = request.wishes.iter().find(|wish| wish.format.0 == name.as_bytes());
    let words = "Format driver '{}' does not support option amendment";
    let wish = wish.ok_or_else(|| Kind::Unsupported.what(words).arg(name))?;
    top.image.edit().map(|_| wish)
}

/// Changes the top layer; nothing is changed before everything below it has been opened.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let step = |step| tell(Event::Step(step));
    let open = if request.rules.as_qemu { stack_for } else { stack_unrepaired };
    let stack = open(cx, &request.source, &request.rules, Purpose::Write, &step)?;
    let top = stack.first().ok_or_else(|| Kind::Unsupported.what("there is no image"))?;
    tell(Event::Ready)?;
    let wish = wished(request, top)?;
    tell(Event::Begun)?;
    let said = Cell::new(0);
    let progress = |done: u64, total: u64| {
        if done.saturating_sub(said.get()).saturating_mul(PARTS) <= total && done < total {
            return Ok(());
        }
        said.set(done);
        tell(Event::Progress(Progress { done, total }))
    };
    let amend = |image: &dyn Image, recipe: &Recipe| {
        let wish = Amendment {
            recipe,
            rules: &request.rules,
            is_forced: request.is_forced,
            new_secret: request.new_secret.as_ref(),
            old_secret: request.old_secret.as_ref(),
            random: RefCell::new(Random::new(&request.seed.0)),
            tell: &progress,
            warn: &|error| tell(Event::Warning(error)),
        };
        image.edit()?.amend(cx.drive, &wish)
    };
    if let Some(size) = wish.number("size").filter(|_| !request.rules.as_qemu)
        && (1..top.told.virtual_size).contains(&size)
    {
        let words = "the image would become shorter, and what is behind its new end would be lost: that is for \
                     resize --shrink";
        return Err(Kind::Refused.what(words));
    }
    let mut how = amend(&*top.image, wish)?;
    let is_changed = how != How::Not;
    if how == How::UpToSize {
        let below = chain(stack.get(1..).unwrap_or_default(), None)?;
        let size = wish.number("size").unwrap_or(top.told.virtual_size);
        let again = || again(top, Purpose::Write, request, cx);
        again()?.edit()?.resize(cx.drive, size, Preallocation::Off, &below)?;
        // What was asked of keys has been done.
        let rest = without(wish, b"encrypt.");
        how = amend(&*again()?, &rest)?;
        if how == How::UpToSize {
            return Err(Kind::Unsupported.what("the format cannot have this size"));
        }
    }
    let told = request.is_told.then(|| again(top, Purpose::Describe, request, cx)?.describe(false));
    // Whatever comes of that, the image has been changed.
    let specific = |name: &str| told.as_ref()?.as_ref().ok()?.specific.as_ref()?.get(name);
    tell(Event::Amended(Amended {
        is_changed,
        compat: match specific("compat") {
            Some(Fact::Text(text)) => Some(text.clone()),
            _ => None,
        },
        is_lazy: match specific("lazy-refcounts") {
            Some(Fact::Truth(is_lazy)) => Some(*is_lazy),
            _ => None,
        },
    }))
}

/// The image as it is now.
fn again<'a>(
    top: &Opened<'a>,
    purpose: Purpose,
    request: &Request,
    cx: &Cx<'a>,
) -> Result<alloc::boxed::Box<dyn Image + 'a>> {
    let length = cx.drive.length(top.granted.id)?;
    let granted = Granted { len: length, ..top.granted.clone() };
    let start = top.file.place(0).at;
    let is_fixed = request.source.part.as_ref().is_some_and(|part| part.size.is_some());
    let len = if is_fixed { top.file.len() } else { length.saturating_sub(start) };
    // What was read before may not be what is there now.
    let file = File::slice(cx.drive, top.granted.id, start, len);
    // The file beside it is open already.
    let child = top.told.children.iter().find(|child| child.name.0 == b"data-file");
    let data = child.map(|child| {
        let len = cx.drive.length(child.file)?;
        Ok(Granted { id: child.file, len, ..granted.clone() })
    });
    let options = Options {
        purpose,
        as_qemu: request.rules.as_qemu,
        version: request.rules.version,
        key: request.source.key.clone(),
        beside: data.transpose()?.or_else(|| request.source.beside.clone()),
        ..Options::default()
    };
    top.format.open(file, &options)
}

/// What is asked for, but for options whose names begin so.
fn without(wish: &Recipe, prefix: &[u8]) -> Recipe {
    let fields = match &wish.options {
        Fact::Fields(fields) => fields.iter().filter(|field| !field.name.0.starts_with(prefix)).cloned().collect(),
        _ => Vec::new(),
    };
    Recipe { options: Fact::Fields(fields), ..wish.clone() }
}
