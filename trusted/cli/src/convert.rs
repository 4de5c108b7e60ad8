//! `convert`: copies images into a new one, or over one that exists.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::making::{Making, Wanted, is_device};
use crate::opening::{self, Opened};
use crate::render::options;
use crate::render::progress::Progress;
use crate::settings::{Face, Settings};
use crate::setup;
use crate::{Told, stderr_text};
use instar_broker::Session;
use instar_wire::code::{Malformed, decode};
use instar_wire::error::Error;
use instar_wire::op;
use instar_wire::op::convert::{Bitmaps, Event, Progress as Counted, Request, Share, Trouble};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Runs of zeroes of this length are left out, if nothing else is asked for.
const SPARSE: u64 = 4096;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let count = parsed.words.len().saturating_sub(1);
    if parsed.asks_for_options() {
        let named = if count > 0 { parsed.words.last() } else { None };
        let format = parsed.bytes("target-format").unwrap_or(b"raw");
        let on_device = format == b"raw" && named.is_some_and(|name| is_device(name.as_bytes()));
        let format = if on_device { b"host_device" } else { format };
        return options::told(format, named.is_some(), settings);
    }
    let mut session = setup::session(settings, !parsed.has("force-share"));
    session.read_content();
    if setup::cache_is_direct(parsed, "source-cache", settings)? {
        session.read_directly();
    }
    if setup::target_lasts(parsed) {
        session.make_lasting();
    }
    if let Some(rate) = parsed.number("rate-limit") {
        session.limit_rate(rate);
    }
    let mut progress = Progress::new(parsed.has("progress") && !parsed.has("quiet"));
    progress.begin(0);
    let told = copy(parsed, settings, &mut session, count, &mut progress);
    progress.end(told.is_ok());
    told
}

/// Copies the images that are the first `count` words.
fn copy(
    parsed: &Parsed,
    settings: &Settings,
    session: &mut Session,
    count: usize,
    progress: &mut Progress,
) -> Result<Told, Told> {
    let open = |at| opening::open_named(parsed, &parsed.named(at, "source-format"), session, settings);
    let images: Vec<Opened> = (0..count).map(open).collect::<Result<_, Told>>()?;
    let name = parsed.words.get(count).map(|word| word.as_bytes().to_vec()).unwrap_or_default();
    let is_stream = settings.face == Face::Native && name == b"/dev/stdout" && !is_file(&name);
    let mut making = Making::new(Wanted { name, is_stream, ..Wanted::default() }, parsed, session, settings);
    let shallow = making.stands_on_another();
    let too_many = [
        (count > 1 && parsed.has("snapshot"), "No support for concatenating multiple snapshot"),
        (
            count > 1 && shallow,
            "Having a backing file for the target makes no sense when concatenating multiple input images",
        ),
        (count > 1 && parsed.has("bitmaps"), "Copying bitmaps only possible with single source"),
    ];
    if let Some((_, sentence)) = too_many.iter().find(|(wrong, _)| *wrong) {
        return Err(Told::failure(settings, sentence.as_bytes()));
    }
    let sparse = parsed.number("sparse-size").unwrap_or(SPARSE);
    let request = Request {
        sources: images.iter().map(Opened::content).collect(),
        rules: setup::rules(settings),
        snapshot: parsed.bytes("snapshot").map(setup::pick),
        share: if shallow { Share::Above(1) } else { Share::Whole },
        target: making.request(),
        sparse: u32::try_from(sparse).unwrap_or(u32::MAX),
        salvage: parsed.has("salvage"),
        offload: parsed.has("copy-range-offloading"),
        bitmaps: match (parsed.has("bitmaps"), parsed.has("skip-broken-bitmaps")) {
            (false, _) => Bitmaps::None,
            (true, false) => Bitmaps::All,
            (true, true) => Bitmaps::Sound,
        },
        progress: if progress.is_shown() { Counted::Moved } else { Counted::Passed },
    };
    let copying = Copying(Asking { session, images: &images, parsed, settings });
    let told = copying.run(request, op::Request::Convert, &mut making, progress)?;
    making.publish(session)?;
    Ok(told)
}

