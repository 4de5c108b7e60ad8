//! How a VHD is laid out: footer and header in front, the table of blocks, the blocks, and the footer again.

use super::disk::{
    CONECTIX, CXSPARSE, DIFFERENCING, DYNAMIC, FIXED, FOOTER_CHECKSUM_AT, Footer, HEADER_CHECKSUM_AT, Header, NOWHERE,
};
use super::open::checksum;
use super::parent::Below;
use instar_image::measure::{Pieces, is_fixed, overlays};
use instar_image::{Content, Error, Kind, Measured, Preallocation, Recipe, Result, Site};
use zerocopy::{FromZeros, IntoBytes};

/// The year 2000, from which time is counted, in seconds since 1970.
const EPOCH: u64 = 946_684_800;
const SECTOR: u64 = 512;
const FOOTER_LEN: u64 = 512;
const HEADER_LEN: u64 = 1024;
/// Where the table of blocks begins.
const TABLE_AT: u64 = FOOTER_LEN + HEADER_LEN;
/// Bytes of a block, unless others are asked for.
const BLOCK_LEN: u64 = 2 << 20;
/// Bytes of the smallest block, whose bitmap has a byte for eight sectors, and of the largest.
const BLOCK_MIN: u64 = 4 << 10;
const BLOCK_MAX: u64 = 256 << 20;
const ENTRY_LEN: u64 = 4;
/// The largest geometry: cylinders, heads, sectors; it also stands for larger disks, and for those of any other size.
pub const LARGEST: Geometry = Geometry(65535, 16, 255);
/// The most sectors of all.
pub const SECTORS_MAX: u64 = 0xff00_0000;
/// The version of the layout.
const VERSION: u32 = 0x1_0000;
/// The only feature, which every disk has.
const FEATURES: u32 = 2;
/// What made it, and on what, as qemu-img has it: it looks for these when it takes the size of a disk from one field or the
/// other.
const BY_GEOMETRY: &[u8; 4] = b"qemu";
/// The other.
pub const BY_SIZE: &[u8; 4] = b"qem2";
const CREATOR_VERSION: u32 = 0x5_0003;
const CREATOR_OS: &[u8; 4] = b"Wi2k";

/// The error for a disk that is larger than any.
pub fn too_large() -> Error {
    Kind::TooBig.what("The image size is too large for file format '{}'").arg("vpc")
}

/// Cylinders, heads, sectors per track.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Geometry(pub u16, pub u8, pub u8);

impl Geometry {
    /// The smallest that is as large as asked for.
    pub fn around(sectors: u64) -> Result<Geometry> {
        // A cylinder is never larger than this, so it is not far away.
        let near = (sectors..=sectors.saturating_add(16 * 255)).map(Geometry::of);
        near.into_iter().find(|geometry| geometry.sectors() >= sectors).ok_or_else(too_large)
    }

    /// What it amounts to.
    pub fn sectors(self) -> u64 {
        let Geometry(cylinders, heads, per_track) = self;
        u64::from(cylinders).saturating_mul(heads.into()).saturating_mul(per_track.into())
    }

    /// The one that the format's specification assigns to a disk of so many sectors.
    pub fn of(sectors: u64) -> Geometry {
        let sectors = sectors.min(LARGEST.sectors());
        let (tracks, heads, per_track) = if sectors > 65535 * 16 * 63 {
            (sectors / 255, 16, 255)
        } else {
            let heads = |tracks: u64| tracks.div_ceil(1024).max(4);
            let fits = |tracks: u64| tracks < heads(tracks).saturating_mul(1024) && heads(tracks) <= 16;
            match (sectors / 17, sectors / 31) {
                (tracks, _) if fits(tracks) => (tracks, heads(tracks), 17),
                (_, tracks) if tracks < 16 * 1024 => (tracks, 16, 31),
                _ => (sectors / 63, 16, 63),
            }
        };
        let cylinders = tracks.checked_div(heads).unwrap_or(0);
        Geometry(u16::try_from(cylinders).unwrap_or(u16::MAX), u8::try_from(heads).unwrap_or(u8::MAX), per_track)
    }
}

/// The layout of a disk.
struct Plan {
    /// Sectors of the disk.
    sectors: u64,
    geometry: Geometry,
    creator: &'static [u8; 4],
    /// Bytes of a block.
    block: u64,
    is_fixed: bool,
}

impl Plan {
    /// `exact`: a size that must not be rounded, as there is another disk of that size.
    fn of(recipe: &Recipe, exact: Option<u64>) -> Result<Plan> {
        let is_fixed = is_fixed(recipe)?;
        let block = block_len(recipe)?;
        let asked = recipe.size.div_ceil(SECTOR);
        if asked > SECTORS_MAX {
            return Err(too_large());
        }
        let by_size = Plan { sectors: asked, geometry: LARGEST, creator: BY_SIZE, block, is_fixed };
        if recipe.is_on("force_size") {
            return Ok(by_size);
        }
        if asked == 0 {
            return Ok(Plan { geometry: Geometry(0, 0, 0), creator: BY_GEOMETRY, ..by_size });
        }
        if asked > LARGEST.sectors() {
            return Ok(Plan { creator: BY_GEOMETRY, ..by_size });
        }
        let geometry = Geometry::around(asked)?;
        let sectors = geometry.sectors();
        if exact.is_some_and(|size| size == recipe.size && size != sectors.saturating_mul(SECTOR)) {
            return Ok(by_size);
        }
        Ok(Plan { sectors, geometry, creator: BY_GEOMETRY, block, is_fixed })
    }

