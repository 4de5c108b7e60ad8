//! Asking a worker, and what becomes of it: every verb opens its images and fails in the same way.

use crate::args::Parsed;
use crate::opening::{self, Opened, READ_ONLY};
use crate::render::sentence;
use crate::settings::{Face, Settings};
use crate::setup::{mishap_sentence, mishap_words, system_words};
use crate::{Told, stderr_text};
use instar_broker::lock::Conflict;
use instar_broker::policy::Refusal;
use instar_broker::serve::OnEvent;
use instar_broker::session::Why;
use instar_broker::{Session, run as run_cell};
use instar_sandbox::Cell;
use instar_wire::error::{Error, Kind};
use instar_wire::io::FileId;
use instar_wire::op::check::Finding;
use instar_wire::op::{FormatName, Layer, Outcome, Request, Step};

/// So many findings are remembered of an image that had to be repaired before it can be changed.
const FOUND_MAX: usize = 10_000;

/// What a question is about.
pub struct Asking<'a> {
    /// The files.
    pub session: &'a Session,
    /// The images that the user named.
    pub images: &'a [Opened],
    /// The command line.
    pub parsed: &'a Parsed,
    /// How to go about it.
    pub settings: &'a Settings,
}

/// How a worker ended that did not do what it was asked.
pub enum End {
    /// It said that it could not.
    Failed(Error),
    /// It came down.
    Fell(Told),
}

/// The layers of every image, as far as they have been opened.
#[derive(Default)]
pub struct Heard {
    /// For each image its layers, top first.
    pub images: Vec<Vec<Layer>>,
    /// All of them are open.
    pub is_complete: bool,
    /// What was wrong with the first one, and has been repaired on the way; if there is much of that, its beginning.
    pub found: Vec<Finding>,
}

impl Heard {
    /// Takes note of a step.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Image => self.images.push(Vec::new()),
            Step::Layer(layer) => self.images.last_mut().into_iter().for_each(|layers| layers.push(layer.clone())),
            Step::Found(findings) => {
                let room = FOUND_MAX.saturating_sub(self.found.len());
                self.found.extend(findings.into_iter().take(room));
            }
        }
    }

    /// Formats and files of all layers.
    pub fn files(&self) -> impl Iterator<Item = (&FormatName, FileId)> {
        self.images.iter().flatten().map(|layer| (&layer.format, layer.file))
    }
}

/// Lines for standard error about images that could be opened.
pub fn warnings<'e>(session: &Session, settings: &Settings, all: impl Iterator<Item = &'e Error>) -> Vec<u8> {
    let manner = sentence::Manner {
        profile: &settings.profile,
        text: stderr_text(settings),
        display: &|id| session.name(FileId(id)),
        cause: &|_| None,
    };
    let prefix = settings.face.prefix();
    all.flat_map(|w| [format!("{prefix}: ").into_bytes(), sentence::warning(w, &manner)].concat()).collect()
}

