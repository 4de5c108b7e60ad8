//! `map`: tells what every range of a disk is, and where its bytes lie.

use crate::args::Parsed;
use crate::asking::{Asking, End, Heard};
use crate::opening::{self, Opened};
use crate::render::map::{Manner, Page};
use crate::render::spool::Spool;
use crate::settings::{Face, Settings};
use crate::setup;
use crate::{Told, stdout_text};
use instar_broker::Session;
use instar_wire::code::{Malformed, decode};
use instar_wire::io::FileId;
use instar_wire::op;
use instar_wire::op::map::{Event, ROW_LEN, Request, rows};
use std::io;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, !parsed.has("force-share"));
    session.read_content();
    let opened = [opening::open(parsed, 0, &mut session, settings)?];
    let asking = Asking { session: &session, images: &opened, parsed, settings };
    let json = parsed.bytes("output") == Some(b"json");
    let start = parsed.number("start-offset").unwrap_or(0);
    let request = Request {
        top: opened[0].content(),
        rules: setup::rules(settings),
        start,
        length: parsed.number("max-length"),
        plain: !json,
    };
    let (cell, wall) = setup::moving_cell(parsed, settings, Some(1))?;
    let mut ear = Ear::default();
    let ended = asking.run(cell, &op::Request::Map(request), u64::MAX, &mut |event| ear.take(event));
    let stderr = asking.notes(&ear.heard, &wall);
    let (rows, failure) = ear.end(ended, &asking).map_err(|told| told.after(&stderr))?;
    let told = match failure {
        None => Told { stderr, ..Told::default() },
        // Half a map is of no use, but qemu-img's is out already when it finds what is wrong.
        Some(told) if settings.face == Face::Native => return Err(told.after(&stderr)),
        Some(told) => told.after(&stderr),
    };
    let [opened] = opened;
    let whole = told.code == 0;
    let show = Showing { session, opened, settings: settings.clone(), json, start, whole };
    Ok(Told { print: Some(Box::new(move |out| show.show(rows, out))), ..told })
}

/// What has been heard.
#[derive(Default)]
struct Ear {
    heard: Heard,
    rows: Spool,
    /// Why the rows could not be kept.
    spoiled: Option<io::Error>,
    /// There are data that lie nowhere as they are.
    hidden: bool,
}

impl Ear {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match decode(event)? {
            Event::Step(step) => self.heard.step(step),
            Event::Ready => self.heard.is_complete = true,
            Event::Hidden => self.hidden = true,
            Event::Rows(some) => {
                if some.0.len() % ROW_LEN != 0 {
                    return Err(Malformed);
                }
                self.spoiled = self.rows.add(&some.0).err();
            }
        }
        // There is no other way to have the worker stop.
        if self.spoiled.is_some() { Err(Malformed) } else { Ok(()) }
    }

    /// The rows, and what went wrong after the last of them.
    fn end(self, ended: Result<(), End>, asking: &Asking<'_>) -> Result<(Spool, Option<Told>), Told> {
        let settings = asking.settings;
        if let Some(error) = self.spoiled {
            let sentence = format!("cannot keep the map in {}: {error}", std::env::temp_dir().display());
            return Err(Told::failure(settings, sentence.as_bytes()));
        }
        let failure = match ended {
            Ok(()) if self.hidden => {
                Some(Told::failure(settings, b"File contains external, encrypted or compressed clusters."))
            }
            Ok(()) => None,
            Err(End::Fell(told)) => return Err(told),
            Err(End::Failed(error)) if asking.has_all_open(&self.heard) => {
                let words = asking.input_output(&self.heard, &error);
                let told = Told::failure(settings, &[b"Could not read file metadata: ", &words[..]].concat());
                Some(told.after(&asking.finding(&self.heard, &error)))
            }
            Err(End::Failed(error)) => return Err(asking.refused(&self.heard, &error)),
        };
        asking.refuse_structured(&self.heard)?;
        asking.check_known(&self.heard)?;
        Ok((self.rows, failure))
    }
}

/// What is needed to show the rows.
struct Showing {
    session: Session,
    opened: Opened,
    settings: Settings,
    json: bool,
    start: u64,
    /// Nothing went wrong.
    whole: bool,
}

impl Showing {
    fn show(self, told: Spool, out: &mut dyn io::Write) -> io::Result<()> {
        let Opened { file, node, source, .. } = &self.opened;
        let part = source.as_ref().and_then(|source| source.part.as_ref());
        let part_name = node.children.first().map(|(_, below)| below.display_name());
        let display = |id: u32| match (&part, &part_name) {
            (Some(_), Some(name)) if file.id.0 == id => name.clone(),
            _ => self.session.name(FileId(id)),
        };
        let manner = Manner {
            profile: &self.settings.profile,
            text: stdout_text(&self.settings),
            display: &display,
            part: part.map(|part| (file.id.0, part.offset.unwrap_or(0))),
            blank: opening::is_blank(node).then_some(file.id.0),
        };
        let mut page = Page::new(manner, self.json, self.start, out);
        told.replay(ROW_LEN, |some| rows(some).try_for_each(|row| page.add(row)))?;
        if self.whole { page.end() } else { page.stop() }
    }
}
