//! The bytes of a VHDX: identifier, headers, log, regions and metadata.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the file begins with.
pub const IDENTIFIER: &[u8; 8] = b"vhdxfile";
/// Where the two headers are.
pub const HEADERS_AT: [u64; 2] = [0x1_0000, 0x2_0000];
/// Bytes of a header that its checksum covers.
pub const HEADER_LEN: usize = 4096;
/// Where the region table is.
pub const REGIONS_AT: u64 = 0x3_0000;
/// Where it is once more.
pub const SECOND_REGIONS_AT: u64 = 0x4_0000;
/// Bytes of a region table, and of a metadata table.
pub const TABLE_LEN: usize = 0x1_0000;
/// Entries that a region table or a metadata table may have.
pub const TABLE_MAX: u32 = 2047;
/// Sectors of the log.
pub const LOG_SECTOR: u64 = 4096;

/// A header; of the two, the one with the higher number counts.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// `head`.
    pub signature: [u8; 4],
    /// CRC-32C of 4096 bytes.
    pub checksum: U32,
    /// Which header is newer.
    pub sequence_number: U64,
    /// Changes when the file is written to.
    pub file_write_guid: [u8; 16],
    /// Changes when the guest's data are written to.
    pub data_write_guid: [u8; 16],
    /// The log's entries carry it; zero: the log is empty.
    pub log_guid: [u8; 16],
    /// 0.
    pub log_version: U16,
    /// 1.
    pub version: U16,
    /// Bytes of the log.
    pub log_length: U32,
    /// Where it is.
    pub log_offset: U64,
}

/// What a region table begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionHead {
    /// `regi`.
    pub signature: [u8; 4],
    /// CRC-32C of 65536 bytes.
    pub checksum: U32,
    /// Entries.
    pub entry_count: U32,
    /// Unused.
    pub reserved: U32,
}

/// A region.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Region {
    /// Which.
    pub guid: [u8; 16],
    /// Where it is.
    pub file_offset: U64,
    /// Its length.
    pub length: U32,
    /// Bit 0: who does not know it must not open the file.
    pub required: U32,
}

/// What a metadata table begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MetadataHead {
    /// `metadata`.
    pub signature: [u8; 8],
    /// Unused.
    pub reserved: U16,
    /// Entries.
    pub entry_count: U16,
    /// Unused.
    pub reserved2: [u8; 20],
}

/// An item of metadata.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Item {
    /// Which.
    pub guid: [u8; 16],
    /// Where it is, counted from the table.
    pub offset: U32,
    /// Its length.
    pub length: U32,
    /// Bit 2: who does not know it must not open the file.
    pub flags: U32,
    /// Unused.
    pub reserved: U32,
}

/// Bit of `Item::flags`: the item is about the disk and not about the file.
pub const ITEM_DISK: u32 = 1 << 1;
/// Bit of `Item::flags`: who does not know it must not open the file.
pub const ITEM_REQUIRED: u32 = 1 << 2;
/// Bit of the second word of the file parameters: blocks keep their space.
pub const LEAVE_ALLOCATED: u32 = 1;
/// Bit of the second word of the file parameters.
pub const HAS_PARENT: u32 = 1 << 1;

/// What a parent locator begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LocatorHead {
    /// Which notation.
    pub locator_type: [u8; 16],
    /// Unused.
    pub reserved: U16,
    /// Pairs that follow.
    pub count: U16,
}

/// A pair of texts, UTF-16; places are counted from the locator.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LocatorEntry {
    /// Where the key is.
    pub key_offset: U32,
    /// Where the value is.
    pub value_offset: U32,
    /// Bytes of the key.
    pub key_length: U16,
    /// Bytes of the value.
    pub value_length: U16,
}

/// What an entry of the log begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LogEntry {
    /// `loge`.
    pub signature: [u8; 4],
    /// CRC-32C of the entry.
    pub checksum: U32,
    /// Its length, a multiple of 4096.
    pub entry_length: U32,
    /// Where the sequence begins that it belongs to.
    pub tail: U32,
    /// Its number; not zero.
    pub sequence_number: U64,
    /// Descriptors that follow.
    pub descriptor_count: U32,
    /// Unused.
    pub reserved: U32,
    /// The header's `log_guid`.
    pub log_guid: [u8; 16],
    /// How long the file has to be.
    pub flushed_file_offset: U64,
    /// How long it was.
    pub last_file_offset: U64,
}

