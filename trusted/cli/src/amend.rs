//! `amend`: gives an image that is there other options of its format.

use crate::args::creation::{Entry, Schema};
use crate::args::node::drivers;
use crate::args::{Complaint, Parsed};
use crate::asking::{Asking, End, Heard, warnings};
use crate::opening::{self, complain};
use crate::recipe::entropy;
use crate::render::json;
use crate::render::progress::Progress;
use crate::settings::{Face, Settings};
use crate::{Told, setup, stderr_lines, stderr_text};
use instar_wire::code::{Malformed, Secret, decode};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::Recipe;
use instar_wire::op::amend::{Amended, Event, Request};

/// The options that name a secret.
const NEW_SECRET: &[&str] = &["new-secret", "encrypt.new-secret"];
const OLD_SECRET: &[&str] = &["old-secret", "encrypt.old-secret"];

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    if let Some(format) = parsed.bytes("format").filter(|_| parsed.asks_for_options()) {
        return list(format, settings);
    }
    let mut progress = Progress::new(parsed.has("progress") && !parsed.has("quiet"));
    let mut has_begun = false;
    let told = amend(parsed, settings, &mut progress, &mut has_begun);
    if !parsed.asks_for_options() {
        // As qemu-img has it, also of what could not be done.
        progress.end(has_begun);
    }
    told
}

/// Does it; `has_begun`: it has come so far that anything could be changed.
fn amend(parsed: &Parsed, settings: &Settings, progress: &mut Progress, has_begun: &mut bool) -> Result<Told, Told> {
    let wanted = Wanted::of(parsed, settings);
    let mut session = setup::session(settings, true);
    let images = [opening::open_to_change(parsed, 0, &mut session, settings)?];
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let request = Request {
        source: images[0].content(),
        wishes: wanted.recipes(),
        is_forced: parsed.has("force"),
        new_secret: wanted.secret(NEW_SECRET),
        old_secret: wanted.secret(OLD_SECRET),
        seed: entropy(settings)?,
        rules: setup::rules(settings),
        is_told: is_in_json(parsed),
    };
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
    let mut ear = Ear {
        asking: &asking,
        wanted: &wanted,
        heard: Heard::default(),
        refused: None,
        amended: None,
        warned: Vec::new(),
        progress,
        has_begun,
    };
    let ended = asking.run(cell, &op::Request::Amend(request), u64::MAX, &mut |event| ear.take(event));
    let notes = [asking.notes(&ear.heard, &wall), asking.guessed(&ear.heard), ear.warnings()].concat();
    let told = match (ear.refused.take(), ended) {
        (Some(told), _) if told.code == 0 => return Ok(told),
        (Some(told), _) | (None, Err(End::Fell(told))) => Err(told),
        (None, Err(End::Failed(error))) if *ear.has_begun => Err(ear.failed(&error)),
        (None, Err(End::Failed(error))) if ear.heard.is_complete => Err(asking.not_opened(&error)),
        (None, Err(End::Failed(error))) => Err(asking.refused(&ear.heard, &error)),
        (None, Ok(())) => Ok(()),
    };
    told.map_err(|told| told.after(&notes))?;
    Ok(Told { stdout: ear.show(), stderr: notes, ..Told::default() })
}

fn is_in_json(parsed: &Parsed) -> bool {
    parsed.bytes("output") == Some(b"json")
}

/// What images of a format can be asked for.
fn list(format: &[u8], settings: &Settings) -> Result<Told, Told> {
    let name = stderr_text(settings).show(format).into_owned();
    if drivers::driver(format, &settings.profile).is_none() {
        return Err(Told::failure(settings, &[b"Unknown file format '", &name[..], b"'"].concat()));
    }
    let schema = schema(format, settings).ok_or_else(|| Told::failure(settings, &none(&name)))?;
    let stdout = [b"Amend options for '", format, b"':\n", &schema.lines()[..]].concat();
    Ok(Told { stdout, ..Told::default() })
}

fn schema(format: &[u8], settings: &Settings) -> Option<Schema> {
    let schema = Schema::amending(format)?;
    Some(if settings.face == Face::Native { schema.with_our_changes() } else { schema })
}

fn none(format: &[u8]) -> Vec<u8> {
    [b"Format driver '", format, b"' does not support option amendment"].concat()
}

/// What the options mean for a format, and what is to be said of them.
type Read = (&'static [u8], Result<Fact, Complaint>, Vec<u8>);

/// What the command line asks for.
struct Wanted<'a> {
    parsed: &'a Parsed,
    settings: &'a Settings,
    entries: Vec<Entry>,
    /// What that is for each format.
    read: Vec<Read>,
}

