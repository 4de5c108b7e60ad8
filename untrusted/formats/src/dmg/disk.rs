//! The bytes of an Apple disk image: its trailer and its tables of chunks.

use core::mem::{offset_of, size_of};
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `signature` of the trailer.
pub const KOLY: &[u8; 4] = b"koly";
/// `signature` of a block table.
pub const MISH: &[u8; 4] = b"mish";

/// The trailer, in the last 512 bytes of the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Trailer {
    /// [`KOLY`].
    pub signature: [u8; 4],
    /// 4.
    pub version: U32,
    /// 512.
    pub header_size: U32,
    /// Flags.
    pub flags: U32,
    /// Unused by readers.
    pub running_data_fork_offset: U64,
    /// Where the chunks' bytes begin.
    pub data_fork_offset: U64,
    /// How many they are.
    pub data_fork_length: U64,
    /// Where the resource fork begins.
    pub rsrc_fork_offset: U64,
    /// Its length; zero: the tables are in the property list.
    pub rsrc_fork_length: U64,
    /// Number of this segment.
    pub segment_number: U32,
    /// Segments of the image.
    pub segment_count: U32,
    /// Identifier of the segments.
    pub segment_id: [u8; 16],
    /// Checksum of the data: its type, its bits, and room for them.
    pub data_checksum: [u8; 136],
    /// Where the property list begins.
    pub xml_offset: U64,
    /// Its length.
    pub xml_length: U64,
    /// Unused.
    pub reserved: [u8; 120],
    /// Checksum of the disk.
    pub checksum: [u8; 136],
    /// The kind of image.
    pub image_variant: U32,
    /// Sectors of the disk.
    pub sector_count: U64,
    /// Unused.
    pub rest: [u8; 12],
}

/// What a block table begins with; chunks fill the rest of it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Block {
    /// [`MISH`].
    pub signature: [u8; 4],
    /// 1.
    pub version: U32,
    /// First sector, which those of the chunks are counted from.
    pub sector_number: U64,
    /// Sectors.
    pub sector_count: U64,
    /// Where the chunks' bytes begin in the data fork.
    pub data_offset: U64,
    /// Sectors that a reader should be able to hold.
    pub buffers_needed: U32,
    /// Number of the block.
    pub descriptor: U32,
    /// Unused.
    pub reserved: [u8; 24],
    /// Checksum of the block.
    pub checksum: [u8; 136],
    /// Chunks; readers go by the table's length.
    pub chunk_count: U32,
}

/// A chunk of a block.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chunk {
    /// How its bytes are kept.
    pub kind: U32,
    /// A remark.
    pub comment: U32,
    /// First sector, counted from the block's.
    pub sector: U64,
    /// Sectors.
    pub count: U64,
    /// Where its bytes begin, counted from the block's.
    pub offset: U64,
    /// How many they are.
    pub length: U64,
}

/// The values of `Chunk::kind`.
pub mod kind {
    /// Zeroes.
    pub const ZERO: u32 = 0;
    /// As it is.
    pub const RAW: u32 = 1;
    /// Zeroes that nobody cares for.
    pub const IGNORE: u32 = 2;
    /// Apple Data Compression.
    pub const ADC: u32 = 0x8000_0004;
    /// zlib.
    pub const ZLIB: u32 = 0x8000_0005;
    /// bzip2.
    pub const BZIP2: u32 = 0x8000_0006;
    /// LZFSE.
    pub const LZFSE: u32 = 0x8000_0007;
    /// LZMA.
    pub const LZMA: u32 = 0x8000_0008;
    /// Not data.
    pub const COMMENT: u32 = 0x7fff_fffe;
    /// The end of the table.
    pub const END: u32 = 0xffff_ffff;
}

const _: () = assert!(size_of::<Trailer>() == 512 && size_of::<Block>() == 204 && size_of::<Chunk>() == 40);
const _: () = assert!(offset_of!(Trailer, xml_offset) == 216 && offset_of!(Trailer, sector_count) == 492);
