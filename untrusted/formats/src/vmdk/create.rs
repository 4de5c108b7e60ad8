//! How a VMDK is laid out: descriptor, header, directories of tables, tables, and grains as they are written.

use super::descriptor::Text;
use super::disk::{
    CHECK_BYTES, DEFLATE, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEW_LINES, FLAG_SECOND_DIRECTORY, FLAG_ZERO_GRAIN,
    Hosted, KDMV,
};
use super::edit::identifier;
use super::open::EXTENTS_MAX;
use super::stream::GRAINS_AT;
use alloc::format;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use instar_image::measure::{Pieces, overlays};
use instar_image::sector::SECTOR;
use instar_image::{Content, FileId, Kind, Measured, Preallocation, Recipe, Result, Site};

/// How long grains are when nobody asks, and how long they may be; those of streams are packed as a whole.
const GRAIN_LEN: u64 = 64 << 10;
const GRAIN_LENS: RangeInclusive<u64> = 4 << 10..=16 << 20;
const STREAM_LENS: RangeInclusive<u64> = 4 << 10..=2 << 20;
/// Where a descriptor begins in an image that has one inside, and its space.
const TEXT_SECTOR: u64 = 1;
const TEXT_SECTORS: u64 = 20;
/// Where the directories begin.
const DIRECTORY_SECTOR: u64 = TEXT_SECTOR + TEXT_SECTORS;
/// Entries of a table of grains; four bytes each, as those of the directory.
const TABLE_ENTRIES: u64 = 512;
const ENTRY_LEN: u64 = 4;
const TABLE_SECTORS: u64 = TABLE_ENTRIES * ENTRY_LEN / SECTOR;
/// An extent of a disk that is split.
const SPLIT_LEN: u64 = 2 << 30;
/// A disk of more grains than this cannot be counted.
const GRAINS_MAX: u64 = 1 << 32;
/// What cannot be compressed grows by a little for each of these, and has a mark in front.
const STORED_LEN: u64 = 32 << 10;
const STORED_MORE: u64 = 5;
const MARK_LEN: u64 = 64;
/// Zeroes become shorter by this at least.
const PACKED_BY: u64 = 128;
/// Marks and the footer at the end of a stream.
const END_LEN: u64 = 4 * SECTOR;
/// As long as the name of a file can be.
const NAME: [u8; 255] = [b'n'; 255];

/// How the extents of a disk are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Sparse,
    Stream,
    Flat,
}

/// What a recipe amounts to.
struct Plan<'r> {
    size: u64,
    kind: &'r [u8],
    manner: Manner,
    is_split: bool,
    grain_len: u64,
    has_zeroes: bool,
    adapter: &'r [u8],
    hardware: &'r [u8],
    tools: Option<&'r [u8]>,
    parent: Option<&'r [u8]>,
}

/// What no text in a descriptor can have.
pub fn breaks(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'"' | b'\n' | b'\r' | 0))
}

