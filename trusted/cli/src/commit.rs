//! `commit`: what an image has goes into one below it.

use crate::args::Parsed;
use crate::asking::{Asking, Heard};
use crate::opening::{self, Opened, READ_ONLY};
use crate::render::json;
use crate::render::progress::Progress;
use crate::settings::{Face, Settings};
use crate::setup::mishap_words;
use crate::transfer::{Failed, Transfer};
use crate::{Told, setup, stderr_text};
use instar_broker::Session;
use instar_wire::error::Error;
use instar_wire::fact::Fact;
use instar_wire::io::FileId;
use instar_wire::op;
use instar_wire::op::commit::Request;
use instar_wire::op::convert::{Bitmaps, Goal, Progress as Counted, Request as Copy, Share, Target};
use instar_wire::op::{Below, Layer, Source};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The formats whose images qemu-img empties when what they had is below them, and those that we do.
const EMPTIED: &[&[u8]] = &[b"qcow2", b"qcow"];
const EMPTIED_BY_US: &[&[u8]] = &[b"qcow2", b"qcow", b"qed", b"vmdk", b"vpc", b"vhdx"];
/// The formats whose images qemu-img can make longer.
const GROWN: &[&[u8]] = &[b"raw", b"qcow2", b"qed", b"luks"];
/// Runs of zeroes of this length are looked for.
const SPARSE: u32 = 4096;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, true);
    session.write_early();
    if setup::cache_is_direct(parsed, "cache", settings)? {
        session.read_directly();
    }
    if let Some(rate) = parsed.number("rate-limit") {
        session.limit_rate(rate);
    }
    let images = [opening::open_to_change(parsed, 0, &mut session, settings)?];
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let mut progress = Progress::new(parsed.has("progress") && !parsed.has("quiet"));
    let (chain, wall) = look(&asking, &mut progress)?;
    let notes = [asking.notes(&chain.heard, &wall), asking.guessed(&chain.heard)].concat();
    progress.begin(0);
    let told = commit(&asking, &chain, &mut progress);
    progress.end(told.is_ok());
    match told {
        Ok(stdout) => Ok(Told { stdout, stderr: notes, ..Told::default() }),
        Err(told) => Err(told.after(&notes)),
    }
}

/// Opens all of the chain.
fn look(asking: &Asking<'_>, progress: &mut Progress) -> Result<(Transfer, Vec<u8>), Told> {
    let mut chain = Transfer::default();
    let image = asking.images[0].content();
    let request = request(asking.settings, image.clone(), image, 0, Wish { looks: true, ..Wish::default() });
    let mut judge = |heard: &Heard| asking.refuse_change(heard);
    match chain.run(asking, &request, &mut judge, progress) {
        Ok(wall) => Ok((chain, wall)),
        Err(failed) => {
            let told = match failed {
                Failed::Told(told) => told,
                Failed::Opening(error) | Failed::Later(error) => asking.refused(&chain.heard, &error),
            };
            let notes = [asking.notes(&chain.heard, b""), asking.guessed(&chain.heard)].concat();
            Err(told.after(&notes))
        }
    }
}

/// What is wanted of the worker beside the copy.
#[derive(Clone, Copy, Default)]
struct Wish {
    empties: bool,
    looks: bool,
    counts: bool,
}

/// What the topmost layers of an image have is to go into another one.
fn request(settings: &Settings, image: Source, base: Source, layers: usize, wish: Wish) -> op::Request {
    let copy = Copy {
        sources: vec![image],
        rules: setup::rules(settings),
        snapshot: None,
        share: Share::Above(u64::try_from(layers).unwrap_or(u64::MAX)),
        target: Target {
            goal: Goal::There(Box::new(base)),
            at: 0,
            len: None,
            is_zero: false,
            is_clean: true,
            compress: false,
        },
        sparse: SPARSE,
        salvage: false,
        offload: false,
        bitmaps: Bitmaps::None,
        progress: if wish.counts { Counted::Moved } else { Counted::Passed },
    };
    op::Request::Commit(Request { copy: Box::new(copy), empties: wish.empties, looks: wish.looks })
}

