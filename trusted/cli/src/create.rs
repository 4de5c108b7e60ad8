//! `create`: makes an image that holds nothing yet.

use crate::args::creation::{Entry, Ground, Schema};
use crate::args::node::{Named, describe, drivers};
use crate::args::{Complaint, Parsed};
use crate::asking::{Asking, End, Heard};
use crate::making::is_device;
use crate::opening::{self, Opened, Plain};
use crate::recipe::{self, Files, PLAIN};
use crate::render::json;
use crate::render::options;
use crate::render::size::Rounding;
use crate::settings::{Face, Settings};
use crate::setup::{self, mishap_words, system_words};
use crate::{Told, stderr_lines, stderr_text, stdout_text};
use instar_broker::publish::{FileType, Refused, Target, Wish, publish_all};
use instar_broker::session::Why;
use instar_broker::{Mishap, Session};
use instar_wire::code::{Malformed, decode};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::io::{FileId, Granted};
use instar_wire::op;
use instar_wire::op::Recipe;
use instar_wire::op::create::{Event, Made, Request};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a worker may tell in all: the layers of a chain, and little more.
const EVENTS_MAX: u64 = 1 << 20;

/// The longest file, in whole sectors.
const LEN_MAX: u64 = i64::MAX as u64 / 512 * 512;

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
struct Asked<'a> {
    name: &'a [u8],
    format: &'a [u8],
    parsed: &'a Parsed,
    settings: &'a Settings,
}

/// What it asks for, with nothing wrong that can be seen without a look at any file.
struct Wanted<'a> {
    asked: Asked<'a>,
    plain: Plain,
    schema: Schema,
    entries: Vec<Entry>,
    recipe: Recipe,
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

    fn is_native(&self) -> bool {
        self.settings.face == Face::Native
    }

    fn ground(&self, path: &[u8]) -> Ground {
        if is_device(path) { Ground::Device } else { Ground::File }
    }

    /// The file that the word names.
    fn place(&self) -> Result<Plain, Told> {
        let plain = |path: &[u8]| Plain { path: path.to_vec(), part: op::Part::default(), is_device: false };
        if self.name.is_empty() {
            return Ok(plain(b""));
        }
        if self.name.starts_with(b"json:") {
            return Err(self.say(b"Unknown protocol 'json'"));
        }
        let named = Named { format: Some(b"raw"), ..Named::plain(self.name) };
        let described = describe(&named, &self.settings.profile).map_err(|complaint| {
            // Nothing is opened: what is wrong is wrong with the name.
            let opening = Complaint::new(&[b""]).not_opened(self.name).sentence;
            let sentence = complaint.sentence.strip_prefix(&opening[..]).map(<[u8]>::to_vec);
            self.complain(Complaint { sentence: sentence.unwrap_or(complaint.sentence.clone()), ..complaint })
        })?;
        opening::plain_file(&described.node).ok_or_else(|| self.say(b"the protocol does not make files"))
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
        let schema = if self.is_native() { schema.with_ours() } else { schema };
        recipe::check_grain(parsed, settings).map_err(|complaint| self.complain(complaint))?;
        let mut entries = recipe::entries(parsed);
        schema.facts(&entries, profile).0.map_err(|complaint| self.complain(complaint))?;
        if let Some(size) = parsed.number("size") {
            if entries.iter().any(|(key, _)| key == b"size") {
                return Err(self.say(b"The image size must be specified only once"));
            }
            entries.push((b"size".to_vec(), size.to_string().into_bytes()));
        }
        let below =
            [("backing", "backing_file", "Backing file"), ("backing-format", "backing_fmt", "Backing file format")];
        for (key, option, what) in below {
            let Some(value) = parsed.bytes(key) else { continue };
            if !schema.has(option) {
                return Err(self.say(&[what.as_bytes(), b" not supported for file format '", format, b"'"].concat()));
            }
            entries.push((option.as_bytes().to_vec(), value.to_vec()));
        }
        let (facts, notes) = schema.facts(&entries, profile);
        let options = facts.map_err(|complaint| self.complain(complaint))?;
        let lines: Vec<Vec<u8>> = notes.iter().map(|note| note.line(settings.face.prefix())).collect();
        let recipe = Recipe { format: format.into(), size: 0, options };
        let wanted = Wanted { asked: self, plain, schema, entries, recipe, warnings: stderr_lines(settings, &lines) };
        wanted.checked()
    }
}

impl<'a> Wanted<'a> {
    fn say(&self, words: &[u8]) -> Told {
        self.asked.say(words)
    }

