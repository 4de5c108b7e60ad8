//! Space that images give back, and the files that let go of it.

use super::Session;
use instar_wire::io::{FileId, Freed};

/// Which space of a file goes back to the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spares {
    /// That of what is gone for good.
    pub lost: bool,
    /// That of snapshots and of layers that are emptied.
    pub snapshot: bool,
    /// That of what lies elsewhere now.
    pub other: bool,
}

impl Default for Spares {
    fn default() -> Spares {
        Spares { lost: true, snapshot: true, other: false }
    }
}

impl Spares {
    /// No space at all.
    pub const NONE: Spares = Spares { lost: false, snapshot: false, other: false };
}

impl Session {
    /// From now on this space of the file goes back.
    pub fn set_spares(&self, id: FileId, spares: Spares) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get_mut(index).into_iter().for_each(|entry| entry.spares = spares);
    }

    /// Whether space that is not needed for this reason goes back.
    pub fn spares(&self, id: FileId, freed: Freed) -> bool {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get(index).is_some_and(|entry| match freed {
            Freed::Lost => entry.spares.lost,
            Freed::Snapshot => entry.spares.snapshot,
            Freed::Other => entry.spares.other,
        })
    }
}
