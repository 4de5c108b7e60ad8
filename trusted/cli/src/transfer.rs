//! What is moved between an image and those below it, for the verbs that do.

use crate::asking::{Asking, End, Heard};
use crate::render::progress::Progress;
use crate::{Told, setup};
use instar_wire::code::{Malformed, decode};
use instar_wire::error::Error;
use instar_wire::op::Request;
use instar_wire::op::convert::{Event, Trouble};

/// What is to be said when everything is open, and nothing has been changed: whether it may go on.
pub type Judge<'j> = &'j mut (dyn FnMut(&Heard) -> Result<(), Told> + Send);

/// What has been heard of it.
#[derive(Default)]
pub struct Transfer {
    /// The layers of every image.
    pub heard: Heard,
    /// The size of the image.
    pub size: u64,
    /// How much there was to be moved.
    pub work: u64,
    /// How much has been written: bytes of the disk, and what gets its place as one.
    pub written: (u64, u64),
    /// Units that an image had and has no more.
    pub emptied: u64,
    /// What went wrong first.
    pub stopped: Option<Trouble>,
}

/// Why nothing has come of it.
pub enum Failed {
    /// This is what is said of it.
    Told(Told),
    /// Something could not be opened.
    Opening(Error),
    /// Everything was open.
    Later(Error),
}

impl Transfer {
    /// Has the worker do it.
    pub fn run(
        &mut self,
        asking: &Asking<'_>,
        request: &Request,
        judge: Judge<'_>,
        progress: &mut Progress,
    ) -> Result<Vec<u8>, Failed> {
        let (cell, wall) = setup::moving_cell(asking.parsed, asking.settings, None).map_err(Failed::Told)?;
        let mut refused = None;
        let mut hear = |event: &[u8]| {
            let event = decode(event)?;
            // What is opened again is known.
            if self.heard.is_complete && matches!(event, Event::Step(_) | Event::Ready(_)) {
                return Ok(());
            }
            match event {
                Event::Step(step) => self.heard.step(step),
                Event::Ready(size) => {
                    (self.heard.is_complete, self.size) = (true, size);
                    refused = judge(&self.heard).err();
                }
                Event::Work(bytes) => {
                    self.work = bytes;
                    progress.expect(bytes);
                }
                Event::Done(bytes) => progress.advance(bytes),
                Event::Written(some) => {
                    self.written = (self.written.0.saturating_add(some.bytes), some.unit);
                }
                Event::Emptied(units) => self.emptied = units,
                Event::Unmapped(trouble) => self.stopped = Some(trouble),
                Event::Stopped(trouble) => {
                    if self.stopped.as_ref().is_none_or(|before| trouble.to < before.to) {
                        self.stopped = Some(trouble);
                    }
                }
                Event::Salvaged(_) | Event::Unpicked | Event::Unmade | Event::Beyond => {}
                Event::Unopened | Event::Broken(_) => {}
            }
            // There is no other way to have the worker stop.
            if refused.is_some() { Err(Malformed) } else { Ok(()) }
        };
        let ended = asking.run(cell, request, u64::MAX, &mut hear);
        match (refused, ended) {
            (Some(told), _) | (None, Err(End::Fell(told))) => Err(Failed::Told(told)),
            (None, Err(End::Failed(error))) if self.heard.is_complete => Err(Failed::Later(error)),
            (None, Err(End::Failed(error))) => Err(Failed::Opening(error)),
            (None, Ok(())) => Ok(wall),
        }
    }

    /// The format of a layer of the first image, counted from the top.
    pub fn format(&self, depth: usize) -> &[u8] {
        let layer = self.heard.images.first().and_then(|layers| layers.get(depth));
        layer.map_or(b"", |layer| &layer.format.0)
    }
}
