//! Opening a VHD: its footer, its header and its block table, checked.

use super::disk::{CONECTIX, CXSPARSE, DIFFERENCING, FIXED, FOOTER_CHECKSUM_AT, Footer, Header, Locator, NOWHERE};
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::text::{from_utf16be, from_utf16le};
use instar_image::{File, Kind, Options, Result, num};
use zerocopy::IntoBytes;

/// The largest disk: 2040 GiB, in sectors.
const SECTORS_MAX: u64 = 0xff00_0000;
/// The geometry that stands for "larger than a geometry can say".
const GEOMETRY_MAX: u64 = 65535 * 16 * 255;
/// Entries that a block table may have.
const TABLE_MAX: u32 = i32::MAX as u32 / 4;
/// Bytes that qemu-img reads at once, which the table has to fit.
const READ_MAX: u64 = 0x7fff_fe00;
/// The table is read in pieces of this length.
const PIECE: u64 = 1 << 20;
/// Bytes of a parent's name that are looked at.
const NAME_MAX: u64 = 8 << 10;

/// What a VHD is, checked.
pub struct Checked {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// The footer, from the end of the file or its copy at the front.
    pub footer: Footer,
    /// The blocks, if the footer's copy at the front leads to them; a fixed disk has none.
    pub blocks: Option<Blocks>,
}

/// The blocks of a growing disk.
pub struct Blocks {
    /// Bytes of a block: a power of two, at least 512.
    pub block_len: u32,
    /// Bytes of the bitmap before each block.
    pub bitmap_len: u64,
    /// Where the block table begins.
    pub table_at: u64,
    /// Its entries; they cover the disk, and every block lies inside the file.
    pub table_count: u32,
    /// What a differencing disk differs from.
    pub parent: Option<Parent>,
}

/// The parent of a differencing disk, as the disk names it.
pub struct Parent {
    /// Its identifier.
    pub uuid: [u8; 16],
    /// Its name.
    pub name: Vec<u8>,
    /// Where it is, in several notations: code and text.
    pub locators: Vec<([u8; 4], Vec<u8>)>,
}

/// Where a footer was found.
pub enum Found {
    /// At the front, where only growing disks repeat it.
    Front(Footer),
    /// In the last sector, of a fixed disk.
    End(Footer),
}

/// Looks for the footer, at the front first. `any_type`: in the last sector, of whatever type it says the disk is.
pub fn find_footer(file: &File<'_>, any_type: bool) -> Result<Option<Found>> {
    let front: Footer = file.read_as(0)?;
    if &front.cookie == CONECTIX {
        return Ok(Some(Found::Front(front)));
    }
    let end = file.len().next_multiple_of(512);
    let last: Footer = file.read_as(end.saturating_sub(size_of::<Footer>() as u64))?;
    let ours = &last.cookie == CONECTIX && (any_type || last.disk_type.get() == FIXED);
    Ok(ours.then_some(Found::End(last)))
}

/// Reads and checks footer, header and block table.
pub fn open(file: &File<'_>, options: &Options) -> Result<Checked> {
    check(file, options).map_err(|error| error.file(file.id()))
}

fn check(file: &File<'_>, options: &Options) -> Result<Checked> {
    // Natively, what is being checked may have blocks anywhere.
    let for_check = options.for_check() && !options.as_qemu;
    // Once, every footer at the end was a fixed disk's.
    let any_type = options.is_before(600);
    if file.is_empty() {
        return Err(Kind::NotThisFormat.what("File too small for a VHD header"));
    }
    let (footer, at_front) = match find_footer(file, any_type)? {
        Some(Found::Front(footer)) => (footer, true),
        Some(Found::End(footer)) => (footer, false),
        None => return Err(Kind::NotThisFormat.what("invalid VPC image")),
    };
    if checksum(footer.as_bytes(), FOOTER_CHECKSUM_AT) != footer.checksum.get() {
        return Err(Kind::Corrupt.what("Incorrect header checksum"));
    }
    let sectors = sectors(&footer);
    if sectors > SECTORS_MAX {
        return Err(Kind::TooBig.what("Could not open '{file}': File too large"));
    }
    let virtual_size = sectors.saturating_mul(512);
    let blocks = if at_front { Some(blocks(file, &footer, virtual_size, for_check)?) } else { None };
    Ok(Checked { virtual_size, footer, blocks })
}

