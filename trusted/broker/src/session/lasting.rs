//! What has to be on the disk at the end, and when it goes there.

use super::Session;
use crate::plane::Due;
use instar_wire::io::FileId;

/// Less than this is not worth being sent on its way.
const EARLY_MIN: u64 = 256 << 10;

impl Session {
    /// Whatever is made has to last at the end.
    pub fn make_lasting(&mut self) {
        self.is_lasting = true;
    }

    /// Much is written to files that are there, and has to last at the end: what has been written goes to disk while the
    /// rest is on its way.
    pub fn write_early(&mut self) {
        self.is_hasty = true;
    }

    /// When so many bytes have to be on the disk that are written at once.
    pub fn due(&self, id: FileId, len: u64) -> Due {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let lasts = || self.is_lasting || self.state().entries.get(index).is_some_and(|entry| entry.lasts);
        match Due::soon() {
            _ if len < EARLY_MIN => Due::Anytime,
            due if self.is_hasty => due,
            // A new file is made slower by telling of it piece by piece.
            Due::Soon if lasts() => Due::Soon,
            _ => Due::Anytime,
        }
    }
}
