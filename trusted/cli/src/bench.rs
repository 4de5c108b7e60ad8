//! `bench`: measures the speed of requests to an image.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening::{self, Opened};
use crate::render::json;
use crate::settings::{Face, Settings};
use crate::{Told, setup, stderr_text};
use instar_broker::Session;
use instar_wire::code::{Malformed, decode};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::bench::{Event, Request, Write as Writing};
use std::io::Write;
use std::time::Instant;

/// Requests, if nothing is said.
const COUNT: u64 = 75_000;
/// At once.
const DEPTH: u64 = 64;
/// Bytes of each.
const SIZE: u64 = 4096;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let writes = parsed.has("write");
    let mut session = setup::session(settings, !parsed.has("force-share"));
    let images = [open(parsed, &mut session, settings)?];
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let request = request(parsed, settings, &images[0]);
    let lanes = usize::try_from(request.depth).unwrap_or(usize::MAX);
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(lanes))?;
    let is_json = parsed.bytes("output") == Some(b"json");
    let (mut heard, mut started, mut refused, mut made, mut failed) = (Heard::default(), None, None, None, false);
    let mut hear = |event: &[u8]| {
        match decode(event)? {
            Event::Step(step) => heard.step(step),
            Event::Ready => {
                heard.is_complete = true;
                refused = match writes {
                    true => asking.refuse_change(&heard),
                    false => asking.refuse_users(&heard).and_then(|()| asking.check_known(&heard)),
                }
                .err();
            }
            Event::Begins => {
                if !is_json {
                    // Said before the work, as it may take long.
                    let _ = std::io::stdout().write_all(beginning(&request).as_bytes());
                }
                started = Some(Instant::now());
            }
            Event::Made(flushes) => made = Some((started.map(|started| started.elapsed()), flushes)),
            Event::Failed => failed = true,
        }
        // There is no other way to have the worker stop.
        if refused.is_some() { Err(Malformed) } else { Ok(()) }
    };
    let ended = asking.run(cell, &op::Request::Bench(request.clone()), u64::MAX, &mut hear);
    let (elapsed, flushes) = made.unwrap_or_default();
    let seconds = elapsed.map_or(0.0, |elapsed| elapsed.as_secs_f64());
    let mut notes = asking.notes(&heard, &wall);
    if writes {
        notes.extend(asking.guessed(&heard));
    }
    let fail = |told: Told| told.after(&notes);
    match (refused, ended) {
        (Some(told), _) | (None, Err(End::Fell(told))) => return Err(fail(told)),
        (None, Err(End::Failed(error))) if failed => {
            return Err(fail(not_made(&asking, &heard, &error)));
        }
        (None, Err(End::Failed(error))) => return Err(fail(asking.refused(&heard, &error))),
        (None, Ok(())) => {}
    }
    let stdout = match is_json {
        true => json::pretty(&facts(&request, &images[0].typed, &heard, (seconds, flushes))),
        false => format!("Run completed in {seconds:.3} seconds.\n").into_bytes(),
    };
    Ok(Told { stdout, stderr: notes, ..Told::default() })
}

/// Opens the image, or tells why not.
fn open(parsed: &Parsed, session: &mut Session, settings: &Settings) -> Result<Opened, Told> {
    let refuse = |why: &[u8]| {
        let name = stderr_text(settings).show(parsed.named(0, "format").name).into_owned();
        Told::failure(settings, &[b"Could not open '", &name[..], b"': ", why].concat())
    };
    session.read_content();
    if setup::cache_is_direct(parsed, "cache", settings)? {
        session.read_directly();
    }
    let wants_direct = parsed.has("native") || parsed.bytes("aio") == Some(b"native");
    if wants_direct && !session.reads_directly() {
        return Err(refuse(b"aio=native was specified, but it requires cache.direct=on, which was not specified."));
    }
    match (parsed.has("write"), parsed.has("force-share")) {
        (true, true) => Err(refuse(b"force-share=on can only be used with read-only images")),
        (true, false) => opening::open_to_change(parsed, 0, session, settings),
        (false, _) => opening::open(parsed, 0, session, settings),
    }
}