    fn size(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Entries of the table of blocks.
    fn blocks(&self) -> u64 {
        self.size().div_ceil(self.block.max(1))
    }

    /// Where the table of blocks ends.
    fn table_end(&self) -> u64 {
        self.blocks().saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR).saturating_add(TABLE_AT)
    }

    fn footer(&self, kind: u32, site: &Site<'_>) -> Footer {
        let Geometry(cylinders, heads, per_track) = self.geometry;
        let mut footer = Footer::new_zeroed();
        footer.cookie = *CONECTIX;
        footer.features = FEATURES.into();
        footer.version = VERSION.into();
        footer.data_offset = if kind == FIXED { u64::MAX } else { FOOTER_LEN }.into();
        footer.creator_app = *self.creator;
        footer.creator_version = CREATOR_VERSION.into();
        footer.creator_os = *CREATOR_OS;
        footer.original_size = self.size().into();
        footer.current_size = self.size().into();
        footer.cylinders = cylinders.into();
        footer.heads = heads;
        footer.sectors = per_track;
        footer.disk_type = kind.into();
        footer.timestamp = u32::try_from(site.time.saturating_sub(EPOCH)).unwrap_or(u32::MAX).into();
        footer.uuid = site.uuid();
        footer.checksum = checksum(footer.as_bytes(), FOOTER_CHECKSUM_AT).into();
        footer
    }
}

/// Bytes of a block, which natively can be asked for.
fn block_len(recipe: &Recipe) -> Result<u64> {
    let len = recipe.number("block_size").filter(|len| *len > 0).unwrap_or(BLOCK_LEN);
    if !len.is_power_of_two() || !(BLOCK_MIN..=BLOCK_MAX).contains(&len) {
        let words = "Block size must be a power of two from {} to {}";
        return Err(Kind::Unsupported.what(words).arg(BLOCK_MIN).arg(BLOCK_MAX));
    }
    Ok(len)
}

/// Everything but blocks without data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let plan = Plan::of(recipe, None)?;
    if plan.is_fixed {
        let all = plan.size().saturating_add(FOOTER_LEN);
        return Ok(Measured { required: all, fully_allocated: all, bitmaps: None });
    }
    let names = recipe.text("backing_file").map_or(0, Below::space);
    let always = plan.table_end().saturating_add(names).saturating_add(FOOTER_LEN);
    let all = overlays(recipe, content);
    let bitmap = (plan.block / (8 * SECTOR)).next_multiple_of(SECTOR);
    let stored = plan.block.saturating_add(bitmap);
    Pieces { size: plan.size(), len: plan.block, stored, always }.measure(content, all)
}

/// A disk of zeroes, or one that differs from another in nothing.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    let room = Preallocation::of_file(recipe)?;
    let below = Below::of(recipe, site)?;
    let plan = Plan::of(recipe, below.as_ref().map(|below| below.size))?;
    if plan.is_fixed {
        if below.is_some() {
            return Err(Kind::Unsupported.what("a VHD that differs from another one cannot be of the fixed kind"));
        }
        site.extend(site.file, 0, plan.size(), room.unless(site.rules.as_qemu))?;
        site.put(plan.size(), &plan.footer(FIXED, site))?;
        return site.end(plan.size().saturating_add(FOOTER_LEN));
    }
    let footer = plan.footer(if below.is_some() { DIFFERENCING } else { DYNAMIC }, site);
    let mut header = Header::new_zeroed();
    header.cookie = *CXSPARSE;
    header.data_offset = u64::MAX.into();
    header.table_offset = TABLE_AT.into();
    header.version = VERSION.into();
    header.max_table_entries = u32::try_from(plan.blocks()).unwrap_or(u32::MAX).into();
    header.block_size = u32::try_from(plan.block).unwrap_or(u32::MAX).into();
    let mut end = plan.table_end();
    if let Some(below) = &below {
        end = below.put(&mut header, end, site)?;
    }
    header.checksum = checksum(header.as_bytes(), HEADER_CHECKSUM_AT).into();
    site.put(0, &footer)?;
    site.put(FOOTER_LEN, &header)?;
    // The last sector of the table has no entries at its end, and yet they lead nowhere.
    let entries = plan.table_end().saturating_sub(TABLE_AT) / ENTRY_LEN;
    site.table(TABLE_AT, entries, |_| NOWHERE.to_be_bytes())?;
    site.put(end, &footer)?;
    site.end(end.saturating_add(FOOTER_LEN))
}
