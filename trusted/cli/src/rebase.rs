//! `rebase`: an image stands on another one from now on.

use crate::args::Parsed;
use crate::args::node::{Named, drivers};
use crate::asking::{Asking, Heard};
use crate::opening::{self, Opened};
use crate::render::json;
use crate::render::progress::Progress;
use crate::settings::{Face, Settings};
use crate::transfer::{Failed, Transfer};
use crate::{Told, recipe, setup, stderr_text};
use instar_broker::Session;
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::convert::{Bitmaps, Goal, Progress as Counted, Request as Copy, Share, Target};
use instar_wire::op::rebase::Request;
use instar_wire::op::{Below, Source};

/// The formats whose images qemu-img can have stand on others than they did, and those that we can.
const REBASED: &[&[u8]] = &[b"qcow2", b"qed"];
const REBASED_BY_US: &[&[u8]] = &[b"qcow2", b"qed", b"vmdk", b"vpc", b"vhdx"];
/// A format that does not tell how long its clusters are.
const UNTOLD: &[u8] = b"parallels";
/// The formats that can be compressed.
const PACKED: &[&[u8]] = &[b"qcow2", b"qcow", b"vmdk"];
/// Runs of zeroes of this length are looked for.
const SPARSE: u32 = 4096;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, true);
    session.write_early();
    let is_direct = setup::cache_is_direct(parsed, "cache", settings)?;
    let below_is_direct = setup::cache_is_direct(parsed, "backing-cache", settings)?;
    if is_direct || below_is_direct {
        session.read_directly();
    }
    let mut progress = Progress::new(parsed.has("progress") && !parsed.has("quiet"));
    progress.begin(0);
    let told = Rebase::new(parsed, &mut session, settings).and_then(|rebase| rebase.run(&session, &mut progress));
    progress.end(told.is_ok());
    told
}

struct Rebase<'a> {
    parsed: &'a Parsed,
    settings: &'a Settings,
    image: [Opened; 1],
    /// What it will stand on, if that is looked at; or the lines that say why that cannot be.
    new: Option<Result<Opened, Vec<u8>>>,
    /// Where that is.
    place: Vec<u8>,
}

impl<'a> Rebase<'a> {
    fn new(parsed: &'a Parsed, session: &mut Session, settings: &'a Settings) -> Result<Self, Told> {
        // Whoever shares, shares what lies below.
        let own = Named { force_share: false, ..parsed.named(0, "format") };
        let image = opening::change(parsed, &own, session, settings)?;
        if parsed.has("force-share") {
            session.share();
        }
        let name = parsed.bytes("backing").unwrap_or_default();
        let place = recipe::beside(&session.name(image.file.id), name);
        let is_looked_at = !name.is_empty() && !parsed.has("backing-unsafe");
        let known =
            parsed.bytes("backing-format").is_none_or(|name| drivers::driver(name, &settings.profile).is_some());
        let new = (is_looked_at && known).then(|| {
            let named = Named { format: parsed.bytes("backing-format"), ..Named::plain(&place) };
            opening::open_named(parsed, &named, session, settings).map_err(|told| told.stderr)
        });
        Ok(Rebase { parsed, settings, image: [image], new, place })
    }

    fn name(&self) -> &[u8] {
        self.parsed.bytes("backing").unwrap_or_default()
    }

    fn is_safe(&self) -> bool {
        !self.parsed.has("backing-unsafe")
    }

    fn say(&self, sentence: &[u8]) -> Told {
        Told::failure(self.settings, sentence)
    }

