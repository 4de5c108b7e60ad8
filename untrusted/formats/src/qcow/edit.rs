//! Changes of an image of version 1 that is there.

use super::open::Checked;
use instar_image::{Drive, Edit, File, Result};

/// An image that is changed.
pub struct Change<'i, 'a> {
    /// The file.
    pub file: &'i File<'a>,
    /// What the image says of itself.
    pub checked: &'i Checked,
}

impl Edit for Change<'_, '_> {
    /// Every entry of the first table that is empty is right by itself. Nothing leads behind that table then.
    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        let (file, checked) = (self.file, self.checked);
        let len = checked.l1_count.saturating_mul(8);
        drive.zero(file.place(checked.l1_at), len, false)?;
        drive.flush(file.id())?;
        let end = file.place(checked.l1_at.saturating_add(len)).at;
        if end < drive.length(file.id())? {
            drive.set_length(file.id(), end)?;
            drive.flush(file.id())?;
        }
        Ok(())
    }
}
