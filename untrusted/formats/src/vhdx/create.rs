//! How a VHDX is laid out: headers, log, the table of blocks, metadata, then the blocks.

use super::crc32c::of_structure;
use super::disk::{
    BAT, FILE_PARAMETERS, FULLY_PRESENT, HAS_PARENT, HEADER_LEN, HEADERS_AT, Header, IDENTIFIER, ITEM_DISK,
    ITEM_REQUIRED, Item, LEAVE_ALLOCATED, LOGICAL_SECTOR_SIZE, METADATA, MetadataHead, PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE, REGIONS_AT, Region, RegionHead, SECOND_REGIONS_AT, TABLE_LEN, VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE, ZERO,
};
use super::open;
use super::parent::Below;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::measure::{Pieces, is_fixed, overlays};
use instar_image::{Content, Kind, Measured, Preallocation, Recipe, Result, Site};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, Immutable, IntoBytes};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Where the log begins.
const LOG_AT: u64 = MIB;
const METADATA_LEN: u64 = MIB;
/// What qemu-img leaves between the metadata and the blocks.
pub const GAP: u64 = 4 * MIB;
const ENTRY_LEN: u64 = 8;
const BLOCK_MAX: u64 = 256 * MIB;
const LOG_END: u64 = 4 * GIB;
const SIZE_MAX: u64 = 64 * TIB;
/// Where items of the metadata begin, counted from its table.
const ITEMS_AT: u32 = 0x1_0000;
/// Who made it; UTF-16 in the file.
const CREATOR: &str = "instar";

/// The layout of a disk.
struct Plan {
    /// Bytes of the disk.
    size: u64,
    block_len: u64,
    sector: u64,
    chunk: u64,
    table_count: u64,
    log_len: u64,
    table_at: u64,
    table_len: u64,
    /// Where the blocks begin.
    data_at: u64,
    is_fixed: bool,
    /// Blocks are said to be zeroes, and not to be nowhere.
    says_zero: bool,
    differs: bool,
}

impl Plan {
    fn of(recipe: &Recipe, sector: u64, differs: bool) -> Result<Plan> {
        let is_fixed = is_fixed(recipe)?;
        if recipe.size > SIZE_MAX {
            return Err(Kind::TooBig.what("Image size too large; max of 64TB"));
        }
        let log_len = log_len(recipe)?;
        let block_len = block_len(recipe)?;
        let size = recipe.size.next_multiple_of(SECTOR);
        let chunk = open::chunk_ratio(block_len, sector);
        let table_count = open::table_count(size, block_len, chunk, differs);
        let table_at = LOG_AT.saturating_add(log_len);
        let table_len = table_count.saturating_mul(ENTRY_LEN).max(1).next_multiple_of(MIB);
        let data_at = table_at.saturating_add(table_len).saturating_add(METADATA_LEN + GAP);
        let says_zero = recipe.options.get("block_state_zero") != Some(&false.into()) && !differs;
        Ok(Plan {
            size,
            block_len,
            sector,
            chunk,
            table_count,
            log_len,
            table_at,
            table_len,
            data_at,
            is_fixed,
            says_zero,
            differs,
        })
    }

    fn metadata_at(&self) -> u64 {
        self.table_at.saturating_add(self.table_len)
    }

    /// Where an empty disk ends.
    fn end(&self) -> u64 {
        self.data_at.saturating_add(if self.is_fixed { self.size } else { 0 })
    }

    /// An entry of the table of blocks.
    fn entry(&self, index: u64) -> u64 {
        let period = self.chunk.saturating_add(1);
        let bitmaps = index.checked_div(period).unwrap_or(0);
        let number = index.saturating_sub(bitmaps);
        let is_bitmap = index.saturating_add(1).is_multiple_of(period);
        match (is_bitmap, self.says_zero, self.is_fixed) {
            (true, ..) => 0,
            _ if number >= self.size.div_ceil(self.block_len) => 0,
            (_, true, _) => ZERO,
            (_, _, true) => number.saturating_mul(self.block_len).saturating_add(self.data_at) | FULLY_PRESENT,
            _ => 0,
        }
    }
}

/// The length of blocks that suits the disk, or that was asked for.
fn block_len(recipe: &Recipe) -> Result<u64> {
    let asked = recipe.number("block_size").unwrap_or(0);
    if asked == 0 {
        return Ok(match recipe.size {
            size if size > 32 * TIB => 64 * MIB,
            size if size > 100 * GIB => 32 * MIB,
            size if size > GIB => 16 * MIB,
            _ => 8 * MIB,
        });
    }
    let len = asked.min(BLOCK_MAX).next_multiple_of(MIB);
    if !len.is_power_of_two() {
        return Err(Kind::Unsupported.what("Block size must be a power of two"));
    }
    Ok(len)
}

fn log_len(recipe: &Recipe) -> Result<u64> {
    match recipe.number("log_size").unwrap_or(MIB).checked_next_multiple_of(MIB) {
        Some(0) => Err(Kind::Unsupported.what("Log size must be a multiple of 1 MB")),
        Some(len) if len < LOG_END => Ok(len),
        _ => Err(Kind::TooBig.what("Log size must be smaller than 4 GB")),
    }
}

