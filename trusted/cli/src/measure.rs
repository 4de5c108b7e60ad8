//! `measure`: tells how large an image would be.

use crate::args::creation::Schema;
use crate::args::node::drivers::driver;
use crate::args::{Complaint, Parsed};
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::render::json;
use crate::settings::{Face, Settings};
use crate::setup;
use crate::{Told, stderr_lines, stderr_text};
use instar_wire::code::decode;
use instar_wire::error::Kind;
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::Recipe;
use instar_wire::op::measure::{Event, Measured, Request};
use std::os::unix::ffi::OsStrExt;

/// What a worker may tell in all: the layers of a chain, and one answer.
const EVENTS_MAX: u64 = 1 << 20;
/// The formats that qemu-img can measure.
const MEASURED: &[&[u8]] = &[b"raw", b"qcow2", b"luks"];
/// The names under which a plain file can be written.
const PLAIN: &[&[u8]] = &[b"file", b"host_device", b"host_cdrom"];

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let lists: Vec<&[u8]> = parsed.values("options").map(|list| list.as_bytes()).collect();
    let wanted = Wanted { format: parsed.bytes("target-format").unwrap_or(b"raw"), lists, settings };
    if let Some(help) = wanted.help()? {
        return Ok(Told { stdout: help, ..Told::default() });
    }
    let mut session = setup::session(settings, !parsed.has("force-share"));
    session.read_content();
    let opened = match parsed.words.is_empty() {
        true => Vec::new(),
        false => vec![opening::open(parsed, 0, &mut session, settings)?],
    };
    let (recipe, warnings) = wanted.recipe(parsed.number("size").unwrap_or(0));
    let request = Request {
        source: opened.first().map(opening::Opened::content),
        rules: setup::rules(settings),
        snapshot: parsed.bytes("snapshot").map(setup::pick),
        // What is wrong with the image comes before what is wrong with the wish.
        recipe: recipe.as_ref().map_or_else(|_| plain(), Clone::clone),
    };
    if recipe.is_err() && opened.is_empty() {
        return recipe.map(|_| Told::default()).map_err(|told| told.after(&warnings));
    }
    let asking = Asking { session: &session, images: &opened, parsed, settings };
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
    let mut ear = Ear::default();
    let mut hear = |event: &[u8]| {
        match decode(event)? {
            Event::Step(step) => ear.heard.step(step),
            Event::Ready => ear.heard.is_complete = true,
            Event::Stopped => ear.stopped = true,
            Event::Measured(measured) => ear.measured = Some(measured),
        }
        Ok(())
    };
    let ended = asking.run(cell, &op::Request::Measure(request), EVENTS_MAX, &mut hear);
    let notes = [asking.notes(&ear.heard, &wall), warnings].concat();
    // That there is a secret is looked at before the size is.
    let too_big = matches!(&ended, Err(End::Failed(error)) if error.kind == Kind::TooBig);
    let no_secret = wanted.has_secret(parsed).err().filter(|_| too_big && ear.heard.is_complete);
    let done = match no_secret {
        Some(told) => Err(told),
        None => ear.end(ended, &asking).and_then(|measured| recipe.map(|_| measured)),
    };
    let done = done.and_then(|measured| wanted.has_secret(parsed).map(|()| measured));
    match done {
        Ok(measured) => Ok(Told { stdout: page(&measured, parsed), stderr: notes, ..Told::default() }),
        Err(told) => Err(told.after(&notes)),
    }
}

/// A wish that nothing can be wrong with.
fn plain() -> Recipe {
    Recipe { format: "raw".into(), size: 0, options: Fact::fields([]) }
}

/// What the user wants to have measured.
struct Wanted<'a> {
    format: &'a [u8],
    lists: Vec<&'a [u8]>,
    settings: &'a Settings,
}