fn request(parsed: &Parsed, settings: &Settings, image: &Opened) -> Request {
    let size = parsed.number("buffer-size").unwrap_or(SIZE);
    Request {
        source: image.content(),
        rules: setup::rules(settings),
        count: parsed.number("count").unwrap_or(COUNT),
        depth: parsed.number("depth").unwrap_or(DEPTH),
        offset: parsed.number("offset").unwrap_or(0),
        size,
        step: parsed.number("step-size").filter(|step| *step > 0).unwrap_or(size),
        inside: settings.profile.bench_stays_inside(),
        write: parsed.has("write").then(|| write(parsed)),
    }
}

/// What is said of a request that went wrong.
fn not_made(asking: &Asking<'_>, heard: &Heard, error: &Error) -> Told {
    let settings = asking.settings;
    let is_plain = settings.face == Face::Qemu && error.cause.is_none() && error.file.is_some();
    let words = match &error.kind {
        Kind::Unsupported if is_plain => b"Invalid argument".to_vec(),
        _ => asking.input_output(heard, error),
    };
    let told = Told::failure(settings, &[b"Failed request: ", &words[..]].concat());
    let told = told.after(&asking.finding(heard, error));
    match &error.kind {
        // It has a line of its own for what went wrong in some formats.
        Kind::Io if is_plain => told.after(&Told::failure(settings, &asking.words(error)).stderr),
        _ => told,
    }
}

fn beginning(request: &Request) -> String {
    let Request { count, depth, offset, size, step, write, .. } = request;
    let what = if write.is_some() { "write" } else { "read" };
    let sending = format!(
        "Sending {count} {what} requests, {size} bytes each, {depth} in parallel (starting at offset {offset}, step \
         size {step})\n"
    );
    match write.as_ref().filter(|write| write.interval > 0) {
        Some(Writing { interval, .. }) => format!("{sending}Sending flush every {interval} requests\n"),
        None => sending,
    }
}

/// How requests write.
fn write(parsed: &Parsed) -> Writing {
    let mode = parsed.bytes("cache").unwrap_or_default();
    Writing {
        pattern: parsed.number("pattern").and_then(|byte| u8::try_from(byte).ok()).unwrap_or(0),
        interval: parsed.number("flush-interval").unwrap_or(0),
        drains: !parsed.has("no-drain"),
        through: [&b"writethrough"[..], b"directsync"].contains(&mode),
        careless: mode == b"unsafe",
    }
}

/// The native answer in JSON.
fn facts(request: &Request, name: &[u8], heard: &Heard, (seconds, flushes): (f64, u64)) -> Fact {
    let write = request.write.as_ref();
    let format = heard.images.first().and_then(|layers| layers.first()).map(|layer| layer.format.clone());
    let each = |amount: u64| if seconds > 0.0 { (amount as f64 / seconds) as u64 } else { 0 };
    Fact::fields([
        ("filename", name.into()),
        ("format", format.unwrap_or_default().into()),
        ("count", request.count.into()),
        ("depth", request.depth.into()),
        ("buffer-size", request.size.into()),
        ("step-size", request.step.into()),
        ("offset", request.offset.into()),
        ("write", write.is_some().into()),
        ("pattern", write.map_or(0, |write| u64::from(write.pattern)).into()),
        ("flush-interval", write.map_or(0, |write| write.interval).into()),
        ("flushes-issued", flushes.into()),
        ("elapsed-seconds", Fact::Millionths((seconds * 1e6) as u64)),
        ("requests-per-second", each(request.count).into()),
        ("bytes-per-second", each(request.count.saturating_mul(request.size)).into()),
    ])
}