    fn settings(&self) -> &'a Settings {
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
    fn not_below(&self, told: &Told, place: &[u8]) -> Told {
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
        let mut founding =
            Founding { wanted: self, asking: &asking, own, beside, data, ..Founding::new(self, &asking) };
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

/// An image that is being made.
struct Founding<'f, 'a> {
    wanted: &'f Wanted<'a>,
    asking: &'f Asking<'f>,
    own: Granted,
    beside: Option<Granted>,
    /// Where the second file will stand.
    data: Option<Vec<u8>>,
    heard: Heard,
    size: u64,
    /// What is told of it beforehand.
    line: Vec<u8>,
    warned: Vec<u8>,
    /// The files, in the order in which they appear.
    targets: Vec<Target>,
    made: Option<Made>,
    refused: Option<Told>,
}

impl<'f, 'a> Founding<'f, 'a> {
    fn new(wanted: &'f Wanted<'a>, asking: &'f Asking<'f>) -> Self {
        let own = Granted { id: FileId(0), len: 0, allocated: 0, writable: true, pinned: None, suggested: None };
        Founding {
            wanted,
            asking,
            own,
            beside: None,
            data: None,
            heard: Heard::default(),
            size: 0,
            line: Vec::new(),
            warned: Vec::new(),
            targets: Vec::new(),
            made: None,
            refused: None,
        }
    }

    fn settings(&self) -> &'a Settings {
        self.wanted.asked.settings
    }

    /// Where the image below is.
    fn below(&self) -> &[u8] {
        self.asking.images.first().map_or(b"", |image| &image.typed)
    }

    /// All that is below is open: the files may be made.
    fn ready(&mut self, size: u64) -> Result<(), Told> {
        (self.size, self.heard.is_complete) = (size, true);
        let wanted = self.wanted;
        let checked = self.asking.refuse_structured(&self.heard).and_then(|()| self.asking.check_known(&self.heard));
        checked.map_err(|told| wanted.not_below(&told, self.below()))?;
        self.check_format_below()?;
        self.tell();
        self.check_words()?;
        self.check_preallocation()?;
        let session = self.asking.session;
        let wish = recipe::wish(recipe::hints(&wanted.recipe), session.is_locking());
        let main =
            self.file(&wanted.plain.path, wanted.plain.is_device || wanted.asked.format == b"host_device", wish)?;
        self.check_made(&main)?;
        session.fulfil(self.own.id, main.file());
        if let (Some(path), Some(beside)) = (self.data.clone(), self.beside.clone()) {
            if path == wanted.plain.path {
                return Err(wanted.say(&recipe::refusal(&Refused::Source, &path, false, self.settings())));
            }
            let data = match wanted.recipe.is_on("keep_data_file") {
                true => self.standing(&path, wish)?,
                false => self.file(&path, false, wish)?,
            };
            session.fulfil(beside.id, data.file());
            self.targets.push(data);
        }
        if main.kind() == FileType::RegularFile {
            session.allow_parts(self.own.id, Path::new(OsStr::from_bytes(&wanted.plain.path)), wish);
        }
        self.targets.push(main);
        Ok(())
    }

    /// Who stands on an image has to say what it is.
    fn check_format_below(&mut self) -> Result<(), Told> {
        let wanted = self.wanted;
        let Some(layer) = self.heard.images.first().and_then(|layers| layers.first()) else { return Ok(()) };
        if wanted.recipe.text("backing_fmt").is_some() {
            return Ok(());
        }
        let found = &layer.format.0[..];
        let profile = &self.settings().profile;
        if !profile.backing_format_required() && !wanted.asked.is_native() {
            let parts = [
                &b"qemu-img: warning: Deprecated use of backing file without explicit backing format (detected format of "[..],
                found,
                b")\n",
            ];
            self.warned = parts.concat();
            return Ok(());
        }
        let words = [b"Backing file specified without backing format\nDetected format of ", found, b"."].concat();
        let mut told = wanted.say(&words);
        if !profile.detected_line_end() && !wanted.asked.is_native() {
            told.stderr.pop();
        }
        Err(told)
    }

    /// Tells what is going to be made, as qemu-img does.
    fn tell(&mut self) {
        let (wanted, settings) = (self.wanted, self.settings());
        if wanted.asked.is_native() || wanted.asked.parsed.has("quiet") {
            return;
        }
        let mut entries = wanted.entries.clone();
        entries.push((b"size".to_vec(), self.size.to_string().into_bytes()));
        // The format that was found, where the image will say so.
        let below = self.heard.images.first().and_then(|layers| layers.first());
        let said = wanted.recipe.text("backing_fmt");
        if let Some(found) =
            below.map(|layer| &layer.format.0).filter(|found| said.map_or(*found != b"raw", |s| s != &found[..]))
        {
            entries.push((b"backing_fmt".to_vec(), found.clone()));
        }
        let text = stdout_text(settings);
        let shown = wanted.schema.shown(&entries, &settings.profile);
        let parts = [
            b"Formatting '",
            &text.show(wanted.asked.name)[..],
            b"', fmt=",
            wanted.asked.format,
            b" ",
            &text.show(&shown),
            b"\n",
        ];
        self.line = parts.concat();
    }

    /// Refuses what is wrong with the words, whatever the format makes of them.
    fn check_words(&self) -> Result<(), Told> {
        let (wanted, profile) = (self.wanted, &self.settings().profile);
        let claim = wanted.recipe.text("backing_fmt").filter(|name| drivers::driver(name, profile).is_none());
        if let Some(name) = claim.filter(|_| [&b"qcow2"[..], b"qed"].contains(&wanted.asked.format)) {
            let name = stderr_text(self.settings()).show(name).into_owned();
            return Err(wanted.say(&match profile.enum_words() {
                true => [b"Parameter 'backing-fmt' does not accept value '", &name[..], b"'"].concat(),
                false => [b"Invalid parameter '", &name[..], b"'"].concat(),
            }));
        }
        if wanted.recipe.is_on("detached-header") && !wanted.asked.is_native() && !profile.detached_header_works() {
            return Err(wanted.say(b"Parameter 'detached-header' is unexpected"));
        }
        Ok(())
    }

    /// Refuses what no file can be asked for; other ways to set space aside are the format's.
    fn check_preallocation(&self) -> Result<(), Told> {
        let wanted = self.wanted;
        let Some(word) = wanted.recipe.text("preallocation").filter(|_| wanted.asked.format != b"qcow2") else {
            return Ok(());
        };
        let on_device = is_device(&wanted.plain.path);
        match word {
            b"off" => Ok(()),
            b"falloc" | b"full" if on_device => {
                Err(wanted.say(&[b"Unsupported preallocation mode '", word, b"'"].concat()))
            }
            b"falloc" | b"full" => Ok(()),
            b"metadata" if wanted.asked.format == b"luks" => Ok(()),
            b"metadata" => Err(wanted.say(b"Unsupported preallocation mode: metadata")),
            word => Err(wanted.say(&[b"invalid parameter value: ", word].concat())),
        }
    }

    /// A new file, or the device that stands there.
    fn file(&self, path: &[u8], must_be_device: bool, wish: Wish<'static>) -> Result<Target, Told> {
        let (settings, session) = (self.settings(), self.asking.session);
        let wish = Wish { is_source: &|identity| session.has_open(identity), ..wish };
        let place = Path::new(OsStr::from_bytes(path));
        let on_device = must_be_device || is_device(path);
        let made = if on_device { Target::open(place, &wish) } else { Target::create(place, &wish) };
        let target = made.map_err(|refused| {
            let words = recipe::refusal(&refused, path, on_device, settings);
            self.wanted.say(&if on_device { recipe::no_device(&words, settings) } else { words })
        })?;
        let is_device = matches!(target.kind(), FileType::BlockDevice | FileType::CharacterDevice);
        if must_be_device && !is_device {
            let mishap = Mishap { name: path.to_vec(), named_by: None, why: Why::NotDevice };
            let words = mishap_words(&mishap, settings, stderr_text(settings));
            return Err(self.wanted.say(&recipe::no_device(&words, settings)));
        }
        if !is_device && (target.kind() != FileType::RegularFile || !target.is_fresh()) {
            return Err(self.wanted.say(b"Could not resize file: Invalid argument"));
        }
        Ok(target)
    }

    /// A file that is there and stays as it is.
    fn standing(&self, path: &[u8], wish: Wish<'static>) -> Result<Target, Told> {
        let session = self.asking.session;
        let wish = Wish { is_source: &|identity| session.has_open(identity), ..wish };
        let opened = Target::open(Path::new(OsStr::from_bytes(path)), &wish);
        opened.map_err(|refused| self.wanted.say(&recipe::refusal(&refused, path, true, self.settings())))
    }

    fn check_made(&self, main: &Target) -> Result<(), Told> {
        let is_raw = PLAIN.contains(&self.wanted.asked.format);
        match main.kind() {
            FileType::BlockDevice | FileType::CharacterDevice if is_raw && self.size > main.len() => {
                Err(self.wanted.say(b"Cannot grow device files"))
            }
            // The last sector would end beyond all offsets.
            FileType::RegularFile if is_raw && self.size > LEN_MAX => {
                Err(self.wanted.say(b"Could not resize file: Invalid argument"))
            }
            _ => Ok(()),
        }
    }

    /// What has come of it.
    fn end(mut self, ended: Result<(), End>) -> Result<Vec<u8>, Told> {
        if let Some(told) = self.refused.take() {
            return Err(told);
        }
        match ended {
            Ok(()) => {}
            Err(End::Fell(told)) => {
                let prefix = format!("{}: Could not open '': ", self.settings().face.prefix());
                let words = told.stderr.strip_prefix(prefix.as_bytes()).and_then(|words| words.strip_suffix(b"\n"));
                return Err(match words.map(<[u8]>::to_vec) {
                    Some(words) => self.wanted.say(&words),
                    None => told,
                });
            }
            Err(End::Failed(error)) => return Err(self.failed(&error)),
        }
        let id = recipe::secret_name(&self.wanted.recipe);
        if let Some(id) = id.filter(|id| self.wanted.asked.parsed.objects.secret(id).is_none()) {
            return Err(self.no_secret(id));
        }
        let made = self.made.take();
        let made = made.ok_or_else(|| Told::failure(self.settings(), b"the worker ended without an answer"))?;
        let len = self.targets.last().map_or(0, Target::len);
        let mut targets = self.asking.session.take_parts(self.own.id);
        targets.append(&mut self.targets);
        let published = publish_all(targets, false);
        published.map_err(|errno| self.wanted.say(system_words(errno).as_bytes()))?;
        Ok(self.page(&made, len))
    }

    fn no_secret(&self, id: &[u8]) -> Told {
        self.wanted.say(&[b"No secret with id '", &stderr_text(self.settings()).show(id)[..], b"'"].concat())
    }

    /// What is told of a worker that could not make it.
    fn failed(&self, error: &Error) -> Told {
        let wanted = self.wanted;
        if !self.heard.is_complete {
            return wanted.not_below(&self.asking.refused(&self.heard, error), self.below());
        }
        // What is wrong with the wish comes before what is wrong with its secret.
        let missing = recipe::secret_name(&wanted.recipe)
            .filter(|id| error.kind == Kind::Key && wanted.asked.parsed.objects.secret(id).is_none());
        if let Some(id) = missing {
            return self.no_secret(id);
        }
        let words = self.asking.words(error);
        let mishap = error.cause.and_then(|number| self.asking.session.mishap(number));
        let is_too_long = mishap.is_some_and(|mishap| mishap.why == Why::System(Errno::FBIG));
        if is_too_long || error.kind == Kind::TooBig && words.starts_with(b"The image size is too large") {
            let hint: &[u8] =
                if wanted.schema.has("cluster_size") { b" (try using a larger cluster size)" } else { b"" };
            let words = [b"The image size is too large for file format '", wanted.asked.format, b"'", hint].concat();
            return wanted.say(&words);
        }
        if error.kind == Kind::Io {
            let words = self.asking.input_output(&self.heard, error);
            return wanted.say(&[b"Could not resize file: ", &words[..]].concat());
        }
        wanted.say(&words)
    }

    /// What is told of an image that has been made.
    fn page(&self, made: &Made, len: u64) -> Vec<u8> {
        let (wanted, settings) = (self.wanted, self.settings());
        if !wanted.asked.is_native() {
            return Vec::new();
        }
        let format = if PLAIN.contains(&wanted.asked.format) { b"raw" } else { wanted.asked.format };
        let unit = made.unit.unwrap_or(512);
        if wanted.asked.parsed.bytes("output") == Some(b"json") {
            return json::pretty(&Fact::fields([
                ("format", format.into()),
                ("filename", wanted.asked.name.into()),
                ("virtual_size", self.size.into()),
                ("resolved_unit_size", unit.into()),
                ("metadata_bytes_written", made.written.into()),
                ("file_size_after", len.into()),
            ]));
        }
        if wanted.asked.parsed.has("quiet") {
            return Vec::new();
        }
        let name = stdout_text(settings).show(wanted.asked.name).into_owned();
        let rounding = if settings.ignore_quirks { Rounding::OneDecimal } else { Rounding::AsQemu };
        let sizes = format!(", {}, units of {unit} bytes)\n", rounding.size(self.size));
        [b"Created: ", &name[..], b" (", format, sizes.as_bytes()].concat()
    }
}