impl Wanted<'_> {
    fn say(&self, parts: &[&[u8]]) -> Told {
        let sentence = parts.concat();
        Told::failure(self.settings, &stderr_text(self.settings).show(&sentence))
    }

    fn schema(&self) -> Result<Schema, Told> {
        let profile = &self.settings.profile;
        if driver(self.format, profile).is_none() && !PLAIN.contains(&self.format) {
            return Err(self.say(&[b"Unknown file format '", self.format, b"'"]));
        }
        let schema = Schema::of(self.format, profile).map(|schema| schema.of_face(self.settings.face));
        schema.ok_or_else(|| self.say(&[b"Format driver '", self.format, b"' does not support image creation"]))
    }

    /// The list of options, if that is wanted; qemu-img has none here.
    fn help(&self) -> Result<Option<Vec<u8>>, Told> {
        let wanted = self.settings.face == Face::Native && Schema::asks_for_help(&self.lists);
        wanted.then(|| self.schema().map(|schema| schema.help())).transpose()
    }

    /// What is to be measured, and lines for standard error.
    fn recipe(&self, size: u64) -> (Result<Recipe, Told>, Vec<u8>) {
        let schema = match self.schema() {
            Ok(schema) => schema,
            Err(told) => return (Err(told), Vec::new()),
        };
        let (options, warnings) = schema.read(self.lists.iter().copied(), &self.settings.profile);
        let prefix = self.settings.face.prefix();
        let warnings: Vec<Vec<u8>> = warnings.iter().map(|note| note.line(prefix)).collect();
        let native = self.settings.face == Face::Native;
        let options = options.map_err(|complaint| opening::complain(&complaint, self.settings));
        let recipe = options.and_then(|options| match native || MEASURED.contains(&self.format) {
            false => Err(self.say(&[b"Block driver '", self.format, b"' does not support size measurement"])),
            true => {
                let format = if PLAIN.contains(&self.format) { b"raw" } else { self.format };
                Ok(Recipe { format: format.into(), size, options })
            }
        });
        (recipe, stderr_lines(self.settings, &warnings))
    }

    /// Whether the secret that it takes is there. The worker need not know it.
    fn has_secret(&self, parsed: &Parsed) -> Result<(), Told> {
        let (Ok(recipe), _) = self.recipe(0) else { return Ok(()) };
        let id = match recipe.format.0.as_slice() {
            b"luks" => recipe.text("key-secret"),
            b"qcow2" if recipe.text("encrypt.format") == Some(b"luks") => recipe.text("encrypt.key-secret"),
            _ => None,
        };
        match id.filter(|id| parsed.objects.secret(id).is_none()) {
            Some(id) => Err(opening::complain(&Complaint::new(&[b"No secret with id '", id, b"'"]), self.settings)),
            None => Ok(()),
        }
    }
}

/// What has been heard.
#[derive(Default)]
struct Ear {
    heard: Heard,
    /// The image could not be looked through.
    stopped: bool,
    measured: Option<Measured>,
}

impl Ear {
    /// The answer, if there is one.
    fn end(self, ended: Result<(), End>, asking: &Asking<'_>) -> Result<Measured, Told> {
        let settings = asking.settings;
        match ended {
            Ok(()) => {}
            Err(End::Fell(told)) => return Err(told),
            Err(End::Failed(error)) if asking.has_all_open(&self.heard) => {
                asking.refuse_structured(&self.heard)?;
                let sentence = match self.stopped {
                    true => [b"Unable to get block status: ", &asking.input_output(&self.heard, &error)[..]].concat(),
                    false => asking.words(&error),
                };
                return Err(Told::failure(settings, &sentence).after(&asking.finding(&self.heard, &error)));
            }
            Err(End::Failed(error)) => return Err(asking.refused(&self.heard, &error)),
        }
        asking.refuse_structured(&self.heard)?;
        asking.check_known(&self.heard)?;
        self.measured.ok_or_else(|| Told::failure(settings, b"the worker ended without an answer"))
    }
}

/// The answer as it is printed.
fn page(measured: &Measured, parsed: &Parsed) -> Vec<u8> {
    let Measured { required, fully_allocated, bitmaps } = measured;
    if parsed.bytes("output") == Some(b"json") {
        let mut facts =
            Fact::fields([("required", (*required).into()), ("fully-allocated", (*fully_allocated).into())]);
        bitmaps.iter().for_each(|bytes| facts.add("bitmaps", *bytes));
        return json::pretty(&json::arranged(&facts));
    }
    let bitmaps = bitmaps.map(|bytes| format!("bitmaps size: {bytes}\n")).unwrap_or_default();
    format!("required size: {required}\nfully allocated size: {fully_allocated}\n{bitmaps}").into_bytes()
}
