//! The metadata of a VHDX: sizes, identifiers, and where the parent is.

use super::disk::{
    FILE_PARAMETERS, HAS_PARENT, ITEM_REQUIRED, Item, LOGICAL_SECTOR_SIZE, LocatorEntry, LocatorHead, MetadataHead,
    PARENT_LOCATOR, PHYSICAL_SECTOR_SIZE, TABLE_MAX, VIRTUAL_DISK_ID, VIRTUAL_DISK_SIZE,
};
use super::open::{invalid, not_supported};
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::text::from_utf16le;
use instar_image::{File, Result, num};
use zerocopy::little_endian::{U32, U64};

/// Block sizes.
const BLOCK_MIN: u32 = 1 << 20;
const BLOCK_MAX: u32 = 256 << 20;
/// The largest disk: 64 TiB.
pub const SIZE_MAX: u64 = 64 << 40;
/// Pairs of a parent locator that are looked at.
const PAIRS_MAX: u64 = 64;

/// The metadata, checked.
pub struct Metadata {
    /// Bytes of a block: a power of two from 1 to 256 MiB.
    pub block_len: u32,
    /// Unused blocks stay allocated.
    pub leave_allocated: bool,
    /// Size of the disk in bytes, as it stands there.
    pub disk_size: u64,
    /// Where it stands.
    pub size_at: u64,
    /// Identifier of the disk.
    pub disk_id: [u8; 16],
    /// Bytes of a sector as the guest sees it: 512 or 4096.
    pub logical_sector: u32,
    /// Bytes of a sector of the disk.
    pub physical_sector: u32,
    /// Where the parent is, by key.
    pub parent: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// Reads and checks the metadata region at `at`. `as_qemu`: only what qemu-img can read.
pub fn read(file: &File<'_>, at: u64, as_qemu: bool) -> Result<Metadata> {
    let head: MetadataHead = file.read_as(at)?;
    let count = u32::from(head.entry_count.get());
    if &head.signature != b"metadata" || count > TABLE_MAX {
        return Err(invalid());
    }
    let places = find_items(file, at, count)?;
    let [Some(parameters), Some(size), Some(id), Some(logical), Some(physical), locator] = places else {
        return Err(not_supported());
    };
    let block_len = file.read_as::<U32>(parameters)?.get();
    let flags = file.read_as::<U32>(num::add(parameters, 4, invalid)?)?.get();
    let metadata = Metadata {
        block_len,
        leave_allocated: flags & 1 != 0,
        disk_size: file.read_as::<U64>(size)?.get(),
        size_at: size,
        disk_id: file.read_as(id)?,
        logical_sector: file.read_as::<U32>(logical)?.get(),
        physical_sector: file.read_as::<U32>(physical)?.get(),
        parent: match (flags & HAS_PARENT != 0, locator) {
            (true, Some(at)) => Some(read_locator(file, at)?),
            (true, None) => return Err(invalid()),
            // A parent that the disk does not have.
            (false, Some(_)) => return Err(not_supported()),
            (false, None) => None,
        },
    };
    check(&metadata, as_qemu)?;
    Ok(metadata)
}

fn check(metadata: &Metadata, as_qemu: bool) -> Result<()> {
    let block_len = metadata.block_len;
    if !(BLOCK_MIN..=BLOCK_MAX).contains(&block_len) {
        return Err(invalid());
    }
    if metadata.logical_sector != 512 && (metadata.logical_sector != 4096 || as_qemu) {
        return Err(not_supported());
    }
    if !block_len.is_power_of_two() {
        return Err(invalid());
    }
    if metadata.disk_size > SIZE_MAX {
        return Err(invalid());
    }
    Ok(())
}

/// Where the six known items are.
fn find_items(file: &File<'_>, at: u64, count: u32) -> Result<[Option<u64>; 6]> {
    const KNOWN: [[u8; 16]; 6] = [
        FILE_PARAMETERS,
        VIRTUAL_DISK_SIZE,
        VIRTUAL_DISK_ID,
        LOGICAL_SECTOR_SIZE,
        PHYSICAL_SECTOR_SIZE,
        PARENT_LOCATOR,
    ];
    let mut places = [None; 6];
    let mut item_at = num::add(at, size_of::<MetadataHead>() as u64, invalid)?;
    for _ in 0..count {
        let item: Item = file.read_as(item_at)?;
        item_at = num::add(item_at, size_of::<Item>() as u64, invalid)?;
        match KNOWN.iter().zip(&mut places).find(|(guid, _)| **guid == item.guid) {
            Some((_, Some(_))) => return Err(invalid()),
            Some((_, place)) => *place = Some(num::add(at, item.offset.get().into(), invalid)?),
            None if item.flags.get() & ITEM_REQUIRED != 0 => return Err(not_supported()),
            None => {}
        }
    }
    Ok(places)
}

/// The pairs of a parent locator, such as `relative_path` and the name.
fn read_locator(file: &File<'_>, at: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let head: LocatorHead = file.read_as(at)?;
    let text = |offset: U32, len: usize| -> Result<Vec<u8>> {
        Ok(from_utf16le(&file.read_vec(num::add(at, offset.get().into(), invalid)?, len)?))
    };
    let mut pairs = Vec::new();
    let mut entry_at = num::add(at, size_of::<LocatorHead>() as u64, invalid)?;
    for _ in 0..u64::from(head.count.get()).min(PAIRS_MAX) {
        let entry: LocatorEntry = file.read_as(entry_at)?;
        entry_at = num::add(entry_at, size_of::<LocatorEntry>() as u64, invalid)?;
        let key = text(entry.key_offset, entry.key_length.get().into())?;
        pairs.push((key, text(entry.value_offset, entry.value_length.get().into())?));
    }
    Ok(pairs)
}