/// What an entry of the log does: zeroes, or a sector of data.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LogDescriptor {
    /// `zero` or `desc`.
    pub signature: [u8; 4],
    /// The last four bytes of the sector.
    pub trailing: [u8; 4],
    /// The first eight bytes of the sector, or how much is zero.
    pub leading: U64,
    /// Where.
    pub file_offset: U64,
    /// The entry's number.
    pub sequence_number: U64,
}

/// The part of a block table's entry that is an offset.
pub const OFFSET_MASK: u64 = !0xf_ffff;
/// The part of it that is the block's state.
pub const STATE_MASK: u64 = 7;
/// State: not here, but in the parent if there is one.
pub const NOT_PRESENT: u64 = 0;
/// State: nobody knows.
pub const UNDEFINED: u64 = 1;
/// State: zeroes.
pub const ZERO: u64 = 2;
/// State: given up by the guest.
pub const UNMAPPED: u64 = 3;
/// State: the same, in the first version of the specification.
pub const UNMAPPED_EARLY: u64 = 5;
/// State: in the file. A sector bitmap has this one or none.
pub const FULLY_PRESENT: u64 = 6;
/// State: in the file are those sectors whose bits are set.
pub const PARTIALLY_PRESENT: u64 = 7;
/// Bytes of a block of the sector bitmap.
pub const BITMAP_LEN: u64 = 1 << 20;

/// A sector of data in the log, without its first and last bytes: those stand in its descriptor.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LogDataSector {
    /// `data`, and the upper half of the entry's number.
    pub leading: [u8; 8],
    /// The data.
    pub data: [u8; 4084],
    /// The lower half of the entry's number.
    pub trailing: [u8; 4],
}

/// The block table's region.
pub const BAT: [u8; 16] = 0x6677_c22d_23f6_0042_9d64_115e_9bfd_4a08_u128.to_be_bytes();
/// The metadata's region.
pub const METADATA: [u8; 16] = 0x06a2_7c8b_9047_9a4b_b8fe_575f_050f_886e_u128.to_be_bytes();
/// Item: block size and flags.
pub const FILE_PARAMETERS: [u8; 16] = 0x3767_a1ca_36fa_434d_b3b6_33f0_aa44_e76b_u128.to_be_bytes();
/// Item: the disk's size in bytes.
pub const VIRTUAL_DISK_SIZE: [u8; 16] = 0x2442_a52f_1bcd_7648_b211_5dbe_d83b_f4b8_u128.to_be_bytes();
/// Item: the disk's identifier.
pub const VIRTUAL_DISK_ID: [u8; 16] = 0xab12_cabe_e6b2_2345_93ef_c309_e000_c746_u128.to_be_bytes();
/// Item: bytes of a sector as the guest sees it.
pub const LOGICAL_SECTOR_SIZE: [u8; 16] = 0x1dbf_4181_6fa9_0947_ba47_f233_a8fa_ab5f_u128.to_be_bytes();
/// Item: bytes of a sector of the disk.
pub const PHYSICAL_SECTOR_SIZE: [u8; 16] = 0xc748_a3cd_5d44_7144_9cc9_e988_5251_c556_u128.to_be_bytes();
/// The notation of a parent locator: keys and values.
pub const LOCATOR_TYPE: [u8; 16] = 0xb7ef_4ab0_9ed1_814a_b789_25b8_e944_5913_u128.to_be_bytes();
/// Item: where the parent is.
pub const PARENT_LOCATOR: [u8; 16] = 0x2d5f_d3a8_0bb3_4d45_abf7_d3d8_4834_ab0c_u128.to_be_bytes();

const _: () = assert!(size_of::<Header>() == 80 && size_of::<RegionHead>() == 16 && size_of::<Region>() == 32);
const _: () = assert!(size_of::<MetadataHead>() == 32 && size_of::<Item>() == 32 && size_of::<LogEntry>() == 64);
const _: () = assert!(size_of::<LocatorHead>() == 20 && size_of::<LocatorEntry>() == 12);
const _: () = assert!(size_of::<LogDataSector>() as u64 == LOG_SECTOR);
const _: () = assert!(offset_of!(Header, log_offset) == 72 && size_of::<LogDescriptor>() == 32);
