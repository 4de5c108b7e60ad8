//! `compare`: tells whether two images hold the same content.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::render::json;
use crate::render::progress::Progress;
use crate::settings::{Face, Settings};
use crate::setup;
use crate::{Told, stderr_text};
use instar_wire::code::decode;
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::compare::{Event, Request, Sizes, Stopped};

/// The images differ.
const DIFFERENT: u8 = 1;
/// Something could not be opened.
const UNOPENED: u8 = 2;
/// It could not be found out what lies where.
const UNMAPPED: u8 = 3;
/// Something could not be read.
const UNREAD: u8 = 4;

/// What has been heard.
#[derive(Default)]
struct Ear {
    heard: Heard,
    sizes: Option<Sizes>,
    done: u64,
    differs: Option<(u64, bool)>,
    stopped: Option<Stopped>,
    /// Why it must not go on.
    refused: Option<Told>,
}

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    compare(parsed, settings).map_err(|told| Told { code: told.code.max(UNOPENED), ..told })
}

fn compare(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, !parsed.has("force-share"));
    session.read_content();
    if setup::cache_is_direct(parsed, "cache", settings)? {
        session.read_directly();
    }
    let formats = ["a-format", "b-format"].into_iter().enumerate();
    let open = |(at, key)| opening::open_named(parsed, &parsed.named(at, key), &mut session, settings);
    let images = formats.map(open).collect::<Result<Vec<_>, Told>>()?;
    let quiet = parsed.has("quiet");
    let mut progress = Progress::new(parsed.has("progress") && !quiet);
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let request = op::Request::Compare(Request {
        left: images[0].content(),
        right: images[1].content(),
        rules: setup::rules(settings),
        strict: parsed.has("strict"),
    });
    let (cell, wall) = setup::moving_cell(parsed, settings, None)?;
    let mut ear = Ear::default();
    let mut hear = |event: &[u8]| {
        match decode(event)? {
            Event::Step(step) => ear.heard.step(step),
            Event::Ready(sizes) => {
                ear.heard.is_complete = true;
                let known = asking.check_known(&ear.heard);
                ear.refused = asking.refuse_users(&ear.heard).and(known).err();
                progress.begin(sizes.left.max(sizes.right));
                ear.sizes = Some(sizes);
            }
            Event::Done(bytes) => {
                ear.done += bytes;
                progress.advance(bytes);
            }
            Event::Differs(differs) => {
                let new = (differs.at, differs.in_status);
                ear.differs = Some(ear.differs.map_or(new, |old| old.min(new)));
            }
            Event::Stopped(stopped) => {
                if ear.stopped.as_ref().is_none_or(|old| stopped.at < old.at) {
                    ear.stopped = Some(*stopped);
                }
            }
        }
        Ok(())
    };
    let ended = asking.run(cell, &request, u64::MAX, &mut hear);
    let told = match (ended, ear.refused.take()) {
        (_, Some(told)) => Err(told),
        (Err(End::Fell(told)), _) => Err(told),
        (Err(End::Failed(error)), _) => Err(asking.refused(&ear.heard, &error)),
        (Ok(()), None) => Telling { asking: &asking, ear: &ear }.tell(&mut progress),
    };
    let notes = asking.notes(&ear.heard, &wall);
    told.map(|told| told.after(&notes)).map_err(|told| told.after(&notes))
}

/// What is needed to tell the outcome.
struct Telling<'a> {
    asking: &'a Asking<'a>,
    ear: &'a Ear,
}

impl Telling<'_> {
    fn tell(&self, progress: &mut Progress) -> Result<Told, Told> {
        let parsed = self.asking.parsed;
        let Ear { sizes, differs, stopped, .. } = self.ear;
        let sizes = sizes.clone().unwrap_or(Sizes { left: 0, right: 0 });
        let unequal = sizes.left != sizes.right;
        let strict = parsed.has("strict");
        let first = differs.map_or(u64::MAX, |(at, _)| at);
        if let Some(stopped) = stopped.as_ref().filter(|stopped| stopped.at < first) {
            return Err(self.stopped(stopped));
        }
        let code = if differs.is_some() || (strict && unequal) { DIFFERENT } else { 0 };
        if parsed.bytes("output") == Some(b"json") {
            return Ok(Told { stdout: self.json(code == 0, unequal), code, ..Told::default() });
        }
        let mut out = String::new();
        if strict && unequal {
            out += "Strict mode: Image size mismatch!\n";
        } else {
            let beyond = first >= sizes.left.min(sizes.right);
            if unequal && beyond {
                out += "Warning: Image size mismatch!\n";
            }
            match differs {
                Some((at, true)) => out += &format!("Strict mode: Offset {at} block status mismatch!\n"),
                Some((at, false)) => out += &format!("Content mismatch at offset {at}!\n"),
                None => {
                    progress.complete();
                    out += "Images are identical.\n";
                }
            }
        }
        out += progress.line_end();
        let stdout = if parsed.has("quiet") { Vec::new() } else { out.into_bytes() };
        Ok(Told { stdout, code, ..Told::default() })
    }

    fn stopped(&self, stopped: &Stopped) -> Told {
        let image = &self.asking.images[usize::from(stopped.is_right)];
        let settings = self.asking.settings;
        let name = stderr_text(settings).show(&image.typed).into_owned();
        let finding = self.asking.finding(&self.ear.heard, &stopped.error);
        let words = self.asking.input_output(&self.ear.heard, &stopped.error);
        if stopped.in_map {
            let mut sentence = [b"Sector allocation test failed for ", &name[..]].concat();
            // Where that was and why, qemu-img does not say.
            if settings.face == Face::Native {
                sentence = [&sentence[..], b": ", &words].concat();
            }
            return Told { code: UNMAPPED, ..Told::failure(settings, &sentence).after(&finding) };
        }
        let head = format!("Error while reading offset {} of ", stopped.at);
        let sentence = [head.as_bytes(), &name, b": ", &words].concat();
        Told { code: UNREAD, ..Told::failure(settings, &sentence).after(&finding) }
    }

    fn json(&self, identical: bool, unequal: bool) -> Vec<u8> {
        let at = self.ear.differs.map(|(at, _)| at);
        let mut facts = Fact::fields([("identical", identical.into())]);
        if let Some(at) = at {
            facts.add("first-mismatch-offset", at);
        }
        facts.add("total-bytes-compared", at.unwrap_or(self.ear.done));
        facts.add("size-mismatch", unequal);
        json::pretty(&facts)
    }
}
