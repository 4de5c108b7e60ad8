//! `info`: tells what an image is.

use crate::args::Parsed;
use crate::render::info::{self as page, Layer, Node, Storage, Verdict};
use crate::render::sentence;
use crate::render::size::Rounding;
use crate::render::snapshot::LocalTime;
use crate::settings::{Face, Settings};
use crate::setup::{self, bytes, mishap_sentence, mishap_words};
use crate::{Told, stderr_text, stdout_text};
use instar_broker::policy::has_protocol;
use instar_broker::session::Facts;
use instar_broker::{Session, run as run_cell, sys};
use instar_wire::code::{Malformed, decode};
use instar_wire::error::Error;
use instar_wire::io::{FileId, Granted, Role};
use instar_wire::op::info::{Event, Image, Request, Snapshot};
use instar_wire::op::{self, Outcome, Rules, Source};

/// Bytes of description one image may have: the largest snapshot table that is read, and room for the rest.
const EVENTS_MAX: u64 = 96 << 20;

/// A layer as the worker told it.
struct Heard {
    image: Image,
    snapshots: Vec<Snapshot>,
}

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let name = parsed.words.first().map(|w| w.as_encoded_bytes().to_vec()).unwrap_or_default();
    let mut session = setup::session(settings, !parsed.has("force-share"));
    let mut file = session
        .open(&name)
        .map_err(|mishap| Told::failure(settings, &mishap_sentence(&name, &mishap, settings)))?;
    file.pinned = bytes(parsed, "format").map(Into::into);
    let (heard, wall) = ask(&session, file, parsed, settings)?;
    refuse_conflicts(&session, &heard, settings)?;
    let told = Telling { session: &session, settings, parsed };
    let mut out = told.show(&heard);
    out.stderr = [wall, out.stderr].concat();
    Ok(out)
}

/// Has a worker look at the image.
fn ask(session: &Session, file: Granted, parsed: &Parsed, settings: &Settings) -> Result<(Vec<Heard>, Vec<u8>), Told> {
    let (mut cell, wall) = setup::cell(parsed, settings)?;
    let top = file.id;
    let request = op::Request::Info(Request {
        top: Source { file, raw_offset: None, raw_size: None },
        rules: Rules { as_qemu: settings.unsafe_quirks },
        chain: parsed.has("backing-chain") || parsed.has("chain"),
        open_data_file: !parsed.profile.since(6, 0, 0),
        extra: parsed.has("extra-detail"),
    });
    let mut heard: Vec<Heard> = Vec::new();
    let mut hear = |event: &[u8]| {
        match decode(event)? {
            Event::Image(image) => heard.push(Heard { image, snapshots: Vec::new() }),
            Event::Snapshots(some) => heard.last_mut().ok_or(Malformed)?.snapshots.extend(some),
        }
        Ok(())
    };
    let outcome = run_cell(session, &mut *cell, &request, EVENTS_MAX, &mut hear);
    match outcome {
        Ok(Outcome::Done) => Ok((heard, wall)),
        Ok(Outcome::Failed(error)) => {
            // A file in use by others is the better reason, and qemu-img's first one.
            refuse_conflicts(session, &heard, settings)?;
            conflict(session, error.file.unwrap_or(top), settings)?;
            Err(Told::failure(settings, &failure(session, top, &error, settings)))
        }
        Err(collapse) => {
            let name = stderr_text(settings).show(&session.name(top)).into_owned();
            let sentence = [b"Could not open '", &name[..], b"': ", collapse.to_string().as_bytes()].concat();
            Err(Told::failure(settings, &sentence))
        }
    }
}

/// An image whose file others write to is refused, unless it is raw and so has no structure to be wrong about.
fn refuse_conflicts(session: &Session, heard: &[Heard], settings: &Settings) -> Result<(), Told> {
    heard.iter().filter(|h| h.image.format.0 != b"raw").try_for_each(|h| conflict(session, h.image.file, settings))
}

fn conflict(session: &Session, file: FileId, settings: &Settings) -> Result<(), Told> {
    let Some(conflict) = session.conflict(file) else { return Ok(()) };
    let name = session.name(file);
    let name = stderr_text(settings).show(&name).into_owned();
    let why = conflict.to_string();
    let hint = b"\nIs another process using the image [";
    let sentence = [b"Could not open '", &name[..], b"': ", why.as_bytes(), hint, &name, b"]?"].concat();
    Err(Told::failure(settings, &sentence))
}

