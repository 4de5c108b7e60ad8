//! How a VDI is laid out: a header, the map of blocks, then the blocks.

use super::disk::{BLOCK_LEN, DYNAMIC, Header, SIGNATURE, STATIC, VERSION_1_1};
use instar_image::measure::Pieces;
use instar_image::{Content, Kind, Measured, Preallocation, Recipe, Result, Site};
use zerocopy::FromZeros;

const SECTOR: u64 = 512;
const BLOCK: u64 = BLOCK_LEN as u64;
const ENTRY_LEN: u64 = 4;
/// The largest disk that qemu-img makes.
const SIZE_MAX: u64 = 0x1_ffff_f800_0000;
/// What the header begins with: whose it is.
const TEXT: &[u8] = b"<<< QEMU VM Virtual Disk Image >>>\n";
/// Bytes of the header behind its signature and version, as far as the version defines it.
const HEADER_LEN: u32 = 0x180;

/// The layout of a disk.
struct Plan {
    /// Bytes of the disk.
    size: u64,
    blocks: u64,
    /// Where the blocks begin.
    data_at: u64,
    is_static: bool,
}

impl Plan {
    fn of(recipe: &Recipe) -> Result<Plan> {
        let size = recipe.size.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX);
        if size > SIZE_MAX {
            let words = "Unsupported VDI image size (size is 0x{}, max supported is 0x{})";
            let hex = |number: u64| alloc::format!("{number:x}");
            return Err(Kind::TooBig.what(words).arg(hex(size)).arg(hex(SIZE_MAX)));
        }
        let blocks = size.div_ceil(BLOCK);
        let data_at = blocks.saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR).saturating_add(SECTOR);
        Ok(Plan { size, blocks, data_at, is_static: recipe.is_on("static") })
    }
}

/// Header, map, and the blocks that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let Plan { size, data_at, is_static, .. } = Plan::of(recipe)?;
    Pieces { size, len: BLOCK, stored: BLOCK, always: data_at }.measure(content, is_static)
}

/// An image whose blocks are zeroes, set aside or not.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    let room = Preallocation::of_file(recipe)?;
    let plan = Plan::of(recipe)?;
    let blocks = u32::try_from(plan.blocks).unwrap_or(u32::MAX);
    let mut header = Header::new_zeroed();
    header.text.iter_mut().zip(TEXT).for_each(|(to, from)| *to = *from);
    header.signature = SIGNATURE.into();
    header.version = VERSION_1_1.into();
    header.header_size = HEADER_LEN.into();
    header.image_type = if plan.is_static { STATIC } else { DYNAMIC }.into();
    header.offset_bmap = u32::try_from(SECTOR).unwrap_or(0).into();
    header.offset_data = u32::try_from(plan.data_at).unwrap_or(u32::MAX).into();
    header.sector_size = u32::try_from(SECTOR).unwrap_or(0).into();
    header.disk_size = plan.size.into();
    header.block_size = BLOCK_LEN.into();
    header.blocks_in_image = blocks.into();
    header.blocks_allocated = if plan.is_static { blocks } else { 0 }.into();
    header.uuid_image = site.guid();
    header.uuid_last_snap = site.guid();
    site.put(0, &header)?;
    site.table(SECTOR, plan.blocks, |number| match plan.is_static {
        true => u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes(),
        false => [0xff; 4],
    })?;
    let data_len = if plan.is_static { plan.blocks.saturating_mul(BLOCK) } else { 0 };
    site.extend(site.file, plan.data_at, plan.data_at.saturating_add(data_len), room.unless(site.rules.as_qemu))
}
