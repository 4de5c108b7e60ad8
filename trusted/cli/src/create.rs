//! `create`: makes an image that holds nothing yet.

use crate::args::creation::{Entry, Ground, Schema};
use crate::args::node::{Named, drivers};
use crate::args::{Complaint, Parsed};
use crate::asking::Asking;
use crate::founding::{Founding, Promised};
use crate::making::is_device;
use crate::opening::{self, Opened, Plain};
use crate::recipe::{self, Files, PLAIN};
use crate::render::options;
use crate::settings::{Face, Settings};
use crate::setup;
use crate::{Told, stderr_lines, stderr_text};
use instar_broker::Session;
use instar_wire::code::{Malformed, decode};
use instar_wire::op;
use instar_wire::op::Recipe;
use instar_wire::op::create::{Event, Request};
use std::os::unix::ffi::OsStrExt;

/// What a worker may tell in all: the layers of a chain, and little more.
const EVENTS_MAX: u64 = 1 << 20;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let name = parsed.words.first().map_or(&b""[..], |word| word.as_bytes());
    let asked = Asked { name, format: parsed.bytes("format").unwrap_or(b"raw"), parsed, settings };
    if parsed.asks_for_options() {
        let ground = if parsed.words.is_empty() { Ground::Nowhere } else { asked.ground(&asked.place()?.path) };
        return options::list(asked.format, ground, settings);
    }
    let wanted = asked.wanted()?;
    let mut session = setup::session(settings, true);
    let image = wanted.backing(&mut session)?;
    let told = wanted.make(&mut session, image)?;
    Ok(told)
}

/// The command line.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub name: &'a [u8],
    pub format: &'a [u8],
    pub parsed: &'a Parsed,
    pub settings: &'a Settings,
}

/// What it asks for, with nothing wrong that can be seen without a look at any file.
pub(crate) struct Wanted<'a> {
    pub asked: Asked<'a>,
    pub plain: Plain,
    pub schema: Schema,
    pub entries: Vec<Entry>,
    pub recipe: Recipe,
    /// Lines for standard error.
    warnings: Vec<u8>,
}

impl<'a> Asked<'a> {
    /// A failure, told of the image.
    fn say(&self, words: &[u8]) -> Told {
        let name = stderr_text(self.settings).show(self.name).into_owned();
        Told::failure(self.settings, &[&name, &b": "[..], words].concat())
    }

    fn complain(&self, complaint: Complaint) -> Told {
        opening::complain(&complaint.about(self.name), self.settings)
    }

    pub(crate) fn is_native(&self) -> bool {
        self.settings.face == Face::Native
    }

    fn ground(&self, path: &[u8]) -> Ground {
        if is_device(path) { Ground::Device } else { Ground::File }
    }

    /// The file that the word names.
    fn place(&self) -> Result<Plain, Told> {
        let plain = recipe::place(self.name, self.settings).map_err(|complaint| self.complain(complaint))?;
        plain.ok_or_else(|| self.say(b"the protocol does not make files"))
    }

    /// Reads what was asked for.
    fn wanted(self) -> Result<Wanted<'a>, Told> {
        let Asked { format, parsed, settings, .. } = self;
        let profile = &settings.profile;
        if drivers::driver(format, profile).is_none() && !PLAIN.contains(&format) {
            return Err(self.say(&[b"Unknown file format '", format, b"'"].concat()));
        }
        let plain = self.place()?;
        let schema = Schema::on(format, self.ground(&plain.path), profile);
        let schema = schema
            .ok_or_else(|| self.say(&[b"Format driver '", format, b"' does not support image creation"].concat()))?;
        let schema = schema.of_face(settings.face);
        let mut entries = recipe::entries(parsed);
        schema.facts(&entries, profile).0.map_err(|complaint| self.complain(complaint))?;
        if let Some(size) = parsed.number("size") {
            if entries.iter().any(|(key, _)| key == b"size") {
                return Err(self.say(b"The image size must be specified only once"));
            }
            entries.push((b"size".to_vec(), size.to_string().into_bytes()));
        }
        let below = recipe::below(parsed, Some(&schema), format);
        entries.extend(below.map_err(|complaint| self.complain(complaint))?);
        let (facts, notes) = schema.facts(&entries, profile);
        let options = facts.map_err(|complaint| self.complain(complaint))?;
        let lines: Vec<Vec<u8>> = notes.iter().map(|note| note.line(settings.face.prefix())).collect();
        let recipe = Recipe { format: format.into(), size: 0, options };
        let wanted = Wanted { asked: self, plain, schema, entries, recipe, warnings: stderr_lines(settings, &lines) };
        wanted.checked()
    }
}

impl<'a> Wanted<'a> {
    /// A failure, told of the image.
    pub(crate) fn say(&self, words: &[u8]) -> Told {
        self.asked.say(words)
    }