impl Plan<'_> {
    /// Of this recipe, for a qemu-img of this version.
    fn of(recipe: &Recipe, version: u32) -> Result<Plan<'_>> {
        let invalid = |text: &[u8]| Kind::Unsupported.what("invalid parameter value: {}").arg(text);
        let refused = |words: &'static str| Err(Kind::Unsupported.what(words));
        let parent = recipe.text("backing_file").filter(|name| !name.is_empty());
        if recipe.text("backing_fmt").is_some_and(|format| format != b"vmdk") {
            return refused("backing_file must be a vmdk image");
        }
        let adapter = recipe.text("adapter_type").unwrap_or(b"ide");
        if !matches!(adapter, b"ide" | b"lsilogic" | b"buslogic" | b"legacyESX") {
            return Err(invalid(adapter));
        }
        let kind = recipe.text("subformat").unwrap_or(b"monolithicSparse");
        let (manner, is_split) = match kind {
            b"monolithicSparse" => (Manner::Sparse, false),
            b"streamOptimized" => (Manner::Stream, false),
            b"monolithicFlat" => (Manner::Flat, false),
            b"twoGbMaxExtentSparse" => (Manner::Sparse, true),
            b"twoGbMaxExtentFlat" => (Manner::Flat, true),
            other => return Err(invalid(other)),
        };
        let named = recipe.text("hwversion").filter(|version| *version != b"undefined");
        let hardware = match (recipe.is_on("compat6"), named) {
            (true, Some(_)) => return refused("compat6 cannot be enabled with hwversion set"),
            (true, None) => b"6",
            (false, named) => named.unwrap_or(b"4"),
        };
        if manner == Manner::Flat && parent.is_some() {
            return refused("Flat image can't have backing file");
        }
        let has_zeroes = recipe.is_on("zeroed_grain");
        if manner == Manner::Flat && has_zeroes {
            return refused("Flat image can't enable zeroed grain");
        }
        let grain_len = recipe.number("grain_size").unwrap_or(GRAIN_LEN);
        if manner == Manner::Flat && recipe.number("grain_size").is_some() {
            return refused("Flat image has no grains");
        }
        let lens = if manner == Manner::Stream { STREAM_LENS } else { GRAIN_LENS };
        if !grain_len.is_power_of_two() || !lens.contains(&grain_len) {
            let [least, most] = [lens.start(), lens.end()].map(|len| len >> 10);
            let words = "Grain size must be a power of two between {}k and {}k";
            return Err(Kind::Unsupported.what(words).arg(least).arg(most));
        }
        let tools = recipe.text("toolsversion").unwrap_or(b"2147483647");
        let size = recipe.size.next_multiple_of(SECTOR);
        let most = match (manner, is_split) {
            (_, true) => SPLIT_LEN.saturating_mul(EXTENTS_MAX as u64),
            (Manner::Flat, _) => u64::MAX,
            _ => GRAINS_MAX.saturating_mul(grain_len).saturating_sub(SECTOR),
        };
        if size > most {
            return Err(Kind::TooBig.what("a VMDK of this kind has at most {} bytes").arg(most));
        }
        if [hardware, tools, parent.unwrap_or_default()].into_iter().any(breaks) {
            return refused("a VMDK cannot tell of names and versions with quotation marks or line ends");
        }
        // Older versions say nothing of the tools.
        let tools = Some(tools).filter(|_| !(1..600).contains(&version));
        Ok(Plan { size, kind, manner, is_split, grain_len, has_zeroes, adapter, hardware, tools, parent })
    }

    /// Bytes of the extents, one after the other.
    fn extents(&self) -> impl Iterator<Item = u64> + '_ {
        let most = if self.is_split { SPLIT_LEN } else { u64::MAX };
        let mut rest = self.size;
        // A disk in one file has an extent even if that holds nothing.
        let mut one = self.is_inside();
        core::iter::from_fn(move || {
            let len = rest.min(most);
            rest = rest.saturating_sub(len);
            (len > 0 || core::mem::take(&mut one)).then(|| {
                one = false;
                len
            })
        })
    }

    /// The descriptor is inside of the only extent.
    fn is_inside(&self) -> bool {
        self.manner != Manner::Flat && !self.is_split
    }

    /// What the file of an extent is called, counted from 1, if it has one of its own.
    fn mark(&self, number: usize) -> alloc::string::String {
        match (self.manner, self.is_split) {
            (Manner::Flat, false) => "-flat".into(),
            (Manner::Flat, true) => format!("-f{number:03}"),
            _ => format!("-s{number:03}"),
        }
    }

    /// The descriptor of a disk whose extents have these names.
    fn text(&self, cid: u32, parent: Option<(u32, &[u8])>, names: &[Vec<u8>]) -> Vec<u8> {
        let mut text = Text::new(cid, parent, self.kind);
        for (len, name) in self.extents().zip(names) {
            text.extent(len / SECTOR, self.manner == Manner::Flat, name);
        }
        text.end(self.size / SECTOR, self.adapter, self.hardware, self.tools)
    }

    /// What a table leads to.
    fn reach(&self) -> u64 {
        TABLE_ENTRIES.saturating_mul(self.grain_len)
    }

    /// A packed grain at most.
    fn packed_len(&self) -> u64 {
        let more = self.grain_len.div_ceil(STORED_LEN).saturating_mul(STORED_MORE).saturating_add(MARK_LEN);
        self.grain_len.saturating_add(more).next_multiple_of(SECTOR)
    }

    fn areas(&self, size: u64) -> Areas {
        Areas { tables: size.div_ceil(self.reach()), grain_sectors: self.grain_len / SECTOR }
    }

    /// The header of a sparse extent.
    fn header(&self, size: u64) -> Hosted {
        let areas = self.areas(size);
        let is_stream = self.manner == Manner::Stream;
        let when = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = FLAG_NEW_LINES
            | FLAG_SECOND_DIRECTORY
            | when(is_stream, FLAG_COMPRESSED | FLAG_MARKERS)
            | when(self.has_zeroes, FLAG_ZERO_GRAIN);
        Hosted {
            magic: *KDMV,
            version: if is_stream { 3 } else { 1u32.saturating_add(self.has_zeroes.into()) }.into(),
            flags: flags.into(),
            capacity: (size / SECTOR).into(),
            granularity: areas.grain_sectors.into(),
            desc_offset: TEXT_SECTOR.into(),
            desc_size: TEXT_SECTORS.into(),
            num_gtes_per_gt: u32::try_from(TABLE_ENTRIES).unwrap_or(0).into(),
            rgd_offset: DIRECTORY_SECTOR.into(),
            gd_offset: areas.first().into(),
            grain_offset: areas.grains().into(),
            unclean_shutdown: 0,
            check_bytes: CHECK_BYTES,
            compress_algorithm: if is_stream { DEFLATE } else { 0 }.into(),
            rest: [0; 433],
        }
    }
}

