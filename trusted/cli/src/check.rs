//! `check`: tells what is wrong in an image.

use crate::Told;
use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening;
use crate::render::check as page;
use crate::render::json;
use crate::settings::{Face, Settings};
use crate::setup;
use instar_wire::code::{Malformed, decode};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::check::{Event, Finding, Fixed, Repair, Request, Summary};
use std::io::{self, Write};

/// There are errors.
const CORRUPT: u8 = 2;
/// Space is lost, and nothing else is wrong.
const LEAKING: u8 = 3;
/// There is nothing that could be checked.
const UNCHECKED: u8 = 63;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let repair = match parsed.bytes("repair") {
        Some(b"leaks") => Repair::Leaks,
        Some(_) => Repair::All,
        None => Repair::None,
    };
    let changes = repair != Repair::None;
    let mut session = setup::session(settings, !parsed.has("force-share"));
    if setup::cache_is_direct(parsed, "cache", settings)? {
        session.read_directly();
    }
    session.read_content();
    let images = [if changes {
        refuse_sharing(parsed, settings)?;
        opening::open_to_change(parsed, 0, &mut session, settings)?
    } else {
        opening::open(parsed, 0, &mut session, settings)?
    }];
    let asking = Asking { session: &session, images: &images, parsed, settings };
    let (top, rules) = (images[0].content(), setup::rules(settings));
    let request = Request { top, rules, chain: parsed.has("chain"), repair };
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
    let mut ear = Ear {
        asking: &asking,
        changes,
        wall,
        heard: Heard::default(),
        refused: None,
        results: Vec::new(),
        fixed: None,
    };
    let ended = asking.run(cell, &op::Request::Check(request), u64::MAX, &mut |event| ear.take(event));
    ear.end(ended)
}

/// Who writes must know that nobody else does.
fn refuse_sharing(parsed: &Parsed, settings: &Settings) -> Result<(), Told> {
    if !parsed.has("force-share") {
        return Ok(());
    }
    let name = parsed.named(0, "format").name;
    let name = crate::stderr_text(settings).show(name).into_owned();
    let words = b"': force-share=on can only be used with read-only images";
    Err(Told::failure(settings, &[b"Could not open '", &name[..], words].concat()))
}

/// What has been heard.
struct Ear<'a> {
    asking: &'a Asking<'a>,
    /// Errors are to be repaired.
    changes: bool,
    /// What is to be said of the wall.
    wall: Vec<u8>,
    heard: Heard,
    /// Why it must not go on.
    refused: Option<Told>,
    /// What was found in each layer, if that could be checked.
    results: Vec<Option<Summary>>,
    /// What has been repaired of the first one.
    fixed: Option<Fixed>,
}