/// Whether a name is that of a plain file.
pub fn is_file(name: &[u8]) -> bool {
    std::fs::metadata(OsStr::from_bytes(name)).is_ok_and(|about| about.is_file())
}

/// A copy of what these images hold.
pub struct Copying<'a>(pub Asking<'a>);

/// What has been heard of it.
#[derive(Default)]
struct Ear {
    heard: Heard,
    /// What went wrong first, in the order of all that is copied.
    stopped: Option<Trouble>,
    unmapped: Option<Trouble>,
    salvaged: Vec<Trouble>,
    /// There is no such snapshot.
    is_unpicked: bool,
    /// The target could not be given its length or its space.
    is_unmade: bool,
    /// The image to be written to could not be opened.
    is_unopened: bool,
    /// Bitmaps that are broken.
    broken: Vec<Vec<u8>>,
    /// The part to be copied begins beyond the end.
    is_beyond: bool,
    /// Why it must not go on.
    refused: Option<Told>,
}

/// The one format that keeps snapshots and bitmaps, which can be read with the image.
const KEEPER: &[u8] = b"qcow2";

impl Copying<'_> {
    /// Has the worker copy. A stream gets all its bytes, and one after the other.
    pub fn run(
        &self,
        request: Request,
        wrap: impl FnOnce(Request) -> op::Request,
        making: &mut Making<'_>,
        progress: &mut Progress,
    ) -> Result<Told, Told> {
        let Asking { session, parsed, settings, .. } = self.0;
        let lanes = parsed.number("parallel").and_then(|n| usize::try_from(n).ok());
        let lanes = if making.is_stream() { Some(1) } else { lanes };
        let request = Request { sparse: if making.is_stream() { 0 } else { request.sparse }, ..request };
        let (cell, wall) = setup::moving_cell(parsed, settings, lanes)?;
        let mut ear = Ear::default();
        let mut hear = |event: &[u8]| {
            match decode(event)? {
                Event::Step(step) => ear.heard.step(step),
                Event::Unpicked => ear.is_unpicked = true,
                Event::Beyond => ear.is_beyond = true,
                Event::Ready(total) => {
                    ear.heard.is_complete = true;
                    // A file in use by others must not be copied, and nothing of the target be touched before that.
                    let checked = self.0.refuse_users(&ear.heard);
                    let checked = checked.and_then(|()| self.0.check_known(&ear.heard));
                    let checked = checked.and_then(|()| self.check_bitmaps(&ear.heard));
                    let made = checked.and_then(|()| making.make(session, total));
                    ear.refused = made.and_then(|()| self.refuse_bitmaps(making)).err();
                    progress.expect(total);
                }
                Event::Work(bytes) => progress.expect(bytes),
                Event::Unmade => ear.is_unmade = true,
                Event::Unopened => ear.is_unopened = true,
                Event::Broken(name) => ear.broken.push(name.0),
                Event::Done(bytes) => progress.advance(bytes),
                Event::Salvaged(trouble) => ear.salvaged.push(trouble),
                Event::Written(_) | Event::Emptied(_) => {}
                Event::Unmapped(trouble) => ear.unmapped = Some(trouble),
                Event::Stopped(trouble) => {
                    if ear.stopped.as_ref().is_none_or(|before| trouble.to < before.to) {
                        ear.stopped = Some(trouble);
                    }
                }
            }
            // Who must not go on is kept from the target.
            if ear.refused.is_some() { Err(Malformed) } else { Ok(()) }
        };
        let ended = self.0.run(cell, &wrap(request), u64::MAX, &mut hear);
        // Images that are read are not repaired: what has been was the target.
        let found = std::mem::take(&mut ear.heard.found);
        let found: Vec<u8> = found.iter().flat_map(|one| self.0.found(&ear.heard, one, making.name())).collect();
        let stderr = [
            self.0.notes(&ear.heard, &wall),
            found,
            self.passed_over(&ear),
            self.beyond(&ear),
            Lost { asking: &self.0, heard: &ear.heard }.lines(&ear.salvaged),
        ]
        .concat();
        match ended {
            Ok(()) => Ok(Told { stderr, ..Told::default() }),
            Err(end) => {
                let told = self.failed(end, ear, making);
                Err(Told { stderr: [stderr, told.stderr].concat(), ..told })
            }
        }
    }

    /// Bitmaps that are to be copied must come from an image that can have some.
    fn check_bitmaps(&self, heard: &Heard) -> Result<(), Told> {
        let keeps = self.format(heard).is_none_or(|format| format == KEEPER);
        match self.0.parsed.has("bitmaps") && !keeps {
            true => Err(Told::failure(self.0.settings, b"Source lacks bitmap support")),
            false => Ok(()),
        }
    }

    /// A raw target has no place for bitmaps.
    fn refuse_bitmaps(&self, making: &Making<'_>) -> Result<(), Told> {
        match self.0.parsed.has("bitmaps") {
            true if !making.keeps_bitmaps() => {
                Err(making.say(&[b"Format driver '", making.format(), b"' does not support bitmaps"].concat()))
            }
            true => Ok(()),
            false => Ok(()),
        }
    }

    /// The format of the first image.
    fn format<'h>(&self, heard: &'h Heard) -> Option<&'h [u8]> {
        heard.images.first().and_then(|layers| layers.first()).map(|layer| &layer.format.0[..])
    }

    /// What is said of a broken bitmap that was to be copied.
    fn broken(&self, name: &[u8], error: &Error) -> Vec<u8> {
        if self.0.settings.profile.skips_broken_bitmaps() {
            let hint = b"\nTry --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it";
            return [&self.0.words(error)[..], hint].concat();
        }
        let name = &stderr_text(self.0.settings).show(name)[..];
        let hint =
            b"' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk";
        [b"Failed to populate bitmap ", name, b": Bitmap '", name, hint].concat()
    }

    /// Lines about bitmaps that are not copied.
    fn passed_over(&self, ear: &Ear) -> Vec<u8> {
        let prefix = self.0.settings.face.prefix().as_bytes();
        let line = |name: &Vec<u8>| {
            let name = stderr_text(self.0.settings).show(name).into_owned();
            [prefix, b": warning: Skipping inconsistent bitmap '", &name, b"'\n"].concat()
        };
        let passes = self.0.parsed.has("skip-broken-bitmaps");
        ear.broken.iter().filter(|_| passes).flat_map(line).collect()
    }

    /// The line about a part that begins beyond the end of the image.
    fn beyond(&self, ear: &Ear) -> Vec<u8> {
        let name = self.0.images.first().map(|image| &image.typed[..]).unwrap_or_default();
        let name = stderr_text(self.0.settings).show(name).into_owned();
        let line = [self.0.settings.face.prefix().as_bytes(), b": ", &name, b": cannot skip to specified offset\n"];
        if ear.is_beyond { line.concat() } else { Vec::new() }
    }

    fn failed(&self, end: End, ear: Ear, making: &Making<'_>) -> Told {
        let settings = self.0.settings;
        if let Some(told) = ear.refused {
            return told;
        }
        let error = match end {
            End::Fell(told) => return told,
            End::Failed(error) => error,
        };
        if ear.is_unpicked {
            return Told::failure(settings, &self.0.words(&error));
        }
        if let (Some(name), false) = (ear.broken.first(), self.0.parsed.has("skip-broken-bitmaps")) {
            return Told::failure(settings, &self.broken(name, &error));
        }
        if ear.is_unmade {
            return making.unmade(&self.0, &ear.heard, &error);
        }
        if ear.is_unopened {
            return making.not_opened(&self.0.words(&error));
        }
        match ear.unmapped.or(ear.stopped) {
            Some(trouble) => self.stopped(&trouble, &ear.heard, making),
            None if self.0.has_all_open(&ear.heard) => Told::failure(settings, &self.0.words(&error)),
            None => self.0.refused(&ear.heard, &error),
        }
    }

    /// What is said of bytes that could not be read or written.
    fn stopped(&self, trouble: &Trouble, heard: &Heard, making: &Making<'_>) -> Told {
        let Trouble { at, to, in_map, error, .. } = trouble;
        let name = error.cause.and_then(|number| self.0.session.mishap(number)).map(|mishap| mishap.name);
        let is_writing = name.as_deref() == Some(making.name());
        let words = self.0.input_output(heard, error);
        let sentence = match (self.0.parsed.verb.name, is_writing) {
            ("dd", true) => "error while writing to output image file: ".to_owned(),
            ("dd", false) => "error while reading from input image file: ".to_owned(),
            (_, true) => format!("error while writing at byte {to}: "),
            (_, false) if *in_map => format!("error while reading block status at offset {at}: "),
            (_, false) => format!("error while reading at byte {to}: "),
        };
        let told = Told::failure(self.0.settings, &[sentence.as_bytes(), &words].concat());
        told.after(&self.0.finding(heard, error))
    }
}

