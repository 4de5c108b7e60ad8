//! Opening a VDI: its header, checked.

use super::disk::{BLOCK_LEN, Header, SIGNATURE, VERSION_1_1};
use alloc::format;
use instar_image::{File, Kind, Result};

/// The most blocks that qemu-img takes.
const BLOCKS_MAX: u32 = 0x1fff_ff80;
/// The disk that they make.
const SIZE_MAX: u64 = BLOCKS_MAX as u64 * BLOCK_LEN as u64;

/// What a VDI is, checked.
pub struct Checked {
    /// Size of the disk in bytes, a multiple of 512.
    pub virtual_size: u64,
    /// Where the block map begins.
    pub map_at: u64,
    /// Where the blocks begin.
    pub data_at: u64,
    /// Entries of the map; they cover the disk.
    pub block_count: u32,
    /// Blocks the header says are allocated: a claim.
    pub allocated: u32,
    /// The kind of image, as a number.
    pub image_type: u32,
    /// Its identifier.
    pub uuid: [u8; 16],
}

/// Reads and checks the header.
pub fn open(file: &File<'_>) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    check(&header).map_err(|error| error.file(file.id()))
}

fn check(header: &Header) -> Result<Checked> {
    let disk_size = header.disk_size.get();
    if disk_size > SIZE_MAX {
        return Err(Kind::TooBig
            .what("Unsupported VDI image size (size is 0x{}, max supported is 0x{})")
            .arg(format!("{disk_size:x}"))
            .arg(format!("{SIZE_MAX:x}")));
    }
    // Some writers leave a size that ends inside a sector; the rest of the sector counts.
    let virtual_size = disk_size.next_multiple_of(512);
    if header.signature.get() != SIGNATURE {
        return Err(Kind::NotThisFormat
            .what("Image not in VDI format (bad signature {})")
            .arg(format!("{:08x}", header.signature.get())));
    }
    if header.version.get() != VERSION_1_1 {
        return Err(Kind::Unsupported
            .what("unsupported VDI image (version {}.{})")
            .arg(header.version.get() >> 16)
            .arg(header.version.get() & 0xffff));
    }
    if !header.offset_bmap.get().is_multiple_of(512) {
        return Err(Kind::Unsupported
            .what("unsupported VDI image (unaligned block map offset 0x{})")
            .arg(format!("{:x}", header.offset_bmap.get())));
    }
    if !header.offset_data.get().is_multiple_of(512) {
        return Err(Kind::Unsupported
            .what("unsupported VDI image (unaligned data offset 0x{})")
            .arg(format!("{:x}", header.offset_data.get())));
    }
    if header.sector_size.get() != 512 {
        return Err(Kind::Unsupported
            .what("unsupported VDI image (sector size {} is not 512)")
            .arg(header.sector_size.get()));
    }
    if header.block_size.get() != BLOCK_LEN {
        return Err(Kind::Unsupported
            .what("unsupported VDI image (block size {} is not {})")
            .arg(header.block_size.get())
            .arg(BLOCK_LEN));
    }
    check_blocks(header, virtual_size)?;
    Ok(Checked {
        virtual_size,
        map_at: header.offset_bmap.get().into(),
        data_at: header.offset_data.get().into(),
        block_count: header.blocks_in_image.get(),
        allocated: header.blocks_allocated.get(),
        image_type: header.image_type.get(),
        uuid: header.uuid_image,
    })
}

/// The map covers the disk, and there is no other image that it depends on.
fn check_blocks(header: &Header, virtual_size: u64) -> Result<()> {
    let blocks = header.blocks_in_image.get();
    let room = u64::from(blocks).saturating_mul(BLOCK_LEN.into());
    if virtual_size > room {
        return Err(Kind::Corrupt
            .what("unsupported VDI image (disk size {}, image bitmap has room for {})")
            .arg(virtual_size)
            .arg(room));
    }
    if header.uuid_link != [0; 16] {
        return Err(Kind::Unsupported.what("unsupported VDI image (non-NULL link UUID)"));
    }
    if header.uuid_parent != [0; 16] {
        return Err(Kind::Unsupported.what("unsupported VDI image (non-NULL parent UUID)"));
    }
    if blocks > BLOCKS_MAX {
        return Err(Kind::TooBig
            .what("unsupported VDI image (too many blocks {}, max is {})")
            .arg(blocks)
            .arg(BLOCKS_MAX));
    }
    Ok(())
}
