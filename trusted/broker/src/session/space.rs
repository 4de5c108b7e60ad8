//! Space that files are given before they need it, and that images give back.

use super::Session;
use crate::plane;
use instar_wire::io::{FileId, Freed};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Space that has been set aside before it is needed.
#[derive(Default)]
pub(super) struct Ahead {
    /// The files it was set aside for.
    files: BTreeMap<FileId, Arc<OwnedFd>>,
    /// No more is.
    is_over: bool,
}

/// Which space of a file goes back to the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spares {
    /// That of what is gone for good.
    pub lost: bool,
    /// That of snapshots and of layers that are emptied.
    pub snapshot: bool,
    /// That of what lies elsewhere now.
    pub other: bool,
    /// That of what zeroes came over.
    pub zeroed: bool,
}

impl Default for Spares {
    fn default() -> Spares {
        Spares { lost: true, snapshot: true, other: false, zeroed: true }
    }
}

impl Spares {
    /// No space at all.
    pub const NONE: Spares = Spares { lost: false, snapshot: false, other: false, zeroed: false };
}

impl Session {
    /// From now on this space of the file goes back.
    pub fn set_spares(&self, id: FileId, spares: Spares) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get_mut(index).into_iter().for_each(|entry| entry.spares = spares);
    }

    /// Sets space aside for what is about to be written to a file that nobody sees, where that makes writing quicker.
    pub fn set_aside(&self, id: FileId, at: u64, len: u64) {
        let Some(file) = self.file(id).filter(|file| self.is_unseen(id) && plane::finds_space_late(file)) else {
            return;
        };
        let mut state = self.state();
        if state.ahead.is_over {
            return;
        }
        state.ahead.files.insert(id, file.clone());
        drop(state);
        // Whether there is enough will be seen when it is written to.
        let _ = plane::allocate(&file, at, len);
    }

    /// Gives back what has been set aside and is not in use, and sets no more aside; whether there ever was some. Nobody may
    /// write to new files meanwhile, or set space aside for them.
    pub fn give_back(&self) -> bool {
        let ahead = &mut self.state().ahead;
        if !ahead.is_over {
            ahead.is_over = true;
            // The same length again: what is behind it goes.
            let cut = |file: &Arc<OwnedFd>| plane::length(file).and_then(|len| plane::set_length(file, len));
            ahead.files.values().for_each(|file| _ = cut(file));
        }
        !ahead.files.is_empty()
    }

    /// The same when the worker has ended; the next one has some set aside again.
    pub fn give_all_back(&self) {
        self.give_back();
        self.state().ahead = Ahead::default();
    }

    /// Whether space that is not needed for this reason goes back.
    pub fn spares(&self, id: FileId, freed: Freed) -> bool {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get(index).is_some_and(|entry| match freed {
            Freed::Lost => entry.spares.lost,
            Freed::Snapshot => entry.spares.snapshot,
            Freed::Other => entry.spares.other,
            Freed::Zeroed => entry.spares.zeroed,
        })
    }
}