    fn request(&self, is_counted: bool) -> Request {
        let image = self.image[0].content();
        let below = match &self.new {
            Some(Ok(new)) => Below::Instead(Box::new(new.content())),
            _ => Below::None,
        };
        let old = if self.is_safe() { image.below.clone() } else { Below::None };
        let copy = Copy {
            sources: vec![Source { below: old, ..image.clone() }],
            rules: setup::rules(self.settings),
            snapshot: None,
            share: Share::Below,
            target: Target {
                goal: Goal::There(Box::new(Source { below, ..image })),
                at: 0,
                len: None,
                is_zero: false,
                is_clean: true,
                compress: self.parsed.has("compress"),
            },
            sparse: SPARSE,
            salvage: false,
            offload: false,
            bitmaps: Bitmaps::None,
            progress: if is_counted { Counted::Moved } else { Counted::Passed },
        };
        let format = self.parsed.bytes("backing-format").filter(|_| !self.name().is_empty());
        Request {
            copy: Box::new(copy),
            is_safe: self.is_safe(),
            name: self.name().into(),
            format: format.map(Into::into),
        }
    }

    fn run(&self, session: &Session, progress: &mut Progress) -> Result<Told, Told> {
        let (parsed, settings) = (self.parsed, self.settings);
        let asking = Asking { session, images: &self.image, parsed, settings };
        let mut transfer = Transfer::default();
        let request = op::Request::Rebase(self.request(progress.is_shown()));
        let ended = transfer.run(&asking, &request, &mut |heard| self.judge(&asking, heard), progress);
        let notes = self.notes(&asking, &transfer.heard, ended.as_ref().map_or(b"", |wall| wall));
        let told = ended.map_err(|failed| match failed {
            Failed::Told(told) => told,
            Failed::Opening(error) if transfer.heard.images.len() > 1 => {
                self.about_new(session, &transfer.heard, |asking, heard| asking.refused(heard, &error))
            }
            Failed::Opening(error) => asking.refused(&transfer.heard, &error),
            Failed::Later(error) => self.failed(&asking, &transfer, &error),
        });
        told.map_err(|told| told.after(&notes))?;
        Ok(Told { stdout: self.show(&transfer), stderr: notes, ..Told::default() })
    }