/// What is in front of the grains of a sparse extent, in sectors: everything that leads to them, twice.
struct Areas {
    tables: u64,
    grain_sectors: u64,
}

impl Areas {
    /// Sectors of a directory.
    fn directory(&self) -> u64 {
        self.tables.saturating_mul(ENTRY_LEN).div_ceil(SECTOR)
    }

    /// Sectors of a directory and its tables.
    fn once(&self) -> u64 {
        self.tables.saturating_mul(TABLE_SECTORS).saturating_add(self.directory())
    }

    /// Where the directory is that counts.
    fn first(&self) -> u64 {
        DIRECTORY_SECTOR.saturating_add(self.once())
    }

    /// Where the grains begin.
    fn grains(&self) -> u64 {
        self.first().saturating_add(self.once()).next_multiple_of(self.grain_sectors)
    }

    fn len(&self) -> u64 {
        self.grains().saturating_mul(SECTOR)
    }
}

/// All files of the disk together.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let plan = Plan::of(recipe, 0)?;
    let extents: Vec<u64> = plan.extents().collect();
    // Nobody knows yet what the files are called.
    let text = match plan.is_inside() {
        true => 0,
        false => {
            let names: Vec<Vec<u8>> = extents.iter().map(|_| NAME.to_vec()).collect();
            plan.text(u32::MAX, plan.parent.map(|name| (u32::MAX, name)), &names).len() as u64
        }
    };
    let front = extents.iter().fold(text, |sum, len| sum.saturating_add(plan.areas(*len).len()));
    let all = overlays(recipe, content);
    match plan.manner {
        Manner::Flat => {
            let all = plan.size.saturating_add(text);
            Ok(Measured { required: all, fully_allocated: all, bitmaps: None })
        }
        Manner::Sparse => {
            let len = plan.grain_len;
            Pieces { size: plan.size, len, stored: len, always: front }.measure(content, all)
        }
        Manner::Stream => stream(&plan, front, content, all),
    }
}

