//! Where bytes of a LUKS container's disk go: all have their place, and are encrypted on their way.

use super::unlock::Unlocked;
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_codec::cipher::{Sectors, UNIT};
use instar_image::target::{Rest, Spot, What};
use instar_image::{Drive, File, Kind, Place, Result, Source, Target};

/// Bytes that are asked for as one; sectors are shorter.
const UNIT_LEN: u64 = 64 << 10;

/// A container that is written to.
struct Disk {
    start: Place,
    size: u64,
    /// What its first byte counts as.
    tweak: u64,
    sectors: Arc<Sectors>,
    /// Sectors are longer than what may be written, so what is around it has to be encrypted again.
    is_coarse: bool,
}

/// The container's disk, which `tweak` counts from.
pub fn target(file: &File<'_>, inside: &Unlocked, tweak: u64) -> Box<dyn Target> {
    let sectors = inside.sectors.clone();
    let is_coarse = sectors.sector_len() > UNIT;
    Box::new(Disk { start: file.place(inside.at), size: inside.size, tweak, sectors, is_coarse })
}

impl Target for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        UNIT_LEN
    }

    fn is_solid(&self) -> bool {
        true
    }

    fn reserve(&mut self, _drive: &dyn Drive, at: u64, len: u64, _what: What) -> Result<Option<Spot>> {
        if at.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(Kind::Corrupt.what("bytes beyond the end of the disk"));
        }
        let rest = if self.is_coarse {
            let unit = at.saturating_sub(at % UNIT_LEN);
            let tweak = Some(self.tweak.saturating_add(unit));
            Rest::Was(Source::Raw { place: self.start.ahead(unit), tweak, sparse: false })
        } else {
            Rest::There
        };
        Ok(Some(Spot {
            place: self.start.ahead(at),
            tweak: Some(self.tweak.saturating_add(at)),
            rest,
            is_fresh: rest != Rest::There,
        }))
    }

    fn seal(&mut self, _drive: &dyn Drive) -> Result<()> {
        Ok(())
    }

    fn cipher(&self) -> Option<Arc<Sectors>> {
        Some(self.sectors.clone())
    }
}
