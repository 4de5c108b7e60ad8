//! `bitmap`: changes the bitmaps inside an image.

use crate::args::Parsed;
use crate::args::node::Named;
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::settings::{Face, Settings};
use crate::{Told, setup, stderr_text};
use instar_wire::code::{Bytes, Malformed, decode};
use instar_wire::error::{Error, Kind};
use instar_wire::op;
use instar_wire::op::bitmap::{Action, Event, Request};
use std::os::unix::ffi::OsStrExt;

/// What qemu-img calls an image that nobody has named; its last digits are random.
const NODE: &str = "#block100";

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, true);
    let mut images = vec![opening::open_to_change(parsed, 0, &mut session, settings)?];
    if let Some(name) = parsed.bytes("source-file") {
        let named = Named { format: parsed.bytes("source-format"), ..Named::plain(name) };
        images.push(opening::open_named(parsed, &named, &mut session, settings)?);
    }
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let request = Request {
        source: images[0].content(),
        from: images.get(1).map(opening::Opened::content),
        name: parsed.words.get(1).map_or(&b""[..], |word| word.as_bytes()).into(),
        actions: actions(parsed).map(|(_, action)| action).collect(),
        rules: setup::rules(settings),
    };
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
    let name = request.name.clone();
    let mut ear = Ear { asking: &asking, heard: Heard::default(), stopped: None, is_lost: false, refused: None };
    let ended = asking.run(cell, &op::Request::Bitmap(request), u64::MAX, &mut |event| ear.take(event));
    let notes = [asking.notes(&ear.heard, &wall), asking.guessed(&ear.heard)].concat();
    let told = match (ear.stopped.take(), ended) {
        (Some(told), _) | (None, Err(End::Fell(told))) => Err(told),
        (None, Err(End::Failed(error))) if ear.heard.is_complete => ear.failed(&name, &error),
        (None, Err(End::Failed(error))) => Err(asking.refused(&ear.heard, &error)),
        (None, Ok(())) => Ok(Told::default()),
    };
    told.map(|told| told.after(&notes)).map_err(|told| told.after(&notes))
}

/// What is to be done, in the order of the command line, each with the option that says so.
fn actions(parsed: &Parsed) -> impl Iterator<Item = (&'static str, Action)> {
    let granularity = parsed.number("granularity").unwrap_or(0);
    parsed.options.iter().filter_map(move |given| {
        let action = match given.key {
            "add" => Action::Add(granularity),
            "remove" => Action::Remove,
            "remove-all" => Action::RemoveAll,
            "clear" => Action::Clear,
            "enable" => Action::Enable,
            "disable" => Action::Disable,
            "merge" => Action::Merge(given.value.as_ref().map_or(&b""[..], |name| name.as_bytes()).into()),
            _ => return None,
        };
        Some((given.key, action))
    })
}

/// What has been heard.
struct Ear<'a> {
    asking: &'a Asking<'a>,
    heard: Heard,
    /// Why it must not go on.
    stopped: Option<Told>,
    /// Nothing could be kept.
    is_lost: bool,
    /// The number of the action that could not be done.
    refused: Option<u64>,
}

impl Ear<'_> {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match decode(event)? {
            Event::Step(step) => self.heard.step(step),
            Event::Ready => {
                self.heard.is_complete = true;
                self.stopped = self.judge().err();
            }
            Event::Lost => self.is_lost = true,
            Event::Refused(number) => self.refused = Some(number),
        }
        // There is no other way to have the worker stop.
        if self.stopped.is_some() { Err(Malformed) } else { Ok(()) }
    }

    /// Whether the image may be changed, and the other one read: a raw one is not, whatever is in it.
    fn judge(&self) -> Result<(), Told> {
        self.asking.refuse_structured(&self.heard)?;
        let top = Heard { images: self.heard.images.iter().take(1).cloned().collect(), ..Heard::default() };
        self.asking.refuse_change(&top)?;
        self.asking.check_known(&self.heard)
    }

    /// What is told of what could not be done.
    fn failed(&self, name: &Bytes, error: &Error) -> Result<Told, Told> {
        let Asking { parsed, settings, .. } = self.asking;
        let is_lost = self.is_lost && settings.face == Face::Qemu;
        let Some(number) = self.refused else {
            return if is_lost { self.lost(Told::default()) } else { Err(self.unkept(error)) };
        };
        let action = usize::try_from(number).ok().and_then(|number| actions(parsed).nth(number));
        let (action, name) = (action.map_or("", |(key, _)| key).as_bytes(), stderr_text(settings).show(&name.0));
        let words = self.asking.words(&self.placed(error));
        let told =
            Told::failure(settings, &[b"Operation ", action, b" on bitmap ", &name, b" failed: ", &words].concat());
        if is_lost { self.lost(told) } else { Err(told) }
    }

    /// The error with the node named as qemu-img does, where it is about that.
    fn placed(&self, error: &Error) -> Error {
        if self.asking.settings.face == Face::Native {
            return error.clone();
        }
        let what = String::from_utf8_lossy(&error.what.0).replace("{file}", NODE);
        Error { what: what.as_str().into(), ..error.clone() }
    }

    /// What is told when nothing could be kept because there is no byte that a bit could stand for.
    fn lost(&self, before: Told) -> Result<Told, Told> {
        let settings = self.asking.settings;
        let line = format!("Lost persistent bitmaps during inactivation of node '{NODE}': No memory");
        let line = Told::failure(settings, line.as_bytes());
        if !settings.profile.closing_is_checked() {
            let told = line.after(&before.stderr);
            return if before.code == 0 { Ok(Told { code: 0, ..told }) } else { Err(told) };
        }
        let why = Told::failure(settings, b"Error while closing the image: Invalid argument");
        Err(Told { stderr: [&line.stderr[..], &why.stderr, &line.stderr].concat(), ..line }.after(&before.stderr))
    }

    /// What is told of bitmaps that could not be written.
    fn unkept(&self, error: &Error) -> Told {
        let Asking { settings, .. } = self.asking;
        if error.cause.is_none() && error.kind != Kind::Io {
            return Told::failure(settings, &self.asking.words(error));
        }
        let why = self.asking.input_output(&self.heard, error);
        let lost = b"Lost persistent bitmaps during inactivation of node '";
        let lines = match settings.face {
            Face::Qemu => [lost, NODE.as_bytes(), b"': ", &why[..]].concat(),
            Face::Native => [b"the bitmaps could not be written: ", &why[..]].concat(),
        };
        Told::failure(settings, &lines)
    }
}
