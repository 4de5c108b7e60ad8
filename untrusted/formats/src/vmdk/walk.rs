//! The walk of qemu-img over a VMware disk: from grain to grain, until something is wrong.

use super::locate::Spread;
use super::open::{Body, Extent};
use instar_image::census::{Census, Finding, Irregular, Space, Weight, Witness, finding};
use instar_image::sector::{SECTOR, round_up};
use instar_image::{Error, FileId, Io, Kind, Result, Source};

/// A disk to be walked over.
pub struct Walk<'r> {
    /// Its files.
    pub io: &'r dyn Io,
    /// Its extents, one behind the other.
    pub extents: &'r [Extent],
}

impl Census for Walk<'_> {
    fn space(&self) -> Space {
        let file = self.extents.first().map_or(FileId(0), |extent| extent.file);
        Space::unclaimed(file, self.io.len(file))
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        // It takes a whole grain for a step also where an extent ends in one, and so comes into the middle of another.
        let (mut sector, mut start) = (0u64, 0u64);
        for extent in self.extents {
            let end = start.saturating_add(extent.sectors);
            if sector < end {
                sector = match self.extent(extent, start, sector) {
                    Ok(sector) => sector,
                    Err(wrong) => return wrong.told(out),
                };
            }
            start = end;
        }
        Ok(())
    }

    fn words(&self, _: &Irregular) -> Option<Finding> {
        None
    }
}

/// What ends the walk.
struct Wrong {
    /// What is said.
    error: Error,
    /// Why it says that it failed.
    kind: Kind,
}

impl Wrong {
    fn told(self, out: &mut dyn Witness) -> Result<()> {
        out.find(finding(Weight::Note, self.error))?;
        // All has been said.
        Err(self.kind.what(""))
    }
}

impl Walk<'_> {
    /// Goes through the extent that begins at sector `start`, from `sector` on: the sector to go on with.
    fn extent(&self, extent: &Extent, start: u64, mut sector: u64) -> core::result::Result<u64, Wrong> {
        let end = start.saturating_add(extent.sectors);
        let file_end = round_up(self.io.len(extent.file));
        let wrong = |kind, phrase, sector: u64| Wrong { error: Kind::Corrupt.what(phrase).arg(sector), kind };
        let beyond = |sector| wrong(Kind::Corrupt, "ERROR: cluster offset for sector {} points after EOF", sector);
        let step = match &extent.body {
            Body::Flat { start } if start.saturating_mul(SECTOR) >= file_end => return Err(beyond(sector)),
            Body::Flat { .. } => return Ok(sector.saturating_add(extent.sectors)),
            Body::Sparse(sparse) => sparse.grain_sectors.max(1),
        };
        let lost = |sector| wrong(Kind::Refused, "ERROR: could not get cluster_offset for sector {}", sector);
        let range = start.saturating_mul(SECTOR)..end.saturating_mul(SECTOR);
        let spread = Spread::of(extent, range.clone()).map_err(|_| lost(sector))?;
        let mut cursor = spread.cursor(self.io);
        while sector < end {
            let (len, what) = cursor.find(sector.saturating_mul(SECTOR), range.end).map_err(|_| lost(sector))?;
            let skip = sector.saturating_sub(start) % step;
            let grain_at = match &what {
                Some(Source::Raw { place, .. }) => place.at.saturating_sub(skip.saturating_mul(SECTOR)),
                // The marker before the grain is in the same sector.
                Some(Source::Packed { unit, .. }) => unit.place.at.saturating_sub(unit.place.at % SECTOR),
                _ => 0,
            };
            if grain_at >= file_end && grain_at > 0 {
                return Err(beyond(sector));
            }
            sector = sector.saturating_add(len.div_ceil(SECTOR).div_ceil(step).max(1).saturating_mul(step));
        }
        Ok(sector)
    }
}
