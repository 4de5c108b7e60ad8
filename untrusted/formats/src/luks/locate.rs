//! Where the bytes of a LUKS container are: in a row, encrypted.

use super::unlock::Unlocked;
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_codec::cipher::{Sectors, UNIT};
use instar_image::{Cursor, File, Io, Kind, Layer, Place, Result, Source};

/// The payload, without what may be behind it.
struct Payload {
    start: Place,
    size: u64,
    /// What its first byte counts as.
    tweak: u64,
    sectors: Arc<Sectors>,
}

/// What the first byte of the payload counts as.
pub fn tweak(file: &File<'_>, inside: &Unlocked) -> Result<u64> {
    let unusable =
        || Kind::Unsupported.what("LUKS2 data segment counts its sectors in an unusable way").file(file.id());
    let tweak = inside.tweak.checked_mul(UNIT as u64).filter(|tweak| tweak.checked_add(inside.size).is_some());
    // Vectors are counted in shorter units than sectors may have, but sectors begin where a count of them does.
    tweak
        .filter(|tweak| u64::try_from(inside.sectors.sector_len()).is_ok_and(|len| tweak.is_multiple_of(len)))
        .ok_or_else(unusable)
}

/// The container's map.
pub fn layer(file: &File<'_>, inside: &Unlocked) -> Result<Box<dyn Layer>> {
    let tweak = tweak(file, inside)?;
    Ok(Box::new(Payload { start: file.place(inside.at), size: inside.size, tweak, sectors: inside.sectors.clone() }))
}

impl Layer for Payload {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, _io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(PayloadCursor(self))
    }

    fn cipher(&self) -> Option<&Sectors> {
        Some(&self.sectors)
    }

    /// qemu-img only ever says that it is all data.
    fn is_open(&self) -> bool {
        false
    }
}

struct PayloadCursor<'c>(&'c Payload);

impl Cursor for PayloadCursor<'_> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let Payload { start, size, tweak, .. } = self.0;
        let source = Source::Raw { place: start.ahead(at), tweak: Some(tweak.saturating_add(at)), sparse: false };
        Ok((size.saturating_sub(at), Some(source)))
    }
}
