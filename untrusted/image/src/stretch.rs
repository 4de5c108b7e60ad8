//! Files whose length is that of what they hold: they get longer and shorter as it does.

use crate::file::Drive;
use crate::site::Preallocation;
use crate::source::Place;
use instar_wire::error::{Error, Kind, Result};
use instar_wire::io::FileId;

/// Gives a file another length; what is new of it is zeroes. If there is no space for it, its length stays.
pub fn stretch(drive: &dyn Drive, file: FileId, len: u64, space: Preallocation) -> Result<()> {
    let old = drive.length(file)?;
    if space == Preallocation::Metadata {
        return Err(Kind::Unsupported.what("Unsupported preallocation mode: metadata"));
    }
    let about =
        |what: &'static str| move |error: Error| Error { what: what.into(), args: alloc::vec::Vec::new(), ..error };
    const FULL: &str = "Could not preallocate new data";
    let late = if space == Preallocation::Falloc { FULL } else { "Could not resize file" };
    drive.set_length(file, len).map_err(about(late))?;
    let (place, more) = (Place { file, at: old }, len.saturating_sub(old));
    let prepared = match space {
        Preallocation::Falloc if more > 0 => drive.allocate(place, more),
        Preallocation::Full if more > 0 => drive.zero(place, more, false),
        _ => Ok(()),
    };
    if let Err(error) = prepared {
        drive.set_length(file, old)?;
        return Err(about(FULL)(error));
    }
    drive.flush(file)
}
