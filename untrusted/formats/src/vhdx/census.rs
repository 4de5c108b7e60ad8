//! The census of a VHDX: its regions, its blocks, and the second copies of its headers and region table.

#[cfg(test)]
mod tests;

use super::crc32c::of_structure;
use super::disk::{
    BITMAP_LEN, FULLY_PRESENT, HEADER_LEN, HEADERS_AT, NOT_PRESENT, OFFSET_MASK, PARTIALLY_PRESENT, REGIONS_AT,
    SECOND_REGIONS_AT, STATE_MASK, TABLE_LEN, UNDEFINED, UNMAPPED, UNMAPPED_EARLY, ZERO,
};
use super::log::State;
use super::open::{Checked, Slot, Slots};
use super::replay::Replayed;
use alloc::boxed::Box;
use alloc::format;
use instar_image::census::{Census, Claim, Finding, Irregular, Owner, Scope, Space, Weight, Witness, finding};
use instar_image::sector::SECTOR;
use instar_image::{Error, Fact, File, Io, Kind, Result, Table};

/// Blocks and regions begin at multiples of this.
const ALIGNMENT: u64 = 1 << 20;

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
        let len = self.end();
        match self.scope.as_qemu {
            true => Space::unclaimed(self.file.id(), len),
            false => Space { file: self.file.id(), len, unit: ALIGNMENT, lead: 0, slack: 0, most: u64::MAX },
        }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        if self.scope.as_qemu {
            return self.each(&mut |slot| self.as_qemu(slot, out));
        }
        self.copies(out)?;
        out.claim(Claim::alone(Owner::Image("the headers"), 0, ALIGNMENT.min(self.end())))?;
        for region in &self.checked.regions {
            let at = region.start;
            out.claim(Claim::alone(Owner::Image(region.name), at, region.end.saturating_sub(at)))?;
            if !at.is_multiple_of(ALIGNMENT) {
                self.wrong("{} begins at {}, which is no multiple of 1 MiB", [region.name.into(), at.into()], out)?;
            }
        }
        if self.checked.log == State::Dirty {
            let note = Kind::Corrupt.what("the log holds changes that have not been made; they are taken as made");
            out.find(finding(Weight::Note, note.file(self.file.id())))?;
        }
        let mut bitmap = self.table();
        self.each(&mut |slot| self.slot(slot, &mut bitmap, out))
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        self.space().words(irregular, "block")
    }
}

impl Roll<'_, '_> {
    /// Where the file ends, counted as qemu-img counts.
    fn end(&self) -> u64 {
        let start = self.file.place(0);
        let len = self.checked.overlay.as_ref().map_or(self.file.len(), |overlay| overlay.len_from(start));
        len.next_multiple_of(SECTOR)
    }