impl Asking<'_> {
    /// Has a worker carry out a request.
    pub fn run(
        &self,
        mut cell: Box<dyn Cell>,
        request: &Request,
        events_max: u64,
        hear: OnEvent<'_>,
    ) -> Result<(), End> {
        match run_cell(self.session, &mut *cell, request, events_max, hear) {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::Failed(error)) => Err(End::Failed(error)),
            Err(collapse) => {
                let typed = self.images.first().map(|image| &image.typed[..]).unwrap_or_default();
                let name = stderr_text(self.settings).show(typed).into_owned();
                let sentence = [b"Could not open '", &name[..], b"': ", collapse.to_string().as_bytes()].concat();
                Err(End::Fell(Told::failure(self.settings, &sentence)))
            }
        }
    }

    /// An image whose file others write to is refused, unless it is raw and so has no structure to be wrong about.
    pub fn refuse_conflicts<'l>(&self, mut layers: impl Iterator<Item = (&'l FormatName, FileId)>) -> Result<(), Told> {
        layers.try_for_each(|(format, file)| if format.0 == b"raw" { Ok(()) } else { self.conflict(file) })
    }

    /// Refuses every file that others write to, raw ones as well: its content is about to be read.
    pub fn refuse_users(&self, heard: &Heard) -> Result<(), Told> {
        self.refuse_where(heard, |_| true)
    }

    /// Refuses every file that others write to, but raw ones: those have no structure to be wrong about.
    pub fn refuse_structured(&self, heard: &Heard) -> Result<(), Told> {
        self.refuse_where(heard, |layer| layer.format.0 != b"raw")
    }

    /// An image is told by the word on the command line, whichever of the layers below it others write to.
    fn refuse_where(&self, heard: &Heard, is_meant: impl Fn(&Layer) -> bool) -> Result<(), Told> {
        for (image, layers) in self.images.iter().zip(&heard.images) {
            for (depth, layer) in layers.iter().enumerate().filter(|(_, layer)| is_meant(layer)) {
                let Some(conflict) = self.session.conflict(layer.file) else { continue };
                return Err(self.in_use(&image.typed, depth, layer.file, &conflict));
            }
        }
        Ok(())
    }

    fn in_use(&self, image: &[u8], depth: usize, file: FileId, conflict: &Conflict) -> Told {
        let text = stderr_text(self.settings);
        let (image, name) = (text.show(image), self.session.name(file));
        let below = b"Could not open backing file: ".repeat(depth);
        let (why, name) = (conflict.to_string(), text.show(&name));
        let hint = b"\nIs another process using the image [";
        let parts = [b"Could not open '", &image[..], b"': ", &below, why.as_bytes(), hint, &name, b"]?"];
        Told::failure(self.settings, &parts.concat())
    }

    /// Lines for standard error that come before all others: what the descriptions of the images earned, what is to be
    /// said of the wall, and what although the images could be opened.
    pub fn notes(&self, heard: &Heard, wall: &[u8]) -> Vec<u8> {
        let described = self.images.iter().flat_map(|image| image.notes.iter().copied());
        let layers = heard.images.iter().flatten().flat_map(|layer| &layer.warnings);
        let warnings = warnings(self.session, self.settings, layers);
        let found = heard.found.iter().flat_map(|finding| self.found(heard, finding, b""));
        described.chain(wall.iter().copied()).chain(warnings).chain(found).collect()
    }

    /// The line that tells what is wrong with an image; natively it names the image.
    pub fn found(&self, heard: &Heard, finding: &Finding, name: &[u8]) -> Vec<u8> {
        let error = &finding.what;
        let words = match error.kind {
            Kind::Io => self.input_output(heard, error),
            _ => self.words(error),
        };
        let name = if name.is_empty() { self.images.first().map_or(name, |image| &image.typed) } else { name };
        match self.settings.face {
            Face::Qemu if sentence::apart(error).is_some() => Told::failure(self.settings, &words).stderr,
            Face::Qemu => [&words[..], b"\n"].concat(),
            Face::Native => Told::failure(self.settings, &[name, b": ", &words[..]].concat()).stderr,
        }
    }

    /// Refuses options that nobody knows, of every image and of those below it.
    pub fn check_known(&self, heard: &Heard) -> Result<(), Told> {
        let layers = heard.images.iter().map(|layers| layers.iter().map(|layer| &layer.format));
        let mut pairs = self.images.iter().zip(layers);
        pairs.try_for_each(|(image, formats)| opening::check_all_known(image, formats, self.settings))
    }

    /// Whether the image may be changed now that it is open; nothing of it has been changed yet.
    pub fn refuse_change(&self, heard: &Heard) -> Result<(), Told> {
        self.refuse_users(heard)?;
        self.check_known(heard)?;
        match (self.images.first(), heard.files().next()) {
            (Some(image), Some((format, _))) if READ_ONLY.contains(&&format.0[..]) => {
                let name = stderr_text(self.settings).show(&image.typed).into_owned();
                Err(Told::failure(self.settings, &[b"Could not open '", &name[..], b"': Image is read-only"].concat()))
            }
            _ => Ok(()),
        }
    }

    /// The lines with which qemu-img tells that it takes an image that will be written to for raw.
    pub fn guessed(&self, heard: &Heard) -> Vec<u8> {
        let (Some(image), Some((format, _))) = (self.images.first(), heard.files().next()) else { return Vec::new() };
        let is_said = image.source.as_ref().is_none_or(|source| source.file.pinned.is_some());
        if is_said || format.0 != b"raw" || self.settings.face != Face::Qemu {
            return Vec::new();
        }
        let name = stderr_text(self.settings).show(&image.typed).into_owned();
        let lines =
            b"' and probing guessed raw.\n         Automatically detecting the format is dangerous for raw images, \
                      write operations on block 0 will be restricted.\n         Specify the 'raw' format explicitly to \
                      remove the restrictions.\n";
        [b"WARNING: Image format was not specified for '", &name[..], lines].concat()
    }

    /// Whether all images have been opened, and a failure has another reason.
    pub fn has_all_open(&self, heard: &Heard) -> bool {
        heard.is_complete && heard.images.len() == self.images.len()
    }

    /// Why bytes could not be read or written, in the few words that qemu-img has for it; natively all are told.
    pub fn input_output(&self, heard: &Heard, error: &Error) -> Vec<u8> {
        let mishap = error.cause.and_then(|number| self.session.mishap(number));
        let words = match mishap.as_ref().map(|mishap| &mishap.why) {
            Some(Why::System(errno)) => system_words(*errno).into_bytes(),
            // What its QED driver finds wrong it takes for something wrong that it was asked.
            _ if self.is_told_of(heard, error, b"qed") => b"Invalid argument".to_vec(),
            _ if self.settings.face == Face::Qemu => b"Input/output error".to_vec(),
            _ => self.words(error),
        };
        // Of a copy it is the place that was read; it may have been the other file that failed.
        let named = error.file.filter(|_| self.settings.face == Face::Native).map(|file| self.session.name(file));
        match named.filter(|name| mishap.is_none_or(|mishap| mishap.name == *name)) {
            Some(name) => {
                let at = error.at.map_or(" in '".into(), |at| format!(" at offset {at} of '"));
                [&words[..], at.as_bytes(), &stderr_text(self.settings).show(&name), b"'"].concat()
            }
            None => words,
        }
    }

    /// The line with which qemu-img tells what is wrong in a qcow2, before it says what could not be done because of it.
    pub fn finding(&self, heard: &Heard, error: &Error) -> Vec<u8> {
        let words = self.is_told_of(heard, error, b"qcow2").then(|| self.words(error));
        let line = |words: Vec<u8>| {
            let end = b"; further non-fatal corruption events will be suppressed\n";
            [b"qcow2: Image is corrupt: ", &words[..], end].concat()
        };
        words.map(line).unwrap_or_default()
    }

    /// Whether it is the map of an image in this format that is wrong, and qemu-img's way to tell it is wanted.
    fn is_told_of(&self, heard: &Heard, error: &Error, format: &[u8]) -> bool {
        let mut files = heard.files();
        let is_in = files.any(|(name, file)| Some(file) == error.file && name.0 == format);
        self.settings.face == Face::Qemu && is_in && error.kind == Kind::Corrupt && error.at.is_some()
    }

    /// Refuses a file that others write to.
    pub fn conflict(&self, file: FileId) -> Result<(), Told> {
        let Some(conflict) = self.session.conflict(file) else { return Ok(()) };
        Err(self.in_use(&self.name_of(file), 0, file, &conflict))
    }

    /// What the user calls the image in a file: for one that was named, the word on the command line.
    pub fn name_of(&self, file: FileId) -> Vec<u8> {
        let own = |image: &&Opened| [Some(image.file.id), image.beside.as_ref().map(|b| b.id)].contains(&Some(file));
        let named = self.images.iter().find(own);
        named.map_or_else(|| self.session.name(file), |image| image.typed.clone())
    }

    /// The sentence for an image that the worker could not open, which is told by its own name.
    pub fn not_opened(&self, error: &Error) -> Told {
        if let Some((line, then)) = self.apart(error) {
            return self.not_opened(&then).after(&line);
        }
        let mishap = error.cause.and_then(|number| self.session.mishap(number));
        if let (Some(mishap), true) = (&mishap, error.what.0.is_empty()) {
            let image = error.file.map_or_else(|| mishap.name.clone(), |id| self.name_of(id));
            let sentence = self.loop_of(mishap).unwrap_or_else(|| mishap_sentence(&image, mishap, self.settings));
            return Told::failure(self.settings, &sentence);
        }
        let top = self.images.first().map_or(FileId(0), |image| image.file.id);
        let name = self.name_of(error.file.unwrap_or(top));
        Told::failure(self.settings, &self.with_manner(|manner| sentence::could_not_open(&name, error, manner)))
    }

    /// The line that qemu-img has for some errors, and what it says then of the image.
    fn apart(&self, error: &Error) -> Option<(Vec<u8>, Error)> {
        let then = sentence::apart(error).filter(|_| self.settings.face == Face::Qemu)?;
        Some((Told::failure(self.settings, &self.words(error)).stderr, then))
    }

    /// What an image that leads back to itself is told as.
    fn loop_of(&self, mishap: &instar_broker::Mishap) -> Option<Vec<u8>> {
        let text = stderr_text(self.settings);
        let is_loop = mishap.why == Why::Refused(Refusal::Cycle);
        is_loop.then(|| [b"Backing file '", &text.show(&mishap.name)[..], b"' creates an infinite loop."].concat())
    }

    /// The words of an error, without the image it happened to.
    pub fn words(&self, error: &Error) -> Vec<u8> {
        let mishap = error.cause.and_then(|number| self.session.mishap(number));
        match mishap {
            Some(mishap) if error.what.0.is_empty() => mishap_words(&mishap, self.settings, stderr_text(self.settings)),
            _ => self.with_manner(|manner| sentence::words(error, manner)),
        }
    }

    fn with_manner<T>(&self, say: impl FnOnce(&sentence::Manner<'_>) -> T) -> T {
        let text = stderr_text(self.settings);
        say(&sentence::Manner {
            profile: &self.settings.profile,
            text,
            display: &|id| self.session.name(FileId(id)),
            cause: &|number| self.session.mishap(number).map(|m| mishap_words(&m, self.settings, text)),
        })
    }

    /// What is told of a worker's failure while it opened the images; `heard` says how far it came.
    ///
    /// An image is told by the word on the command line, whichever of the layers below it is at fault.
    pub fn refused(&self, heard: &Heard, error: &Error) -> Told {
        if let Err(told) = self.refuse_structured(heard) {
            return told;
        }
        if let Some((line, then)) = self.apart(error) {
            return self.refused(heard, &then).after(&line);
        }
        let number = heard.images.len().saturating_sub(1);
        let typed = self.images.get(number).map(|image| &image.typed[..]).unwrap_or_default();
        let depth = heard.images.last().map_or(0, Vec::len);
        if let Some((file, conflict)) = error.file.and_then(|file| Some((file, self.session.conflict(file)?))) {
            return self.in_use(typed, depth, file, &conflict);
        }
        let mishap = error.cause.and_then(|number| self.session.mishap(number));
        if let Some(sentence) = mishap.and_then(|mishap| self.loop_of(&mishap)) {
            return Told::failure(self.settings, &sentence);
        }
        let below = b"Could not open backing file: ".repeat(depth);
        let name = stderr_text(self.settings).show(typed).into_owned();
        Told::failure(self.settings, &[b"Could not open '", &name[..], b"': ", &below, &self.words(error)].concat())
    }
}
