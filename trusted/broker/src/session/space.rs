//! Space that images give back, and the files that let go of it.

use super::Session;
use instar_wire::io::FileId;

impl Session {
    /// From now on the space that the file's image gives back goes back to the file system.
    pub fn let_go(&self, id: FileId) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get_mut(index).into_iter().for_each(|entry| entry.lets_go = true);
    }

    /// Whether it does.
    pub fn lets_go(&self, id: FileId) -> bool {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get(index).is_some_and(|entry| entry.lets_go)
    }
}