/// The complement of the sum of all bytes but the four at `skip`.
pub fn checksum(bytes: &[u8], skip: usize) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(place, _)| place.wrapping_sub(skip) >= 4);
    !counted.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// The size of the disk. Virtual PC, and QEMU after it, go by the geometry, everybody else by the size.
pub fn sectors(footer: &Footer) -> u64 {
    let geometry =
        u64::from(footer.cylinders.get()).saturating_mul(footer.heads.into()).saturating_mul(footer.sectors.into());
    if is_by_geometry(footer) && geometry != GEOMETRY_MAX { geometry } else { footer.current_size.get() / 512 }
}

/// Whether who made the disk goes by its geometry.
pub fn is_by_geometry(footer: &Footer) -> bool {
    matches!(&footer.creator_app, b"vpc " | b"qemu")
}

fn blocks(file: &File<'_>, footer: &Footer, virtual_size: u64, for_check: bool) -> Result<Blocks> {
    let header_at = footer.data_offset.get();
    if header_at > i64::MAX as u64 {
        return Err(Kind::Corrupt.what("Error reading dynamic VHD header"));
    }
    let header: Header = file.read_as(header_at)?;
    if &header.cookie != CXSPARSE {
        return Err(Kind::Corrupt.what("Invalid header magic"));
    }
    let block_len = header.block_size.get();
    if !block_len.is_power_of_two() || block_len < 512 {
        return Err(Kind::Corrupt.what("Invalid block size {}").arg(block_len));
    }
    let table_count = header.max_table_entries.get();
    if table_count > TABLE_MAX {
        return Err(Kind::TooBig.what("Max Table Entries too large ({})").arg(i64::from(table_count.cast_signed())));
    }
    if u64::from(table_count).saturating_mul(block_len.into()) < virtual_size {
        return Err(Kind::Corrupt.what("Page table too small"));
    }
    let blocks = Blocks {
        block_len,
        bitmap_len: u64::from(block_len / (8 * 512)).next_multiple_of(512),
        table_at: header.table_offset.get(),
        table_count,
        parent: if footer.disk_type.get() == DIFFERENCING { Some(parent(file, &header)?) } else { None },
    };
    check_table(file, &blocks, for_check)?;
    Ok(blocks)
}

/// The table lies inside the file, and so does every block.
fn check_table(file: &File<'_>, blocks: &Blocks, for_check: bool) -> Result<()> {
    let unreadable = || Kind::Corrupt.what("Error reading pagetable");
    let truncated = || {
        Kind::Corrupt
            .what("block-vpc: free_data_block_offset points after the end of file. The image has been truncated.")
    };
    let table_len = u64::from(blocks.table_count).saturating_mul(4);
    if blocks.table_at > i64::MAX as u64 || table_len > READ_MAX {
        return Err(unreadable());
    }
    let file_end = file.len().next_multiple_of(512);
    let table_end = num::add(blocks.table_at, table_len, unreadable)?;
    if table_end > file_end {
        return Err(truncated());
    }
    let mut at = blocks.table_at;
    while at < table_end && !for_check {
        let left = table_end.saturating_sub(at).min(PIECE);
        let piece = file.read_vec(at, num::bounded(left, PIECE, unreadable)?)?;
        for entry in piece.as_chunks().0 {
            let entry = u32::from_be_bytes(*entry);
            let end = u64::from(entry)
                .saturating_mul(512)
                .saturating_add(blocks.bitmap_len)
                .saturating_add(blocks.block_len.into());
            if entry != NOWHERE && end > file_end {
                return Err(truncated());
            }
        }
        at = at.saturating_add(PIECE);
    }
    Ok(())
}

fn parent(file: &File<'_>, header: &Header) -> Result<Parent> {
    let mut locators = Vec::new();
    for locator in &header.locators {
        if locator.platform_code != [0; 4] {
            locators.push((locator.platform_code, locator_text(file, locator)?));
        }
    }
    Ok(Parent { uuid: header.parent_uuid, name: from_utf16be(&header.parent_name), locators })
}

fn locator_text(file: &File<'_>, locator: &Locator) -> Result<Vec<u8>> {
    let len = u64::from(locator.data_length.get()).min(NAME_MAX);
    let len = num::bounded(len, NAME_MAX, || Kind::TooBig.what("Invalid parent locator"))?;
    let bytes = file.read_vec(locator.data_offset.get(), len)?;
    Ok(match &locator.platform_code {
        b"W2ku" | b"W2ru" => from_utf16le(&bytes),
        _ => bytes.split(|byte| *byte == 0).next().unwrap_or(&[]).to_vec(),
    })
}
