//! `snapshot`: lists the snapshots inside an image, takes, applies and deletes them.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::profile::Family;
use crate::render::json;
use crate::render::size::Rounding;
use crate::render::snapshot::{self as page, local_time};
use crate::settings::{Face, Settings};
use crate::{Told, setup, stderr_text, stdout_text};
use instar_wire::code::{Bytes, Malformed, decode};
use instar_wire::error::Error;
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::info::Snapshot;
use instar_wire::op::snapshot::{Action, Event, Request, Taken};
use std::time::SystemTime;

/// Bytes of the largest table of snapshots, and room for what is told beside it.
const EVENTS_MAX: u64 = 96 << 20;
/// The longest name that a snapshot can be given so that all of it is told.
const NAME_MAX: usize = 255;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let action = action(parsed);
    if let (Action::Take(new), Face::Native) = (&action, settings.face)
        && !(1..=NAME_MAX).contains(&new.name.0.len())
    {
        return Err(Told::failure(settings, b"the name of a snapshot has at least one byte, and at most 255"));
    }
    let does_change = action != Action::List;
    if does_change && parsed.has("force-share") {
        let name = stderr_text(settings).show(parsed.named(0, "format").name).into_owned();
        let why = b"': force-share=on can only be used with read-only images";
        return Err(Told::failure(settings, &[b"Could not open '", &name[..], why].concat()));
    }
    let mut session = setup::session(settings, !parsed.has("force-share"));
    let images = [match does_change {
        true => opening::open_to_change(parsed, 0, &mut session, settings)?,
        false => {
            session.read_content();
            opening::open(parsed, 0, &mut session, settings)?
        }
    }];
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let request = Request { source: images[0].content(), action: action.clone(), rules: setup::rules(settings) };
    let (cell, wall) = match does_change {
        true => setup::moving_cell(parsed, settings, Some(1))?,
        false => setup::cell(parsed, settings)?,
    };
    let mut ear = Ear { asking: &asking, heard: Heard::default(), snapshots: Vec::new(), refused: None };
    let events_max = if does_change { u64::MAX } else { EVENTS_MAX };
    let ended = asking.run(cell, &op::Request::Snapshot(request), events_max, &mut |event| ear.take(event));
    let Ear { heard, snapshots, refused, .. } = ear;
    let told = match (refused, ended) {
        (Some(told), _) | (None, Err(End::Fell(told))) => Err(told),
        (None, Err(End::Failed(error))) if does_change && heard.is_complete => {
            Err(Told::failure(settings, &failed(&action, &error, &asking)))
        }
        (None, Err(End::Failed(error))) => Err(asking.refused(&heard, &error)),
        (None, Ok(())) if does_change => Ok(()),
        (None, Ok(())) => asking.refuse_users(&heard).and_then(|()| asking.check_known(&heard)),
    };
    let guessed = if does_change { asking.guessed(&heard) } else { Vec::new() };
    // Applying looks at what the disk is on as well.
    let times = if matches!(action, Action::Apply(_)) { 2 } else { 1 };
    let notes = [asking.notes(&heard, &wall), guessed.repeat(times)].concat();
    told.map_err(|told| told.after(&notes))?;
    let stdout = if does_change { Vec::new() } else { show(&snapshots, parsed, settings) };
    Ok(Told { stdout, stderr: notes, ..Told::default() })
}

/// What is wanted.
fn action(parsed: &Parsed) -> Action {
    let pick = |mode: &str| parsed.bytes(mode).map(|name| Bytes(name.to_vec()));
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let take = |name: Bytes| {
        let now = now();
        // There is no room for more than these bits of a date.
        let date_sec = u32::try_from(now.as_secs() & u64::from(u32::MAX)).unwrap_or(0);
        Action::Take(Taken { name, date_sec, date_nsec: now.subsec_nanos() })
    };
    let take = pick("create").map(take);
    let change = take.or_else(|| pick("apply").map(Action::Apply)).or_else(|| pick("delete").map(Action::Delete));
    change.unwrap_or(Action::List)
}

/// What is said when it could not be done.
fn failed(action: &Action, error: &Error, asking: &Asking<'_>) -> Vec<u8> {
    let (before, name) = match action {
        Action::List => return asking.words(error),
        Action::Take(new) => ("Could not create snapshot '{}': ", &new.name),
        Action::Apply(name) => ("Could not apply snapshot '{}': ", name),
        Action::Delete(name) => ("Could not delete snapshot '{}': ", name),
    };
    let args = [Fact::from(name.clone())].into_iter().chain(error.args.iter().cloned()).collect();
    let what = Bytes([before.as_bytes(), &error.what.0].concat());
    let mut words = asking.words(&Error { what, args, ..error.clone() });
    if error.what.0.is_empty() {
        words.extend(asking.input_output(&Heard::default(), error));
    }
    words
}

/// What has been heard.
struct Ear<'a> {
    asking: &'a Asking<'a>,
    heard: Heard,
    snapshots: Vec<Snapshot>,
    /// Why it must not go on.
    refused: Option<Told>,
}

impl Ear<'_> {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match decode(event)? {
            Event::Step(step) => self.heard.step(step),
            Event::Snapshots(some) => self.snapshots.extend(some),
            Event::Ready => {
                self.heard.is_complete = true;
                self.refused = self.asking.refuse_change(&self.heard).err();
            }
        }
        // There is no other way to have the worker stop.
        if self.refused.is_some() { Err(Malformed) } else { Ok(()) }
    }
}

fn show(snapshots: &[Snapshot], parsed: &Parsed, settings: &Settings) -> Vec<u8> {
    if parsed.bytes("output") == Some(b"json") {
        return json::pretty(&Fact::List(snapshots.iter().map(facts).collect()));
    }
    // Nothing was asked for, and so nothing is told, before listing became what is done by default.
    let by_default = settings.face == Face::Native || settings.profile.family() != Family::Old;
    let is_asked = parsed.has("list") || by_default;
    if snapshots.is_empty() || !is_asked {
        return Vec::new();
    }
    let manner = page::Manner {
        profile: &settings.profile,
        rounding: if settings.ignore_quirks { Rounding::OneDecimal } else { Rounding::AsQemu },
        text: stdout_text(settings),
        local: &local_time,
    };
    [b"Snapshot list:\n", &page::table(snapshots, &manner)[..]].concat()
}

/// A snapshot, as the native list in JSON has it.
fn facts(one: &Snapshot) -> Fact {
    let date = [("seconds", one.date_sec.into()), ("nanoseconds", one.date_nsec.into())];
    let mut facts = Fact::fields([
        ("id", one.id.clone().into()),
        ("name", one.name.clone().into()),
        ("vm-state-size", one.vm_state_size.into()),
        ("date", Fact::fields(date)),
        ("vm-clock", one.vm_clock_nsec.into()),
    ]);
    if let Some(count) = one.icount {
        facts.add("icount", count);
    }
    facts
}