fn commit(asking: &Asking<'_>, chain: &Transfer, progress: &mut Progress) -> Result<Vec<u8>, Told> {
    let Asking { session, images, parsed, settings } = asking;
    let say = |sentence: &[u8]| Told::failure(settings, sentence);
    let layers = chain.heard.images.first().map(Vec::as_slice).unwrap_or_default();
    let depth = match parsed.bytes("base") {
        None => Some(1).filter(|_| layers.len() > 1).ok_or_else(|| say(b"Image does not have a backing file"))?,
        Some(name) => find(session, layers, name).ok_or_else(|| {
            let text = stderr_text(settings);
            let image = text.show(&images[0].typed).into_owned();
            say(&[b"Did not find '", &text.show(name)[..], b"' in the backing chain of '", &image, b"'"].concat())
        })?,
    };
    let (base, format) = (layers[depth].file, &layers[depth].format.0[..]);
    let grows = layers[depth].virtual_size < layers[0].virtual_size;
    if grows && settings.face == Face::Qemu && !GROWN.contains(&format) {
        return Err(say(b"Block job failed: Operation not supported"));
    }
    if READ_ONLY.contains(&format) {
        return Err(say(b"Block node is read-only"));
    }
    session.promote(base).map_err(|mishap| {
        let words = mishap_words(&mishap, settings, stderr_text(settings));
        let name = stderr_text(settings).show(&session.name(base)).into_owned();
        say(&[b"Could not open '", &name[..], b"': ", &words].concat())
    })?;
    let (image, base) = sources(&images[0], session, layers, depth);
    let formats = if settings.face == Face::Native { EMPTIED_BY_US } else { EMPTIED };
    let keeps = parsed.has("drop") || parsed.has("base") || !formats.contains(&chain.format(0));
    let is_json = parsed.bytes("output") == Some(b"json");
    let wish = Wish { empties: !keeps, looks: false, counts: progress.is_shown() || is_json };
    let mut transfer = Transfer::default();
    let request = request(settings, image, base, depth, wish);
    let ended = transfer.run(asking, &request, &mut |heard| asking.refuse_users(heard), progress);
    if let Err(failed) = ended {
        return Err(match failed {
            Failed::Told(told) => told,
            Failed::Opening(error) | Failed::Later(error) => not_done(asking, &chain.heard, &transfer, &error),
        });
    }
    progress.complete();
    let page = match (is_json, parsed.has("quiet")) {
        (true, _) => json::pretty(&facts(asking, chain, &transfer, depth)),
        (false, true) => Vec::new(),
        (false, false) => b"Image committed.\n".to_vec(),
    };
    Ok(page)
}

/// Which layer a name means: its path, from where the user is or from where it is named.
fn find(session: &Session, layers: &[Layer], name: &[u8]) -> Option<usize> {
    let real = |name: &[u8]| Path::new(OsStr::from_bytes(name)).canonicalize().ok();
    let is_it = |from: FileId, file: FileId| {
        let meant = session.name_beside(from, name);
        meant == session.name(file) || same(real(&meant), real(&session.name(file)))
    };
    layers.windows(2).position(|pair| is_it(pair[0].file, pair[1].file)).map(|at| at + 1)
}

fn same(one: Option<PathBuf>, other: Option<PathBuf>) -> bool {
    one.is_some() && one == other
}

/// The image with all below it as it was opened, and the layer of it that is written to.
fn sources(image: &Opened, session: &Session, layers: &[Layer], depth: usize) -> (Source, Source) {
    let top = image.content();
    let mut said = vec![top.clone()];
    // What the user says of the layers below is said of them still.
    for layer in layers.iter().take(depth + 1).skip(1) {
        let before = said.last().map(|source| source.below.clone()).unwrap_or(Below::None);
        let granted = session.granted(layer.file);
        let file = granted.unwrap_or_else(|| top.file.clone());
        let plain = Source { below: Below::AsStored, ..Source::whole(file.clone()) };
        let mut source = match before {
            Below::Instead(own) => Source { file: file.clone(), ..*own },
            Below::Over(over) => Source { raw: over.raw, key: over.key, below: over.below, ..plain },
            Below::AsStored | Below::None => plain,
        };
        source.file.pinned = Some(layer.format.clone());
        said.push(source);
    }
    let base = said.last().cloned().unwrap_or(top);
    let whole =
        said.into_iter().rev().reduce(|below, above| Source { below: Below::Instead(Box::new(below)), ..above });
    (whole.unwrap_or_else(|| base.clone()), base)
}

/// What is said of a copy that went wrong.
fn not_done(asking: &Asking<'_>, heard: &Heard, transfer: &Transfer, error: &Error) -> Told {
    let error = transfer.stopped.as_ref().map_or(error, |trouble| &trouble.error);
    let words = asking.input_output(heard, error);
    Told::failure(asking.settings, &words).after(&asking.finding(heard, error))
}

/// The native answer in JSON.
fn facts(asking: &Asking<'_>, chain: &Transfer, transfer: &Transfer, depth: usize) -> Fact {
    let layers = chain.heard.images.first().map(Vec::as_slice).unwrap_or_default();
    let (bytes, unit) = transfer.written;
    Fact::fields([
        ("overlay", asking.images[0].typed[..].into()),
        ("overlay_format", chain.format(0).into()),
        ("backing", layers.get(depth).map(|layer| asking.session.name(layer.file)).unwrap_or_default()[..].into()),
        ("backing_format", chain.format(depth).into()),
        ("clusters_committed", bytes.div_ceil(unit.max(1)).into()),
        ("bytes_committed", bytes.into()),
        ("overlay_clusters_cleared", transfer.emptied.into()),
    ])
}
