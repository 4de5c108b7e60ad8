//! `snapshot`: lists the snapshots inside an image.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::profile::Family;
use crate::render::json;
use crate::render::size::Rounding;
use crate::render::snapshot::{self as page, local_time};
use crate::settings::{Face, Settings};
use crate::{Told, setup, stderr_text, stdout_text};
use instar_wire::code::decode;
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::info::Snapshot;
use instar_wire::op::snapshot::{Event, Request};

/// Bytes of the largest table of snapshots, and room for what is told beside it.
const EVENTS_MAX: u64 = 96 << 20;
/// The modes that change an image.
const CHANGES: &[&str] = &["apply", "create", "delete"];

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    if CHANGES.iter().any(|mode| parsed.has(mode)) {
        return Err(refuse_change(parsed, settings));
    }
    let mut session = setup::session(settings, !parsed.has("force-share"));
    session.read_content();
    let images = [opening::open(parsed, 0, &mut session, settings)?];
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let (cell, wall) = setup::cell(parsed, settings)?;
    let (mut heard, mut snapshots): (Heard, Vec<Snapshot>) = Default::default();
    let mut hear = |event: &[u8]| {
        match decode(event)? {
            Event::Step(step) => heard.step(step),
            Event::Snapshots(some) => snapshots.extend(some),
        }
        Ok(())
    };
    let request = op::Request::Snapshot(Request { source: images[0].content(), rules: setup::rules(settings) });
    let ended = asking.run(cell, &request, EVENTS_MAX, &mut hear);
    let told = ended.map_err(|end| match end {
        End::Fell(told) => told,
        End::Failed(error) => asking.refused(&heard, &error),
    });
    let told = told.and_then(|()| asking.refuse_users(&heard)).and_then(|()| asking.check_known(&heard));
    let notes = asking.notes(&heard, &wall);
    told.map_err(|told| told.after(&notes))?;
    Ok(Told { stdout: show(&snapshots, parsed, settings), stderr: notes, ..Told::default() })
}

fn refuse_change(parsed: &Parsed, settings: &Settings) -> Told {
    if parsed.has("force-share") {
        let name = stderr_text(settings).show(parsed.named(0, "format").name).into_owned();
        let why = b"': force-share=on can only be used with read-only images";
        return Told::failure(settings, &[b"Could not open '", &name[..], why].concat());
    }
    Told::failure(settings, b"snapshots can be listed, but not made, applied or deleted")
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