/// Everything but blocks without data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let differs = recipe.text("backing_file").is_some();
    let plan = Plan::of(recipe, SECTOR, differs)?;
    if plan.is_fixed {
        // Blocks go to the space that they have, of which the last one may take all.
        let all = plan.end();
        return Ok(Measured { required: all, fully_allocated: all, bitmaps: None });
    }
    let chunks = plan.size.div_ceil(plan.block_len).div_ceil(plan.chunk);
    let bitmaps = if differs { chunks.saturating_mul(MIB) } else { 0 };
    let always = plan.data_at.saturating_add(bitmaps);
    let all = overlays(recipe, content);
    Pieces { size: plan.size, len: plan.block_len, stored: plan.block_len, always }.measure(content, all)
}

/// A disk of zeroes, or one that differs from another in nothing.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    let room = Preallocation::of_file(recipe)?;
    let below = Below::of(recipe, site)?;
    let plan = Plan::of(recipe, below.as_ref().map_or(SECTOR, |below| below.sector), below.is_some())?;
    if plan.is_fixed && plan.differs {
        return Err(Kind::Unsupported.what("a VHDX that differs from another one cannot be of the fixed kind"));
    }
    let creator: Vec<u8> = CREATOR.encode_utf16().flat_map(u16::to_le_bytes).collect();
    site.put(0, IDENTIFIER)?;
    site.put(IDENTIFIER.len() as u64, creator.as_slice())?;
    headers(&plan, site)?;
    regions(&plan, site)?;
    metadata(&plan, below.as_ref(), site)?;
    if plan.says_zero || plan.is_fixed {
        site.table(plan.table_at, plan.table_count, |index| plan.entry(index).to_le_bytes())?;
    }
    site.extend(site.file, plan.data_at, plan.end(), room.unless(site.rules.as_qemu))
}

/// Both headers; the second one counts.
fn headers(plan: &Plan, site: &Site<'_>) -> Result<()> {
    let mut header = Header::new_zeroed();
    header.signature = *b"head";
    header.file_write_guid = site.guid();
    header.data_write_guid = site.guid();
    header.version = 1.into();
    header.log_length = u32::try_from(plan.log_len).unwrap_or(u32::MAX).into();
    header.log_offset = LOG_AT.into();
    let first = u64::from(u32::from_le_bytes(site.random()));
    for (at, number) in HEADERS_AT.into_iter().zip([first, first.saturating_add(1)]) {
        header.sequence_number = number.into();
        site.put(at, sealed(header.as_bytes(), HEADER_LEN).as_slice())?;
    }
    Ok(())
}

/// A structure in its whole length, with its checksum.
pub fn sealed(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut whole = vec![0; len];
    whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let sum = of_structure(&whole).to_le_bytes();
    whole.iter_mut().skip(4).zip(sum).for_each(|(to, from)| *to = from);
    whole
}

fn regions(plan: &Plan, site: &Site<'_>) -> Result<()> {
    let region = |guid, at: u64, len: u64| {
        let length = u32::try_from(len).unwrap_or(u32::MAX).into();
        Region { guid, file_offset: at.into(), length, required: 0.into() }
    };
    let (table, metadata) =
        (region(BAT, plan.table_at, plan.table_len), region(METADATA, plan.metadata_at(), METADATA_LEN));
    let head = RegionHead { signature: *b"regi", checksum: 0.into(), entry_count: 2.into(), reserved: 0.into() };
    let bytes = sealed(&[head.as_bytes(), table.as_bytes(), metadata.as_bytes()].concat(), TABLE_LEN);
    site.put(REGIONS_AT, bytes.as_slice())?;
    site.put(SECOND_REGIONS_AT, bytes.as_slice())
}

fn metadata(plan: &Plan, below: Option<&Below>, site: &Site<'_>) -> Result<()> {
    let flags = if plan.is_fixed { LEAVE_ALLOCATED } else { 0 } | if plan.differs { HAS_PARENT } else { 0 };
    let block_len = u32::try_from(plan.block_len).unwrap_or(u32::MAX);
    let sector = u32::try_from(plan.sector).unwrap_or(u32::MAX);
    let required = ITEM_REQUIRED;
    let mut items = Items { table: Vec::new(), data: Vec::new() };
    items.add(FILE_PARAMETERS, required, &[U32::new(block_len), U32::new(flags)]);
    items.add(VIRTUAL_DISK_SIZE, required | ITEM_DISK, &plan.size.to_le_bytes());
    items.add(VIRTUAL_DISK_ID, required | ITEM_DISK, &site.guid());
    items.add(LOGICAL_SECTOR_SIZE, required | ITEM_DISK, &sector.to_le_bytes());
    items.add(PHYSICAL_SECTOR_SIZE, required | ITEM_DISK, &sector.to_le_bytes());
    if let Some(below) = below {
        items.add(PARENT_LOCATOR, required, below.locator.as_slice());
    }
    let mut head = MetadataHead::new_zeroed();
    head.signature = *b"metadata";
    head.entry_count = u16::try_from(items.table.len()).unwrap_or(0).into();
    let at = plan.metadata_at();
    site.put(at, [head.as_bytes(), items.table.as_slice().as_bytes()].concat().as_slice())?;
    site.put(at.saturating_add(ITEMS_AT.into()), items.data.as_slice())
}

/// The items of the metadata as they are laid out.
struct Items {
    table: Vec<Item>,
    data: Vec<u8>,
}

impl Items {
    fn add<T: IntoBytes + Immutable + ?Sized>(&mut self, guid: [u8; 16], flags: u32, what: &T) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.table.push(Item {
            guid,
            offset: ITEMS_AT.saturating_add(len(&self.data)).into(),
            length: len(what.as_bytes()).into(),
            flags: flags.into(),
            reserved: 0.into(),
        });
        self.data.extend_from_slice(what.as_bytes());
    }
}
