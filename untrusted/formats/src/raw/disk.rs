//! Partition tables as they lie on a disk: the master boot record and the GUID partition table's header.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The last two bytes of a master boot record, read as a little-endian number.
pub const MBR_SIGNATURE: u16 = 0xAA55;
/// Type of the one entry of a protective master boot record.
pub const TYPE_PROTECTIVE: u8 = 0xEE;
/// The first bytes of a GUID partition table's header.
pub const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";
/// Smallest header of a GUID partition table; later revisions may be longer, up to one sector.
pub const GPT_HEADER_LEN: u32 = 92;

/// The first sector of a partitioned disk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mbr {
    /// Boot code and disk signature.
    pub code: [u8; 446],
    /// The four primary partitions.
    pub entries: [Partition; 4],
    /// [`MBR_SIGNATURE`].
    pub signature: U16,
}
const _: () = assert!(size_of::<Mbr>() == 512);

/// One primary partition.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Partition {
    /// 0x80 if it is to be booted, 0x00 otherwise.
    pub boot: u8,
    /// Cylinder, head and sector of its first sector.
    pub first_chs: [u8; 3],
    /// What it holds; 0 is an unused entry.
    pub kind: u8,
    /// Cylinder, head and sector of its last sector.
    pub last_chs: [u8; 3],
    /// Its first sector.
    pub first: U32,
    /// How many sectors it has.
    pub count: U32,
}

/// Header of a GUID partition table; it lies in the disk's second sector.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GptHeader {
    /// [`GPT_SIGNATURE`].
    pub signature: [u8; 8],
    /// 0x00010000 for revision 1.0.
    pub revision: U32,
    /// Length of the header in bytes: what `crc` covers.
    pub header_len: U32,
    /// CRC-32 of the header, taken while this field is zero.
    pub crc: U32,
    /// Zero.
    pub reserved: U32,
    /// The sector in which this header lies.
    pub my_lba: U64,
    /// The sector in which the other copy lies.
    pub alternate_lba: U64,
    /// First sector that a partition may use.
    pub first_usable: U64,
    /// Last sector that a partition may use.
    pub last_usable: U64,
    /// The disk's identity.
    pub guid: [u8; 16],
    /// First sector of the array of partitions.
    pub entries_lba: U64,
    /// How many partitions the array has room for.
    pub entry_count: U32,
    /// Length of one entry.
    pub entry_len: U32,
    /// CRC-32 of the array.
    pub entries_crc: U32,
}
const _: () = assert!(size_of::<GptHeader>() == 92);