    pub(crate) fn settings(&self) -> &'a Settings {
        self.asked.settings
    }

    fn backing_name(&self) -> Option<&[u8]> {
        self.recipe.text("backing_file")
    }

    /// Whether the image below is looked at.
    fn looks_below(&self) -> bool {
        self.backing_name().is_some() && !self.asked.parsed.has("backing-unsafe")
    }

    /// Without a look at any file.
    fn checked(mut self) -> Result<Self, Told> {
        let profile = &self.settings().profile;
        if self.backing_name() == Some(b"") {
            return Err(self.say(b"Expected backing file name, got empty string"));
        }
        if self.backing_name() == Some(self.asked.name) {
            return Err(self.say(b"Error: Trying to create an image with the same filename as the backing file"));
        }
        let is_blind =
            self.backing_name().is_some() && !self.looks_below() && self.recipe.text("backing_fmt").is_none();
        if is_blind && !self.asked.is_native() {
            if profile.backing_format_required() {
                return Err(self.say(b"Backing file specified without backing format"));
            }
            self.warnings.extend_from_slice(
                b"qemu-img: warning: Deprecated use of unopened backing file without explicit backing format, use of \
                  this image requires potentially unsafe format probing\n",
            );
        }
        match self.recipe.number("size") {
            Some(size) => self.recipe.size = size,
            None if self.looks_below() => {}
            None => return Err(self.say(b"Image creation needs a size parameter")),
        }
        Ok(self)
    }

    /// Opens what lies below, if it is looked at. A VMDK cannot be made without a look: it tells what it was made on.
    fn backing(&self, session: &mut Session) -> Result<Vec<Opened>, Told> {
        let (looks, must) = (self.looks_below(), self.recipe.format.0 == b"vmdk");
        let Some(name) = self.backing_name().filter(|_| looks || must) else { return Ok(Vec::new()) };
        let place = recipe::beside(&self.plain.path, name);
        let named = Named { format: self.recipe.text("backing_fmt").filter(|_| looks), ..Named::plain(&place) };
        let opened = opening::open_named(self.asked.parsed, &named, session, self.settings());
        Ok(vec![opened.map_err(|told| self.not_below(&told, &place))?])
    }

    /// The same failure, told of the image that was to stand on the one at `place`.
    pub(crate) fn not_below(&self, told: &Told, place: &[u8]) -> Told {
        let (text, prefix) = (stderr_text(self.settings()), self.settings().face.prefix());
        let opening = [prefix.as_bytes(), b": Could not open '", &text.show(place), b"': "].concat();
        let line = told.stderr.strip_suffix(b"\n").unwrap_or(&told.stderr);
        let words = line.strip_prefix(&opening[..]).or_else(|| line.strip_prefix(format!("{prefix}: ").as_bytes()));
        let hint: &[u8] = if self.looks_below() { b"\nCould not open backing image." } else { b"" };
        self.say(&[words.unwrap_or(line), hint].concat())
    }

    /// Makes the image.
    fn make(&self, session: &mut Session, images: Vec<Opened>) -> Result<Told, Told> {
        let Asked { parsed, settings, .. } = self.asked;
        let own = session.promise(&self.plain.path);
        let data = recipe::data_file(&self.recipe, &self.plain.path, settings);
        let beside = data.as_ref().map(|path| session.promise(path));
        let backing = images.first().map(Opened::content);
        let files = Files { own: own.clone(), beside: beside.clone(), backing };
        let request = Request {
            new: recipe::new(&self.recipe, files, &self.plain.path, parsed, settings)?,
            as_below: self.recipe.number("size").is_none(),
            is_clean: !is_device(&self.plain.path),
            rules: setup::rules(settings),
        };
        let asking = Asking { session, images: &images, parsed, settings };
        let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
        let mut founding = Founding::new(self, &asking, Promised { own, beside, data });
        let mut hear = |event: &[u8]| {
            match decode(event)? {
                Event::Step(step) => founding.heard.step(step),
                Event::Ready(size) => founding.refused = founding.ready(size).err(),
                Event::Made(made) => founding.made = Some(made),
            }
            // Who must not go on is kept from the files.
            if founding.refused.is_some() { Err(Malformed) } else { Ok(()) }
        };
        let ended = asking.run(cell, &op::Request::Create(request), EVENTS_MAX, &mut hear);
        let notes = [asking.notes(&founding.heard, &wall), self.warnings.clone()].concat();
        let (line, warned) = (std::mem::take(&mut founding.line), std::mem::take(&mut founding.warned));
        let notes = [notes, warned].concat();
        match founding.end(ended) {
            Ok(page) => Ok(Told { stdout: [line, page].concat(), stderr: notes, ..Told::default() }),
            Err(told) => Err(Told { stdout: line, ..told.after(&notes) }),
        }
    }
}