/// The sentence for what the worker could not do.
fn failure(session: &Session, top: FileId, error: &Error, settings: &Settings) -> Vec<u8> {
    let text = stderr_text(settings);
    let mishap = error.cause.and_then(|number| session.mishap(number));
    if let (Some(mishap), true) = (&mishap, error.what.0.is_empty()) {
        let image = error.file.map_or_else(|| mishap.name.clone(), |id| session.name(id));
        return mishap_sentence(&image, mishap, settings);
    }
    let manner = sentence::Manner {
        profile: &settings.profile,
        text,
        display: &|id| session.name(FileId(id)),
        cause: &|number| session.mishap(number).map(|m| mishap_words(&m, settings, text)),
    };
    sentence::could_not_open(&session.name(error.file.unwrap_or(top)), error, &manner)
}

/// What is needed to show what was heard.
struct Telling<'a> {
    session: &'a Session,
    settings: &'a Settings,
    parsed: &'a Parsed,
}

impl Telling<'_> {
    fn show(&self, heard: &[Heard]) -> Told {
        let native = self.settings.face == Face::Native;
        let manner = page::Manner {
            profile: &self.settings.profile,
            native,
            limits: self.parsed.has("limits"),
            rounding: if self.settings.ignore_quirks { Rounding::OneDecimal } else { Rounding::AsQemu },
            text: stdout_text(self.settings),
            display: &|id| self.session.name(FileId(id)),
            local: &local,
        };
        let layers: Vec<Layer> = heard.iter().map(|h| self.layer(h)).collect();
        let json = bytes(self.parsed, "output") == Some(b"json");
        let chain = self.parsed.has("backing-chain") || self.parsed.has("chain");
        let stdout = if json { page::json(&layers, chain, &manner) } else { page::human(&layers, &manner) };
        Told { stdout, stderr: self.warnings(heard), code: 0 }
    }

    /// What should be said although the image could be read.
    fn warnings(&self, heard: &[Heard]) -> Vec<u8> {
        let manner = sentence::Manner {
            profile: &self.settings.profile,
            text: stderr_text(self.settings),
            display: &|id| self.session.name(FileId(id)),
            cause: &|_| None,
        };
        let prefix = self.settings.face.prefix();
        let warnings = heard.iter().flat_map(|h| &h.image.warnings);
        warnings.flat_map(|w| [format!("{prefix}: ").into_bytes(), sentence::warning(w, &manner)].concat()).collect()
    }

    fn layer(&self, heard: &Heard) -> Layer {
        let image = &heard.image;
        let mut nodes = vec![self.node(b"file", image.file)];
        nodes.extend(image.children.iter().map(|child| self.node(&child.name.0, child.file)));
        let mut files: Vec<FileId> = [image.file].into_iter().chain(image.children.iter().map(|c| c.file)).collect();
        files.dedup();
        Layer {
            snapshots: heard.snapshots.clone(),
            name: self.session.name(image.file),
            actual: files.iter().map(|id| self.session.facts(*id).map(|f| f.allocated)).sum(),
            nodes,
            backing_path: image.backing.as_ref().map(|b| self.path_of(image.file, &b.name.0)),
            storage: Storage::default(),
            verdicts: if self.parsed.has("chain") { self.verdicts(image) } else { Vec::new() },
            told: image.clone(),
        }
    }

    fn node(&self, name: &[u8], file: FileId) -> Node {
        let facts = self.session.facts(file).unwrap_or(Facts { len: 0, allocated: 0, device: false });
        Node {
            name: name.to_vec(),
            display: self.session.name(file),
            driver: if facts.device { b"host_device".to_vec() } else { b"file".to_vec() },
            length: facts.len,
            actual: Some(facts.allocated),
            children: Vec::new(),
            is_format: false,
            storage: Storage::default(),
        }
    }

    /// Where a name that an image holds leads, as the user would write it.
    fn path_of(&self, from: FileId, name: &[u8]) -> Vec<u8> {
        if has_protocol(name) { name.to_vec() } else { self.session.name_beside(from, name) }
    }

    /// What policy says of the files that the image names.
    fn verdicts(&self, image: &Image) -> Vec<Verdict> {
        let verdict = |role: Role, name: &[u8]| Verdict {
            role,
            name: name.to_vec(),
            refused: self.session.verdict(image.file, &name.into()).err().map(|r| r.to_string().into_bytes()),
        };
        let mut verdicts: Vec<Verdict> =
            image.backing.iter().map(|b| verdict(Role::Backing, &b.name.0)).collect();
        let data_file = image.specific.as_ref().and_then(|s| s.get("data-file"));
        if let Some(instar_wire::fact::Fact::Text(name)) = data_file {
            verdicts.push(verdict(Role::DataFile, &name.0));
        }
        verdicts
    }
}

fn local(seconds: i64) -> LocalTime {
    let [year, rest @ ..] = sys::local_time(seconds);
    let [month, day, hour, minute, second] = rest.map(|part| u8::try_from(part).unwrap_or(0));
    LocalTime { year, month, day, hour, minute, second }
}