/// A sector, of which one at a time is given up.
const SECTOR: usize = 512;
/// So many lines about what could not be read are enough for anyone.
const LOST_MAX: usize = 1 << 20;

/// Tells what could not be read and became zeroes.
struct Lost<'a> {
    asking: &'a Asking<'a>,
    heard: &'a Heard,
}

impl Lost<'_> {
    /// The lines, in the order of what was copied.
    fn lines(&self, troubles: &[Trouble]) -> Vec<u8> {
        let mut troubles: Vec<&Trouble> = troubles.iter().collect();
        troubles.sort_by_key(|trouble| trouble.to);
        let native = self.asking.settings.face == Face::Native;
        // Who does not know where a byte lies finds out twice: when it counts what there is to copy, and when it copies.
        let counted = troubles.iter().filter(|trouble| trouble.in_map && !native);
        let counted = counted.flat_map(|trouble| sectors(trouble).map(|at| (*trouble, at, true)));
        let copied = troubles.iter().flat_map(|trouble| {
            let each = sectors(trouble).take(if native { 1 } else { usize::MAX });
            each.flat_map(|at| {
                let both = [(*trouble, at, true), (*trouble, at, false)];
                both.into_iter()
                    .filter(|(.., in_map)| if native { *in_map == trouble.in_map } else { !*in_map || trouble.in_map })
            })
        });
        let mut all = counted.chain(copied);
        let (mut out, mut found) = (Vec::new(), Vec::new());
        for (trouble, at, in_map) in all.by_ref().take(LOST_MAX) {
            if !found.contains(&trouble.error.file) {
                out.extend(self.asking.finding(self.heard, &trouble.error));
                found.push(trouble.error.file);
            }
            out.extend(self.line(&trouble.error, at, in_map));
        }
        if all.next().is_some() {
            let prefix = self.asking.settings.face.prefix();
            out.extend(format!("{prefix}: warning: more of it could not be read\n").into_bytes());
        }
        out
    }

    fn line(&self, error: &Error, at: u64, in_map: bool) -> Vec<u8> {
        let prefix = self.asking.settings.face.prefix();
        let what = if in_map { "block status at offset" } else { "offset" };
        let words = self.asking.input_output(self.heard, error);
        [format!("{prefix}: warning: error while reading {what} {at}: ").as_bytes(), &words, b"\n"].concat()
    }
}

/// Where the sectors of a range are in their image.
fn sectors(trouble: &Trouble) -> impl Iterator<Item = u64> + use<> {
    (trouble.at..trouble.at.saturating_add(trouble.len.max(1))).step_by(SECTOR)
}