    /// A reader of tables, in the file as it is once its log has been replayed.
    fn table(&self) -> Table<'_, 8> {
        let (io, id) = (self.file.io(), self.file.id());
        let replayed = |overlay| -> Box<dyn Io + '_> { Box::new(Replayed { io, overlay }) };
        let through = self.checked.overlay.as_deref().map(replayed);
        Table::through(through.unwrap_or_else(|| Box::new(io)), id)
    }

    fn each(&self, slot: &mut dyn FnMut(&Slot) -> Result<()>) -> Result<()> {
        let mut table = self.table();
        let Checked { table_at, table_count, .. } = *self.checked;
        let mut slots = Slots::of(self.checked);
        table.each(self.file.place(table_at).at, table_count, |_, entry| slot(&slots.next(u64::from_le_bytes(*entry))))
    }

    fn wrong<const N: usize>(&self, phrase: &'static str, args: [Fact; N], out: &mut dyn Witness) -> Result<()> {
        let error = Kind::Corrupt.what(phrase).file(self.file.id());
        out.find(finding(Weight::Corruption, args.into_iter().fold(error, Error::arg)))
    }

    /// What qemu-img says of an entry; several things may be wrong with it.
    fn as_qemu(&self, slot: &Slot, out: &mut dyn Witness) -> Result<()> {
        if !slot.is_held {
            return Ok(());
        }
        let faults = slot.faults(self.end(), &self.checked.regions);
        faults.into_iter().try_for_each(|fault| out.find(finding(Weight::Corruption, fault.file(self.file.id()))))
    }

    /// Everything that can be wrong with an entry.
    fn slot(&self, slot: &Slot, bitmap: &mut Table<'_, 8>, out: &mut dyn Witness) -> Result<()> {
        let differs = self.checked.metadata.parent.is_some();
        let state = slot.entry & STATE_MASK;
        if slot.entry & !(OFFSET_MASK | STATE_MASK) != 0 {
            let entry = format!("0x{:016x}", slot.entry);
            self.wrong("entry {} of the block table has unknown bits: {}", [slot.index.into(), entry.into()], out)?;
        }
        let is_known = match state {
            NOT_PRESENT | FULLY_PRESENT => true,
            UNDEFINED | ZERO | UNMAPPED | UNMAPPED_EARLY => !slot.is_bitmap,
            PARTIALLY_PRESENT => differs && !slot.is_bitmap,
            _ => false,
        };
        if !is_known || slot.is_bitmap && !differs && state != NOT_PRESENT {
            let phrase = "entry {} of the block table is in a state that it cannot be in: {}";
            return self.wrong(phrase, [slot.index.into(), state.into()], out);
        }
        if state == PARTIALLY_PRESENT {
            let ratio = self.checked.chunk_ratio;
            let period = ratio.saturating_add(1);
            let number = slot.index.checked_div(period).unwrap_or(0).saturating_mul(period).saturating_add(ratio);
            let Checked { table_at, table_count, .. } = *self.checked;
            let entries = bitmap.entries(self.file.place(table_at).at, number, table_count)?;
            let entry = entries.first().map_or(0, |entry| u64::from_le_bytes(*entry));
            if entry & STATE_MASK != FULLY_PRESENT {
                let phrase = "some sectors of block {} are in the file, but it is not said which";
                self.wrong(phrase, [slot.block.into()], out)?;
            }
        }
        if !slot.is_held {
            return Ok(());
        }
        let owner = if slot.is_bitmap { Owner::Image("a bitmap of sectors") } else { Owner::Block(slot.block) };
        let len = if slot.is_bitmap { BITMAP_LEN } else { slot.len };
        out.claim(Claim::alone(owner, slot.at, len)).map(drop)
    }

    /// The headers and the region table are in the file twice.
    fn copies(&self, out: &mut dyn Witness) -> Result<()> {
        for (number, at) in (1u32..).zip(HEADERS_AT) {
            let bytes = self.file.read_vec(at, HEADER_LEN)?;
            if !is_sealed(&bytes, b"head") {
                self.wrong("header {} is not sound", [number.into()], out)?;
            }
        }
        let second = self.file.read_vec(SECOND_REGIONS_AT, TABLE_LEN)?;
        if !is_sealed(&second, b"regi") {
            return self.wrong("the second region table is not sound", [], out);
        }
        if second != self.file.read_vec(REGIONS_AT, TABLE_LEN)? {
            // The first one counts, and is changed before the other.
            let note = Kind::Corrupt.what("the two region tables are not the same; the first one counts");
            return out.find(finding(Weight::Note, note.file(self.file.id())));
        }
        Ok(())
    }
}

/// Whether a structure begins with its signature, and its checksum holds.
fn is_sealed(bytes: &[u8], signature: &[u8; 4]) -> bool {
    let stored = bytes.get(4..).and_then(<[u8]>::first_chunk).map(|word| u32::from_le_bytes(*word));
    bytes.starts_with(signature) && stored == Some(of_structure(bytes))
}
