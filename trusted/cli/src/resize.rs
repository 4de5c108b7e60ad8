//! `resize`: makes an image longer or shorter.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::render::json;
use crate::settings::{Face, Settings};
use crate::setup::system_words;
use crate::{Told, setup};
use instar_wire::code::{Malformed, decode};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::resize::{Amount, Event, Request, Sizes, Space};
use std::os::unix::ffi::OsStrExt;

/// The formats whose images qemu-img can resize.
const RESIZED: &[&[u8]] = &[b"raw", b"qcow2", b"qed", b"luks"];

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, true);
    let images = [opening::open_to_change(parsed, 0, &mut session, settings)?];
    session.allow_heir(images[0].file.id);
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let (amount, space) = (amount(parsed), space(parsed));
    let request = Request { source: images[0].content(), amount, space, rules: setup::rules(settings) };
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
    let mut ear = Ear { asking: &asking, heard: Heard::default(), refused: None, sizes: None, now: None };
    let ended = asking.run(cell, &op::Request::Resize(request), u64::MAX, &mut |event| ear.take(event));
    let notes = [asking.notes(&ear.heard, &wall), asking.guessed(&ear.heard)].concat();
    let told = match (ear.refused.take(), ended) {
        (Some(told), _) | (None, Err(End::Fell(told))) => Err(told),
        (None, Err(End::Failed(error))) if ear.heard.is_complete => Err(ear.failed(&error)),
        (None, Err(End::Failed(error))) => Err(asking.refused(&ear.heard, &error)),
        (None, Ok(())) => session.inherit(images[0].file.id).map_err(|errno| {
            Told::failure(settings, &[b"Could not resize image: ", system_words(errno).as_bytes()].concat())
        }),
    };
    told.map_err(|told| told.after(&notes))?;
    Ok(Told { stdout: ear.show(), stderr: notes, ..Told::default() })
}

/// The size that the last word asks for.
fn amount(parsed: &Parsed) -> Amount {
    let size = parsed.number("size").unwrap_or(0);
    match parsed.words.last().and_then(|word| word.as_bytes().first()) {
        Some(b'+') => Amount::More(size),
        Some(b'-') => Amount::Less(size),
        _ => Amount::Whole(size),
    }
}

fn space(parsed: &Parsed) -> Space {
    match parsed.bytes("preallocation") {
        Some(b"metadata") => Space::Metadata,
        Some(b"falloc") => Space::Falloc,
        Some(b"full") => Space::Full,
        _ => Space::Off,
    }
}

/// What has been heard.
struct Ear<'a> {
    asking: &'a Asking<'a>,
    heard: Heard,
    /// Why it must not go on.
    refused: Option<Told>,
    sizes: Option<Sizes>,
    /// The size that the disk got.
    now: Option<u64>,
}

impl Ear<'_> {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match decode(event)? {
            Event::Step(step) => self.heard.step(step),
            Event::Ready(sizes) => {
                self.heard.is_complete = true;
                self.refused = self.asking.refuse_change(&self.heard).and_then(|()| self.judge(&sizes)).err();
                self.sizes = Some(sizes);
            }
            Event::Resized(now) => self.now = Some(now),
        }
        // There is no other way to have the worker stop.
        if self.refused.is_some() { Err(Malformed) } else { Ok(()) }
    }

    fn format(&self) -> &[u8] {
        let top = self.heard.images.first().and_then(|layers| layers.first());
        top.map_or(b"", |layer| &layer.format.0)
    }

    fn say(&self, sentence: &[u8]) -> Told {
        Told::failure(self.asking.settings, sentence)
    }

    /// Refuses what is not meant, or cannot be.
    fn judge(&self, sizes: &Sizes) -> Result<(), Told> {
        let Asking { parsed, settings, session, images } = self.asking;
        let new = sizes.new.ok_or_else(|| self.say(b"New image size must be positive"))?;
        let is_prepared = parsed.bytes("preallocation").is_some_and(|how| how != b"off");
        let how = parsed.bytes("preallocation").unwrap_or(b"off");
        if settings.face == Face::Native {
            if how == b"metadata" && self.format() == b"raw" {
                return Err(self.say(b"resize: --preallocation=metadata is not supported for raw"));
            }
            if is_prepared && new < sizes.old {
                let words = [b"resize: --preallocation=", how, b" is meaningless when shrinking"];
                return Err(self.say(&words.concat()));
            }
        } else if is_prepared && new <= sizes.old {
            return Err(self.say(b"Preallocation can only be used for growing images"));
        }
        if new < sizes.old && !parsed.has("shrink") {
            return Err(self.unasked());
        }
        if settings.face == Face::Qemu && !RESIZED.contains(&self.format()) {
            return Err(self.say(b"Image format driver does not support resize"));
        }
        let layers = self.heard.images.first().map(Vec::as_slice).unwrap_or_default();
        if settings.face == Face::Qemu && self.format() == b"qed" {
            if new < sizes.old {
                return Err(self.say(b"Shrinking images is currently not supported"));
            }
            let below = layers.get(1).map_or(0, |below| below.virtual_size);
            if new > sizes.old && below > sizes.old {
                return Err(self.say(b"Block driver does not support requested flags"));
            }
        }
        let is_device = session.facts(images[0].file.id).is_some_and(|facts| facts.device);
        if is_device && self.format() == b"raw" && new != sizes.old {
            return Err(self.say(b"Cannot resize device files"));
        }
        Ok(())
    }

    /// What is told to those who may not know what they lose.
    fn unasked(&self) -> Told {
        let told = self.say(b"Use the --shrink option to perform a shrink operation.");
        let warning = b"warning: Shrinking an image will delete all data beyond the shrunken image's end. Before \
                        performing such an operation, make sure there is no important data there.";
        match self.asking.settings.face {
            Face::Qemu => self.say(warning).after(&told.stderr),
            Face::Native => self.say(
                b"the image would become shorter, and what is behind its new end would be lost: that needs --shrink",
            ),
        }
    }

    /// The image could not be changed.
    fn failed(&self, error: &Error) -> Told {
        if error.cause.is_none() && error.kind != Kind::Io {
            return self.say(&self.asking.words(error));
        }
        let what = if error.what.0.is_empty() {
            b"Could not resize image".to_vec()
        } else {
            self.asking.words(&Error { cause: None, ..error.clone() })
        };
        self.say(&[&what[..], b": ", &self.asking.input_output(&self.heard, error)].concat())
    }

    fn show(&self) -> Vec<u8> {
        let parsed = self.asking.parsed;
        if parsed.bytes("output") == Some(b"json") {
            return json::pretty(&self.facts());
        }
        if parsed.has("quiet") { Vec::new() } else { b"Image resized.\n".to_vec() }
    }

    /// The native answer in JSON.
    fn facts(&self) -> Fact {
        let old = self.sizes.as_ref().map_or(0, |sizes| sizes.old);
        let new = self.now.unwrap_or(old);
        let action = match new.cmp(&old) {
            std::cmp::Ordering::Less => "shrink",
            std::cmp::Ordering::Equal => "noop",
            std::cmp::Ordering::Greater => "grow",
        };
        let image = &self.asking.images[0];
        let file_size = self.asking.session.length(image.file.id).unwrap_or(0);
        Fact::fields([
            ("filename", image.typed[..].into()),
            ("format", self.format().into()),
            ("action", action.into()),
            ("old_virtual_size", old.into()),
            ("new_virtual_size", new.into()),
            ("new_file_size", file_size.into()),
        ])
    }
}
