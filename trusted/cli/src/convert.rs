//! `convert`: copies images into a new one, or over one that exists.

use crate::Told;
use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::making::Making;
use crate::opening::{self, Opened};
use crate::render::progress::Progress;
use crate::settings::Settings;
use crate::setup;
use instar_wire::code::decode;
use instar_wire::op;
use instar_wire::op::convert::{Event, Request, Trouble};
use std::os::unix::ffi::OsStrExt;

/// Runs of zeroes of this length are left out, if nothing else is asked for.
const SPARSE: u64 = 4096;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, !parsed.has("force-share"));
    session.read_content();
    if setup::cache_is_direct(parsed, "source-cache", settings)? {
        session.read_directly();
    }
    if let Some(rate) = parsed.number("rate-limit") {
        session.limit_rate(rate);
    }
    let count = parsed.words.len().saturating_sub(1);
    if count > 1 && parsed.has("snapshot") {
        return Err(Told::failure(settings, b"No support for concatenating multiple snapshot"));
    }
    let open = |at| opening::open_as(parsed, &parsed.named(at, "source-format"), &mut session, settings);
    let images: Vec<Opened> = (0..count).map(open).collect::<Result<_, Told>>()?;
    let name = parsed.words.get(count).map(|word| word.as_bytes()).unwrap_or_default();
    let mut making = Making::new(name, parsed, &session, settings);
    let sparse = parsed.number("sparse-size").unwrap_or(SPARSE);
    let request = Request {
        sources: images.iter().map(Opened::content).collect(),
        rules: setup::rules(settings),
        snapshot: parsed.bytes("snapshot").map(setup::pick),
        window: None,
        target: making.request(),
        sparse: u32::try_from(sparse).unwrap_or(u32::MAX),
        salvage: parsed.has("salvage"),
        offload: parsed.has("copy-range-offloading"),
        progress: true,
    };
    let mut progress = Progress::new(parsed.has("progress") && !parsed.has("quiet"));
    let copying = Copying(Asking { session: &session, images: &images, parsed, settings });
    let told = copying.run(request, &mut making, &mut progress)?;
    making.publish()?;
    progress.end();
    Ok(told)
}

/// A copy of what these images hold.
pub struct Copying<'a>(pub Asking<'a>);

/// What has been heard of it.
#[derive(Default)]
struct Ear {
    heard: Heard,
    stopped: Option<u64>,
    salvaged: Vec<Trouble>,
    /// Why the target could not be made.
    unmade: Option<Told>,
}

impl Copying<'_> {
    /// Has the worker copy.
    pub fn run(&self, request: Request, making: &mut Making<'_>, progress: &mut Progress) -> Result<Told, Told> {
        let Asking { session, parsed, settings, .. } = self.0;
        let lanes = parsed.number("parallel").and_then(|n| usize::try_from(n).ok());
        let (cell, notes) = setup::moving_cell(parsed, settings, lanes)?;
        let mut ear = Ear::default();
        let mut hear = |event: &[u8]| {
            match decode(event)? {
                Event::Step(step) => ear.heard.step(step),
                Event::Ready(total) => {
                    ear.heard.is_complete = true;
                    // A file in use by others must not be copied, and nothing of the target be touched before that.
                    let checked = self.0.refuse_users(&ear.heard);
                    let checked = checked.and_then(|()| self.check_known());
                    ear.unmade = checked.and_then(|()| making.make(session, total)).err();
                    progress.begin(total);
                }
                Event::Done(bytes) => progress.advance(bytes),
                Event::Salvaged(trouble) => ear.salvaged.push(trouble),
                Event::Stopped(at) => ear.stopped = Some(ear.stopped.map_or(at, |before| before.min(at))),
            }
            Ok(())
        };
        let ended = self.0.run(cell, &op::Request::Convert(request), u64::MAX, &mut hear);
        let stderr = [notes, self.lost(&ear.salvaged)].concat();
        match ended {
            Ok(()) => Ok(Told { stderr, ..Told::default() }),
            Err(end) => {
                let told = self.failed(end, ear, making);
                Err(Told { stderr: [stderr, told.stderr].concat(), ..told })
            }
        }
    }

    fn check_known(&self) -> Result<(), Told> {
        self.0.images.iter().try_for_each(|image| opening::check_known(image, self.0.settings))
    }

    /// A line for each range that could not be read.
    fn lost(&self, salvaged: &[Trouble]) -> Vec<u8> {
        let line = |trouble: &Trouble| {
            let prefix = self.0.settings.face.prefix();
            let words = self.0.input_output(&trouble.error);
            [format!("{prefix}: warning: error while reading offset {}: ", trouble.at).as_bytes(), &words, b"\n"]
                .concat()
        };
        salvaged.iter().flat_map(line).collect()
    }

    fn failed(&self, end: End, ear: Ear, making: &Making<'_>) -> Told {
        let settings = self.0.settings;
        if let Some(told) = ear.unmade {
            return told;
        }
        match end {
            End::Fell(told) => told,
            End::Failed(error) => match ear.stopped {
                Some(at) => {
                    let name = error.cause.and_then(|number| self.0.session.mishap(number)).map(|m| m.name);
                    let writing = name.as_deref() == Some(making.name());
                    let act = if writing { "writing" } else { "reading" };
                    let words = self.0.input_output(&error);
                    let sentence = format!("error while {act} at byte {at}: ");
                    Told::failure(settings, &[sentence.as_bytes(), &words].concat())
                }
                _ if self.0.has_all_open(&ear.heard) => Told::failure(settings, &self.0.words(&error)),
                _ => self.0.refused(&ear.heard, &error),
            },
        }
    }
}