impl Ear<'_> {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match decode(event)? {
            Event::Step(step) => self.heard.step(step),
            Event::Ready => {
                self.heard.is_complete = true;
                let known = self.asking.check_known(&self.heard);
                let refused = if self.changes { self.asking.refuse_change(&self.heard) } else { Ok(()) };
                self.refused = self.asking.refuse_structured(&self.heard).and(known).and(refused).err();
                say(&self.asking.notes(&self.heard, &self.wall));
                if self.changes {
                    say(&self.asking.guessed(&self.heard));
                }
            }
            Event::Repaired(fixed) => self.fixed = Some(fixed),
            Event::Findings(findings) => self.tell(&findings),
            Event::Summary(summary) => self.results.push(Some(summary)),
            Event::Unchecked => self.results.push(None),
        }
        // There is no other way to have the worker stop.
        if self.refused.is_some() { Err(Malformed) } else { Ok(()) }
    }

    /// Findings are told at once: there may be more of them than there is room for.
    fn tell(&self, findings: &[Finding]) {
        let name = self.name(self.results.len());
        let lines: Vec<Vec<u8>> =
            findings.iter().map(|finding| self.asking.found(&self.heard, finding, &name)).collect();
        say(&lines.concat());
    }

    /// What the layer at that depth is called.
    fn name(&self, depth: usize) -> Vec<u8> {
        let layer = self.heard.images.first().and_then(|layers| layers.get(depth));
        match layer {
            Some(layer) if depth > 0 => self.asking.session.name(layer.file),
            _ => self.asking.images[0].typed.clone(),
        }
    }

    fn end(mut self, ended: Result<(), End>) -> Result<Told, Told> {
        let settings = self.asking.settings;
        if let Some(told) = self.refused.take() {
            return Err(told);
        }
        match ended {
            Ok(()) => {}
            Err(End::Fell(told)) => return Err(told.after(&self.unsaid())),
            Err(End::Failed(error)) if self.heard.is_complete => return Err(self.failed(&error)),
            Err(End::Failed(error)) => return Err(self.asking.refused(&self.heard, &error).after(&self.unsaid())),
        }
        if let (Some(fixed), Some(Some(first))) = (self.fixed, self.results.first_mut()) {
            first.fixed = fixed;
        }
        if self.results.iter().all(Option::is_none) {
            let told = Told::failure(settings, b"This image format does not support checks");
            return Err(Told { code: UNCHECKED, ..told });
        }
        let all = |weight: fn(&Summary) -> u64| self.results.iter().flatten().map(weight).any(|count| count > 0);
        let (code, stderr) = if all(|summary| summary.failures) {
            (1, Told::failure(settings, b"Check failed").stderr)
        } else if all(|summary| summary.corruptions) {
            (CORRUPT, Vec::new())
        } else if all(|summary| summary.leaks) {
            (LEAKING, Vec::new())
        } else {
            (0, Vec::new())
        };
        let stdout = if self.asking.parsed.has("quiet") { Vec::new() } else { self.show() };
        Ok(Told { stdout, stderr, code, ..Told::default() })
    }

    /// The notes, if they have not been said.
    fn unsaid(&self) -> Vec<u8> {
        if self.heard.is_complete { Vec::new() } else { self.asking.notes(&self.heard, &self.wall) }
    }

    /// The check itself came to an end too early.
    fn failed(&self, error: &Error) -> Told {
        let (settings, words) = (self.asking.settings, self.asking.words(error));
        if settings.face == Face::Native {
            return Told::failure(
                settings,
                &[b"Check failed: ", &self.asking.input_output(&self.heard, error)[..]].concat(),
            );
        }
        // What went wrong may have been told already.
        let is_told = error.what.0.is_empty() && error.cause.is_none();
        let why: &[u8] = match error.kind {
            Kind::Corrupt if is_told => b"Invalid argument",
            Kind::Refused if is_told => b"Operation not permitted",
            // What it was told by its own driver.
            Kind::Refused if error.cause.is_none() => &words,
            _ if !error.what.0.starts_with(b"ERROR") => &self.asking.input_output(&self.heard, error),
            Kind::TooBig => b"File too large",
            Kind::Corrupt => b"Invalid argument",
            _ => b"Input/output error",
        };
        let told = Told::failure(settings, &[b"Check failed: ", why].concat());
        let is_said = error.what.0.starts_with(b"ERROR");
        if is_said { told.after(&Told::failure(settings, &words).stderr) } else { told }
    }

    fn show(&self) -> Vec<u8> {
        let Asking { parsed, settings, .. } = self.asking;
        let layers = self.heard.images.first().into_iter().flatten();
        let is_chain = parsed.has("chain");
        let is_json = parsed.bytes("output") == Some(b"json");
        let manner = page::Manner {
            // Where qemu-img leaves out that nothing is wrong, it is said natively.
            full: settings.face == Face::Native && !settings.unsafe_quirks,
        };
        let pages = self.results.iter().zip(layers).enumerate().map(|(depth, (result, layer))| {
            let name = self.name(depth);
            let facts = page::facts(result.as_ref(), &name, &layer.format.0, &manner);
            match (result, is_json) {
                (_, true) => (facts, Vec::new()),
                (Some(summary), false) => (facts, [page::repaired(&summary.fixed), page::human(summary)].concat()),
                (None, false) => (facts, b"This image format does not support checks\n".to_vec()),
            }
        });
        let pages: Vec<(Fact, Vec<u8>)> = pages.collect();
        match (is_json, is_chain) {
            (true, true) => json::pretty(&Fact::List(pages.into_iter().map(|(facts, _)| facts).collect())),
            (true, false) => pages.first().map(|(facts, _)| json::pretty(facts)).unwrap_or_default(),
            (false, true) => {
                let text = crate::stdout_text(settings);
                let head = |depth: usize| [b"image: ", &text.show(&self.name(depth))[..], b"\n"].concat();
                let parts = pages.into_iter().enumerate();
                let parts: Vec<Vec<u8>> = parts.map(|(depth, (_, page))| [head(depth), page].concat()).collect();
                parts.join(&b"\n"[..])
            }
            (false, false) => pages.into_iter().next().map(|(_, page)| page).unwrap_or_default(),
        }
    }
}

/// Standard error may be closed; what is found is in the exit code all the same.
fn say(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}
