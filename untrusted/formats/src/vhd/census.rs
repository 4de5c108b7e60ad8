//! The census of a VHD: where its footer, its header, its block table and its blocks are. qemu-img does not check these.

#[cfg(test)]
mod tests;

use super::disk::{
    CONECTIX, CXSPARSE, DIFFERENCING, DYNAMIC, FIXED, FOOTER_CHECKSUM_AT, Footer, HEADER_CHECKSUM_AT, Header, NOWHERE,
    PLATFORMS,
};
use super::open::{Blocks, Checked, checksum};
use core::mem::size_of;
use instar_image::census::{Census, Claim, Finding, Irregular, Owner, Space, Weight, Witness, finding};
use instar_image::sector::SECTOR;
use instar_image::{File, Kind, Result, Table};
use zerocopy::IntoBytes;

/// An image's census.
pub struct Roll<'r, 'a> {
    /// The file.
    pub file: &'r File<'a>,
    /// What the image says of itself.
    pub checked: &'r Checked,
}

impl Census for Roll<'_, '_> {
    fn space(&self) -> Space {
        Space { file: self.file.id(), len: self.end(), unit: 1, lead: 0, slack: 0, most: u64::MAX }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        let footer_at = self.end().saturating_sub(size_of::<Footer>() as u64);
        // Where a growing disk has none, the end of a block may be.
        let cookie: [u8; 8] = self.file.read_as(footer_at)?;
        if self.checked.blocks.is_none() || &cookie == CONECTIX {
            own("the footer", footer_at, size_of::<Footer>() as u64, out)?;
        }
        match &self.checked.blocks {
            Some(blocks) => {
                self.copies(footer_at, out)?;
                self.kind(out)?;
                self.structures(blocks, out)?;
                self.blocks(blocks, out)
            }
            None => own("the disk", 0, self.checked.virtual_size, out),
        }
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        self.space().words(irregular, "block")
    }
}

impl Roll<'_, '_> {
    /// Where the file ends; the footers of old writers lack a byte.
    fn end(&self) -> u64 {
        self.file.len().next_multiple_of(SECTOR)
    }

    fn wrong(&self, phrase: &'static str, out: &mut dyn Witness) -> Result<()> {
        out.find(finding(Weight::Corruption, Kind::Corrupt.what(phrase).file(self.file.id())))
    }

    /// Where the second footer of a growing disk has to be written, if there is none that is like the first.
    pub fn second(&self) -> Result<Option<u64>> {
        let at = self.end().saturating_sub(size_of::<Footer>() as u64);
        let last: Footer = self.file.read_as(at)?;
        let is_alike = last.as_bytes() == self.checked.footer.as_bytes();
        Ok(match &self.checked.blocks {
            None => None,
            Some(_) if is_alike => None,
            Some(_) if &last.cookie == CONECTIX => Some(at),
            // What is there instead may be the end of a block.
            Some(_) => Some(self.end()),
        })
    }

    /// The footer of a growing disk is in the file twice.
    fn copies(&self, footer_at: u64, out: &mut dyn Witness) -> Result<()> {
        let last: Footer = self.file.read_as(footer_at)?;
        if &last.cookie != CONECTIX {
            return self.wrong("there is no footer at the end of the file", out);
        }
        if checksum(last.as_bytes(), FOOTER_CHECKSUM_AT) != last.checksum.get() {
            return self.wrong("the checksum of the footer is wrong", out);
        }
        let mut older = last.clone();
        let front = &self.checked.footer;
        (older.current_size, older.checksum) = (front.current_size, front.checksum);
        (older.cylinders, older.heads, older.sectors) = (front.cylinders, front.heads, front.sectors);
        (older.disk_type, older.data_offset) = (front.disk_type, front.data_offset);
        if last.as_bytes() != front.as_bytes() && older.as_bytes() == front.as_bytes() {
            let phrase = "the footer has another size or parent than its copy at the front of the file, which counts";
            return out.find(finding(Weight::Note, Kind::Corrupt.what(phrase).file(self.file.id())));
        }
        if last.as_bytes() != front.as_bytes() {
            return self.wrong("the footer is not the same as its copy at the front of the file", out);
        }
        Ok(())
    }

    fn kind(&self, out: &mut dyn Witness) -> Result<()> {
        match self.checked.footer.disk_type.get() {
            DYNAMIC | DIFFERENCING => Ok(()),
            FIXED => self.wrong("the disk is called a fixed one, but it has a block table", out),
            _ => self.wrong("the disk is of no known type", out),
        }
    }

    fn structures(&self, blocks: &Blocks, out: &mut dyn Witness) -> Result<()> {
        let footer = &self.checked.footer;
        own("the copy of the footer", 0, size_of::<Footer>() as u64, out)?;
        let header_at = footer.data_offset.get();
        let header: Header = self.file.read_as(header_at)?;
        own("the header", header_at, size_of::<Header>() as u64, out)?;
        if &header.cookie == CXSPARSE && checksum(header.as_bytes(), HEADER_CHECKSUM_AT) != header.checksum.get() {
            self.wrong("the checksum of the header is wrong", out)?;
        }
        own("the block table", blocks.table_at, u64::from(blocks.table_count).saturating_mul(4), out)?;
        // A disk that differs from another no more need not have forgotten where that is.
        let differs = footer.disk_type.get() == DIFFERENCING;
        let is_used = |code: &[u8; 4]| differs && *code != [0; 4] || PLATFORMS.contains(&code);
        header.locators.iter().filter(|locator| is_used(&locator.platform_code)).try_for_each(|locator| {
            own("a name of the parent", locator.data_offset.get(), locator.data_length.get().into(), out)
        })
    }

    fn blocks(&self, blocks: &Blocks, out: &mut dyn Witness) -> Result<()> {
        let len = blocks.bitmap_len.saturating_add(blocks.block_len.into());
        let mut table: Table<'_, 4> = Table::new(self.file.io(), self.file.id());
        table.each(self.file.place(blocks.table_at).at, blocks.table_count.into(), |index, entry| {
            match u32::from_be_bytes(*entry) {
                NOWHERE => Ok(()),
                sector => {
                    let at = u64::from(sector).saturating_mul(SECTOR);
                    out.claim(Claim::alone(Owner::Block(index), at, len)).map(drop)
                }
            }
        })
    }
}

fn own(what: &'static str, at: u64, len: u64, out: &mut dyn Witness) -> Result<()> {
    out.claim(Claim::alone(Owner::Image(what), at, len)).map(drop)
}