/// A stream: the tables come when they are full, each behind a mark, and the directory comes last.
fn stream(plan: &Plan<'_>, empty: u64, content: &Content<'_>, all: bool) -> Result<Measured> {
    let areas = plan.areas(plan.size);
    let directory = areas.directory().saturating_mul(SECTOR);
    let always = GRAINS_AT.saturating_add(directory).saturating_add(END_LEN);
    let table = TABLE_SECTORS.saturating_add(1).saturating_mul(SECTOR);
    let len = |tables: u64, grains: u64| {
        let tables = tables.saturating_mul(table);
        // Of the last grain, zeroes are packed that lie behind the end of the disk.
        let end = plan.size.saturating_add(plan.grain_len / PACKED_BY);
        let held = grains.saturating_mul(plan.grain_len).min(end);
        let more = grains.saturating_mul(plan.packed_len().saturating_sub(plan.grain_len));
        held.saturating_add(more).saturating_add(tables).saturating_add(always)
    };
    let fully_allocated = len(areas.tables, plan.size.div_ceil(plan.grain_len)).max(empty);
    let required = match (&content.input, all) {
        (None, _) => empty,
        (Some(_), true) => fully_allocated,
        (Some(_), false) => len(content.pieces(plan.reach())?, content.pieces(plan.grain_len)?),
    };
    Ok(Measured { required, fully_allocated, bitmaps: None })
}

/// Writes the descriptor and the files of all extents.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    let plan = Plan::of(recipe, site.rules.version)?;
    // Whatever it is, it is for files that are made empty.
    Preallocation::of_file(recipe)?;
    let unseen = || Kind::Unsupported.what("backing_file must be a vmdk image");
    let cid = || site.below.ok_or_else(unseen).and_then(identifier);
    let parent = plan.parent.map(|name| cid().map(|cid| (cid, name))).transpose()?;
    let mut names = Vec::new();
    for (len, number) in plan.extents().zip(1usize..) {
        let (file, name) =
            if plan.is_inside() { (site.file, site.name.to_vec()) } else { site.part(&plan.mark(number))? };
        if !plan.is_inside() && breaks(&name) {
            return Err(Kind::Unsupported.what("a VMDK cannot tell of names with quotation marks or line ends"));
        }
        names.push(name);
        match plan.manner {
            Manner::Flat => site.drive.set_length(file, len)?,
            Manner::Sparse | Manner::Stream => extent(&plan, site, file, len)?,
        }
    }
    let cid = u32::from_le_bytes(site.random());
    // The one that stands for none.
    let cid = if cid == u32::MAX { 0 } else { cid };
    let text = plan.text(cid, parent, &names);
    if !plan.is_inside() {
        site.put(0, &text[..])?;
        return site.end(text.len() as u64);
    }
    if text.len() as u64 > TEXT_SECTORS.saturating_mul(SECTOR) {
        return Err(Kind::TooBig.what("the descriptor is too long"));
    }
    site.put(TEXT_SECTOR.saturating_mul(SECTOR), &text[..])
}

/// A sparse extent without grains.
fn extent(plan: &Plan<'_>, site: &Site<'_>, file: FileId, size: u64) -> Result<()> {
    let areas = plan.areas(size);
    site.put_in(file, 0, &plan.header(size))?;
    for directory in [DIRECTORY_SECTOR, areas.first()] {
        let tables = directory.saturating_add(areas.directory());
        site.table_in(file, directory.saturating_mul(SECTOR), areas.tables, |number| {
            let table = tables.saturating_add(number.saturating_mul(TABLE_SECTORS));
            u32::try_from(table).unwrap_or(u32::MAX).to_le_bytes()
        })?;
    }
    site.drive.set_length(file, areas.len())
}
