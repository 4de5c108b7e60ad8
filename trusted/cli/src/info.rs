//! `info`: tells what an image is.

use crate::args::Parsed;
use crate::asking::{Asking, End, warnings};
use crate::opening::{self, Opened};
use crate::render::info::{self as page, Layer, Node, Storage, Verdict};
use crate::render::size::Rounding;
use crate::render::snapshot::local_time;
use crate::settings::{Face, Settings};
use crate::setup;
use crate::{Told, stdout_text};
use instar_broker::policy::has_protocol;
use instar_broker::session::{Facts, Why};
use instar_broker::{Session, sys};
use instar_wire::code::{Malformed, decode};
use instar_wire::io::{FileId, Granted, Role};
use instar_wire::op::info::{Event, Image, Request, Snapshot};
use instar_wire::op::{self, Source};
use std::os::fd::AsFd;

/// Bytes of description one image may have: the largest snapshot table that is read, and room for the rest.
const EVENTS_MAX: u64 = 96 << 20;

/// A layer as the worker told it.
struct Heard {
    image: Image,
    snapshots: Vec<Snapshot>,
}

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, !parsed.has("force-share"));
    if setup::cache_is_direct(parsed, "cache", settings)? {
        session.read_directly();
    }
    let opened = [opening::open_to_tell(parsed, &mut session, settings)?];
    let asking = Asking { session: &session, images: &opened, parsed, settings };
    let [opened] = &opened;
    let asked = match &opened.source {
        Some(source) => ask(&asking, source)?,
        None => Asked::default(),
    };
    asking.refuse_conflicts(asked.heard.iter().map(|h| (&h.image.format, h.image.file)))?;
    opening::check_known(opened, settings)?;
    let telling = Telling { session: &session, settings, parsed, opened };
    let told = telling.show(&asked.heard);
    let refused = asked.refused.unwrap_or_default();
    let stderr = [opened.notes.clone(), asked.notes, told.stderr, refused.stderr].concat();
    Ok(Told { stderr, code: refused.code, ..told })
}

/// What came of asking a worker.
#[derive(Default)]
struct Asked {
    heard: Vec<Heard>,
    /// Lines for standard error.
    notes: Vec<u8>,
    /// Where policy ended a chain whose verdicts are wanted.
    refused: Option<Told>,
}

/// Has a worker look at the image.
fn ask(asking: &Asking<'_>, source: &Source) -> Result<Asked, Told> {
    let Asking { parsed, settings, .. } = *asking;
    let (cell, notes) = setup::cell(parsed, settings)?;
    let request = op::Request::Info(Request {
        // A key that nothing asks for stays outside.
        top: Source { key: source.key.clone().filter(|_| parsed.has("extra-detail")), ..source.clone() },
        rules: setup::rules(settings),
        chain: parsed.has("backing-chain") || parsed.has("chain"),
        open_data_file: !settings.profile.data_file_is_plain(),
        extra: parsed.has("extra-detail"),
    });
    let mut heard: Vec<Heard> = Vec::new();
    let mut hear = |event: &[u8]| {
        match decode(event)? {
            Event::Image(image) => heard.push(Heard { image: *image, snapshots: Vec::new() }),
            Event::Snapshots(some) => heard.last_mut().ok_or(Malformed)?.snapshots.extend(some),
        }
        Ok(())
    };
    let refusal = match asking.run(cell, &request, EVENTS_MAX, &mut hear) {
        Ok(()) => return Ok(Asked { heard, notes, refused: None }),
        Err(End::Failed(error)) => {
            // A file in use by others is the better reason, and qemu-img's first one.
            asking.refuse_conflicts(heard.iter().map(|h| (&h.image.format, h.image.file)))?;
            asking.conflict(error.file.unwrap_or(asking.images[0].file.id))?;
            let refusal = asking.not_opened(&error);
            let mishap = error.cause.and_then(|number| asking.session.mishap(number));
            let by_policy = mishap.is_some_and(|m| matches!(m.why, Why::Refused(_)));
            if by_policy && parsed.has("chain") && !heard.is_empty() {
                return Ok(Asked { heard, notes, refused: Some(refusal) });
            }
            refusal
        }
        Err(End::Fell(told)) => told,
    };
    Err(Told { stderr: [notes, refusal.stderr].concat(), ..refusal })
}

/// What is needed to show what was heard.
struct Telling<'a> {
    session: &'a Session,
    settings: &'a Settings,
    parsed: &'a Parsed,
    opened: &'a Opened,
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
            local: &local_time,
        };
        let mut layers = vec![self.top(heard.first())];
        layers.extend(heard.iter().skip(1).map(|h| self.layer(h)));
        let json = self.parsed.bytes("output") == Some(b"json");
        let chain = self.parsed.has("backing-chain") || self.parsed.has("chain");
        let stdout = if json { page::json(&layers, chain, &manner) } else { page::human(&layers, &manner) };
        let all = heard.iter().flat_map(|heard| &heard.image.warnings);
        Told { stdout, stderr: warnings(self.session, self.settings, all), ..Told::default() }
    }

    /// The layer that the user named, as the user described it.
    fn top(&self, heard: Option<&Heard>) -> Layer {
        let file = &self.opened.file;
        let found = heard.map_or(&b"raw"[..], |h| &h.image.format.0);
        let node = opening::settle(self.opened.node.clone(), found, &self.settings.profile);
        let plain = || Heard { image: plain(file, self.session), snapshots: Vec::new() };
        let mut layer = heard.map_or_else(|| self.layer(&plain()), |h| self.layer(h));
        let own = layer.nodes.split_off(1);
        layer.nodes = opening::below(&node, self.session, file, layer.told.virtual_size);
        layer.nodes.iter_mut().for_each(|n| n.storage = self.storage(file.id));
        layer.nodes.extend(own);
        layer.name = node.display_name();
        layer.actual = opening::allocated(&node, self.session, file).and(layer.actual);
        if heard.is_none() || opening::is_filter(&node) {
            layer.told.format = node.driver_name().unwrap_or("raw").into();
            layer.told.specific = None;
            layer.told.backing = None;
        }
        layer
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
            // Requests are the format's business; memory is the file's.
            storage: Storage { request: 1, ..self.storage(image.file) },
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
            storage: self.storage(file),
        }
    }

    /// What the file demands of memory and requests.
    fn storage(&self, file: FileId) -> Storage {
        const SECTOR: u32 = 512;
        let alignments = self.session.file(file).and_then(|f| sys::direct_alignments(f.as_fd()));
        let (memory, offset) = alignments.unwrap_or((SECTOR, SECTOR));
        match self.session.reads_directly() {
            true => Storage { request: offset.max(SECTOR), min_mem: memory.max(SECTOR), ..Storage::default() },
            false => Storage::default(),
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
        let mut verdicts: Vec<Verdict> = image.backing.iter().map(|b| verdict(Role::Backing, &b.name.0)).collect();
        let data_file = image.specific.as_ref().and_then(|s| s.get("data-file"));
        if let Some(instar_wire::fact::Fact::Text(name)) = data_file {
            verdicts.push(verdict(Role::DataFile, &name.0));
        }
        verdicts
    }
}

/// A file that is not looked into.
fn plain(file: &Granted, session: &Session) -> Image {
    let len = session.facts(file.id).map_or(0, |f| f.len);
    let mut image = Image::plain(file.id, "raw", len.checked_next_multiple_of(512).unwrap_or(len));
    image.limits.request = 0;
    image
}