impl<'a> Wanted<'a> {
    fn of(parsed: &'a Parsed, settings: &'a Settings) -> Wanted<'a> {
        let entries = Schema::entries(parsed.values("options").map(|list| list.as_encoded_bytes()));
        let read = Schema::amended().filter_map(|format| {
            let (facts, notes) = schema(format, settings)?.facts(&entries, &settings.profile);
            let lines: Vec<Vec<u8>> = notes.iter().map(|note| note.line(settings.face.prefix())).collect();
            Some((format, facts, stderr_lines(settings, &lines)))
        });
        Wanted { parsed, settings, read: read.collect(), entries }
    }

    fn recipes(&self) -> Vec<Recipe> {
        let made = self.read.iter().filter_map(|(format, facts, _)| Some((*format, facts.as_ref().ok()?)));
        made.map(|(format, facts)| Recipe { format: format.into(), size: 0, options: facts.clone() }).collect()
    }

    /// The secret that one of these options names.
    fn secret(&self, names: &[&str]) -> Option<Secret> {
        let mut named = self.entries.iter().rev();
        let (_, id) = named.find(|(key, _)| names.iter().any(|name| name.as_bytes() == key))?;
        self.parsed.objects.secret(id).map(|secret| Secret(secret.bytes.expose().to_vec()))
    }

    /// Why an image of this format cannot be asked for this.
    fn refusal(&self, format: &[u8]) -> Option<Told> {
        if self.parsed.asks_for_options() {
            return Some(list(format, self.settings).unwrap_or_else(|told| told));
        }
        let Some((_, facts, _)) = self.read.iter().find(|(known, ..)| *known == format) else {
            return Some(Told::failure(self.settings, &none(&stderr_text(self.settings).show(format))));
        };
        let complaint = complain(facts.as_ref().err()?, self.settings);
        let union = schema(format, self.settings)?.with_creation(&self.settings.profile);
        let is_late = union.facts(&self.entries, &self.settings.profile).0.is_ok();
        let hint: &[u8] = if is_late { b"This option is only supported for image creation\n" } else { b"" };
        Some(Told { stderr: [&complaint.stderr[..], hint].concat(), ..complaint })
    }

    /// What is to be said of what was asked for.
    fn warnings(&self, format: &[u8]) -> Vec<u8> {
        let of = self.read.iter().filter(|(known, ..)| *known == format);
        of.flat_map(|(.., lines)| lines.clone()).collect()
    }
}

/// What has been heard.
struct Ear<'a> {
    asking: &'a Asking<'a>,
    wanted: &'a Wanted<'a>,
    heard: Heard,
    /// Why it must not go on.
    refused: Option<Told>,
    amended: Option<Amended>,
    /// What should not have been asked for.
    warned: Vec<Error>,
    progress: &'a mut Progress,
    has_begun: &'a mut bool,
}

impl Ear<'_> {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match decode(event)? {
            Event::Step(step) => self.heard.step(step),
            Event::Ready => {
                self.heard.is_complete = true;
                self.refused = self.asking.refuse_change(&self.heard).err();
                self.refused = self.refused.take().or_else(|| self.wanted.refusal(self.format()));
            }
            Event::Begun => {
                self.progress.begin(0);
                *self.has_begun = true;
            }
            Event::Progress(part) => {
                self.progress.expect(part.total);
                self.progress.advance(part.done);
            }
            Event::Warning(error) => self.warned.push(error),
            Event::Amended(amended) => self.amended = Some(amended),
        }
        // There is no other way to have the worker stop.
        if self.refused.is_some() { Err(Malformed) } else { Ok(()) }
    }

    fn format(&self) -> &[u8] {
        let top = self.heard.images.first().and_then(|layers| layers.first());
        top.map_or(b"", |layer| &layer.format.0)
    }

    fn warnings(&self) -> Vec<u8> {
        let said = warnings(self.asking.session, self.asking.settings, self.warned.iter());
        [self.wanted.warnings(self.format()), said].concat()
    }

    /// The image could not be changed.
    fn failed(&self, error: &Error) -> Told {
        let words = match error.cause.is_none() && error.kind != Kind::Io {
            true => self.asking.words(error),
            false => [b"Could not amend image: ", &self.asking.input_output(&self.heard, error)[..]].concat(),
        };
        Told::failure(self.asking.settings, &words)
    }

    fn show(&self) -> Vec<u8> {
        let (parsed, settings) = (self.asking.parsed, self.asking.settings);
        if is_in_json(parsed) {
            return json::pretty(&self.facts());
        }
        if settings.face == Face::Qemu || parsed.has("quiet") {
            return Vec::new();
        }
        if self.is_changed() { b"Image amended.\n".to_vec() } else { b"No change.\n".to_vec() }
    }

    fn is_changed(&self) -> bool {
        self.amended.as_ref().is_some_and(|amended| amended.is_changed)
    }

    /// The native answer in JSON.
    fn facts(&self) -> Fact {
        let action = if self.is_changed() { "amended" } else { "noop" };
        let mut facts = Fact::fields([
            ("filename", self.asking.images[0].typed[..].into()),
            ("format", self.format().into()),
            ("action", action.into()),
        ]);
        let amended = self.amended.as_ref();
        if let Some(compat) = amended.and_then(|amended| amended.compat.clone()) {
            facts.add("compat", compat);
        }
        if let Some(is_lazy) = amended.and_then(|amended| amended.is_lazy) {
            facts.add("lazy_refcounts", is_lazy);
        }
        facts
    }
}