    /// What is said of the image that it is to stand on.
    fn about_new(&self, session: &Session, heard: &Heard, say: impl FnOnce(&Asking<'_>, &Heard) -> Told) -> Told {
        let Some(Ok(new)) = &self.new else { return Told::default() };
        let images = std::slice::from_ref(new);
        let asking = Asking { session, images, parsed: self.parsed, settings: self.settings };
        let layers = heard.images.get(1..).unwrap_or_default().to_vec();
        self.not_opened(
            &say(&asking, &Heard { images: layers, is_complete: heard.is_complete, ..Heard::default() }).stderr,
        )
    }

    /// The same words, said of the new image.
    fn not_opened(&self, lines: &[u8]) -> Told {
        let text = stderr_text(self.settings);
        let general = [b"Could not open '", &text.show(&self.place)[..], b"': "].concat();
        let ours = [b"Could not open new backing file '", &text.show(self.name())[..], b"': "].concat();
        let at = lines.windows(general.len()).position(|words| words == general);
        let stderr = match at {
            Some(at) => [&lines[..at], &ours, &lines[at + general.len()..]].concat(),
            None => lines.to_vec(),
        };
        Told { stderr, code: 1, ..Told::default() }
    }

    /// Refuses what cannot be, now that everything is open.
    fn judge(&self, asking: &Asking<'_>, heard: &Heard) -> Result<(), Told> {
        let Asking { session, settings, parsed, .. } = asking;
        let own =
            Heard { images: heard.images.iter().take(1).cloned().collect(), is_complete: true, ..Heard::default() };
        asking.refuse_change(&own)?;
        let format = own.files().next().map_or(&b""[..], |(format, _)| &format.0[..]);
        let is_native = settings.face == Face::Native;
        if parsed.has("compress") && !PACKED.contains(&format) {
            return Err(self.say(b"Compression not supported for this file format"));
        }
        if let Some(name) = parsed.bytes("backing-format")
            && drivers::driver(name, &settings.profile).is_none()
        {
            return Err(self.say(&[b"Invalid format name: '", name, b"'"].concat()));
        }
        if format == UNTOLD && !is_native && settings.profile.rebase_asks_for_clusters() {
            return Err(self.say(b"could not get block driver info"));
        }
        match &self.new {
            Some(Err(lines)) => return Err(self.not_opened(lines)),
            Some(Ok(new)) => {
                let images = std::slice::from_ref(new);
                let asking = Asking { session, images, parsed, settings };
                let layers = heard.images.get(1..).unwrap_or_default().to_vec();
                let heard = Heard { images: layers, is_complete: true, ..Heard::default() };
                let checked = asking.refuse_users(&heard).and_then(|()| asking.check_known(&heard));
                checked.map_err(|told| self.not_opened(&told.stderr))?;
            }
            None => {}
        }
        let demands = is_native || settings.profile.backing_format_required();
        if !self.name().is_empty() && parsed.bytes("backing-format").is_none() && demands {
            return Err(self.not_changed(b"backing format must be specified"));
        }
        let formats = if is_native { REBASED_BY_US } else { REBASED };
        if !formats.contains(&format) {
            return Err(self.not_changed(b"Operation not supported"));
        }
        Ok(())
    }

    fn not_changed(&self, why: &[u8]) -> Told {
        let name = self.parsed.bytes("backing").unwrap_or(b"(null)");
        let name = stderr_text(self.settings).show(name).into_owned();
        self.say(&[b"Could not change the backing file to '", &name[..], b"': ", why].concat())
    }

    /// It could not be done, or not all of it.
    fn failed(&self, asking: &Asking<'_>, transfer: &Transfer, error: &Error) -> Told {
        match &transfer.stopped {
            Some(trouble) => {
                let words = asking.input_output(&transfer.heard, &trouble.error);
                let told = self.say(&[b"error while copying from the old backing file: ", &words[..]].concat());
                told.after(&asking.finding(&transfer.heard, &trouble.error))
            }
            None if self.settings.face == Face::Qemu
                && error.kind == Kind::TooBig
                && transfer.format(0) == b"qcow2" =>
            {
                self.not_changed(b"Invalid argument")
            }
            None if error.what.0.is_empty() => self.not_changed(&asking.input_output(&transfer.heard, error)),
            None => self.not_changed(&asking.words(error)),
        }
    }

    fn notes(&self, asking: &Asking<'_>, heard: &Heard, wall: &[u8]) -> Vec<u8> {
        let warning = b": warning: Deprecated use of backing file without explicit backing format, use of this image \
                        requires potentially unsafe format probing\n";
        let is_unsaid = !self.name().is_empty() && self.parsed.bytes("backing-format").is_none();
        let warns = is_unsaid && !self.settings.profile.backing_format_required() && heard.is_complete;
        let warning = if warns && self.settings.face == Face::Qemu {
            [self.settings.face.prefix().as_bytes(), warning].concat()
        } else {
            Vec::new()
        };
        let of_new = match &self.new {
            Some(Ok(new)) => new.notes.clone(),
            _ => Vec::new(),
        };
        [asking.notes(heard, wall), of_new, asking.guessed(heard), warning].concat()
    }

    fn show(&self, transfer: &Transfer) -> Vec<u8> {
        if self.parsed.bytes("output") == Some(b"json") {
            return json::pretty(&self.facts(transfer));
        }
        match (self.settings.face, self.parsed.has("quiet"), self.name().is_empty()) {
            (Face::Qemu, ..) | (_, true, _) => Vec::new(),
            (Face::Native, false, true) => b"Image detached.\n".to_vec(),
            (Face::Native, false, false) => b"Image rebased.\n".to_vec(),
        }
    }

    /// The native answer in JSON.
    fn facts(&self, transfer: &Transfer) -> Fact {
        let (bytes, unit) = transfer.written;
        let mut facts = Fact::fields([
            ("overlay", self.image[0].typed[..].into()),
            ("overlay_format", transfer.format(0).into()),
            ("mode", if self.is_safe() { "safe" } else { "unsafe" }.into()),
        ]);
        match self.name() {
            [] => facts.add("detached", true),
            name => facts.add("new_backing", name),
        }
        facts.add("clusters_copied", bytes.div_ceil(unit.max(1)));
        facts.add("bytes_copied", bytes);
        facts
    }
}
