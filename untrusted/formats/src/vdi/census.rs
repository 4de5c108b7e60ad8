//! The census of a VDI: which blocks of the file its map gives to the disk.

use super::disk::{BLOCK_LEN, DISCARDED, Header};
use super::open::Checked;
use instar_image::census::{
    Census, Claim, Clusters, Finding, Irregular, Owner, Scope, Space, Weight, Witness, finding,
};
use instar_image::{Error, File, Kind, Result, Table};

/// Length of a block.
const LEN: u64 = BLOCK_LEN as u64;

/// An image's census.
pub struct Roll<'r, 'a> {
    /// The file.
    pub file: &'r File<'a>,
    /// What the image says of itself.
    pub checked: &'r Checked,
    /// What is to be told.
    pub scope: Scope,
}

impl Census for Roll<'_, '_> {
    fn space(&self) -> Space {
        let (len, lead) = match self.scope.as_qemu {
            // qemu-img looks at the numbers of the blocks alone, and not for them in the file.
            true => (self.at(self.checked.block_count), self.checked.data_at),
            false => (self.file.len(), self.checked.data_at),
        };
        // The blocks begin where a unit begins.
        let lead = LEN.saturating_sub(lead % LEN) % LEN;
        Space { file: self.file.id(), len, unit: LEN, lead, slack: 0, most: u64::MAX }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        let count = self.checked.block_count;
        if !self.scope.as_qemu {
            let head = self.checked.data_at.min(self.file.len()).max(size_of::<Header>() as u64);
            out.claim(Claim::shared(Owner::Image("the header"), 0, head))?;
            let map_len = u64::from(count).saturating_mul(4);
            out.claim(Claim::shared(Owner::Image("the block map"), self.checked.map_at, map_len))?;
        }
        let mut allocated = 0u64;
        let mut table = Table::<4>::new(self.file.io(), self.file.id());
        let known = self.known();
        table.each(self.file.place(self.checked.map_at).at, known, |number, entry| {
            allocated = allocated.saturating_add(self.block(number, u32::from_le_bytes(*entry), out)?);
            Ok(())
        })?;
        if allocated != self.checked.allocated.into() {
            let error = self.corrupt("ERROR: allocated blocks mismatch, is {}, should be {}");
            out.find(finding(Weight::Corruption, error.arg(allocated).arg(self.checked.allocated)))?;
        }
        if !self.scope.as_qemu {
            out.add(Clusters { total: count.into(), allocated, ..Clusters::NONE });
        }
        Ok(())
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        match irregular {
            Irregular::Shared(claim, _) if self.scope.as_qemu => {
                // It names the same number twice, and no other.
                let index = claim.at.saturating_sub(self.checked.data_at) / LEN;
                let error = self.corrupt("ERROR: block index {} also used by {}").arg(index).arg(index);
                Some(finding(Weight::Corruption, error))
            }
            _ if self.scope.as_qemu => None,
            Irregular::Unused(unused) => Some(self.space().lost(unused, LEN)),
            _ => self.space().words(irregular, "block"),
        }
    }
}

impl Roll<'_, '_> {
    fn corrupt(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.file.id())
    }

    /// How many entries are looked at: what the file does not have of the map is told once, by us.
    fn known(&self) -> u64 {
        let count = u64::from(self.checked.block_count);
        let there = self.file.len().saturating_sub(self.checked.map_at) / 4;
        if self.scope.as_qemu { count } else { count.min(there) }
    }

    /// Where a block begins in the file.
    fn at(&self, index: u32) -> u64 {
        u64::from(index).saturating_mul(LEN).saturating_add(self.checked.data_at)
    }

    /// One entry of the map; how many blocks it allocates.
    fn block(&self, number: u64, entry: u32, out: &mut dyn Witness) -> Result<u64> {
        if entry >= DISCARDED {
            return Ok(0);
        }
        let is_known = entry < self.checked.block_count;
        if is_known || !self.scope.as_qemu {
            out.claim(Claim::alone(Owner::Block(number), self.at(entry), LEN))?;
        }
        if is_known {
            return Ok(1);
        }
        let error = self.corrupt("ERROR: block index {} too large, is {}").arg(number).arg(entry);
        out.find(finding(Weight::Corruption, error)).map(|()| 0)
    }
}
