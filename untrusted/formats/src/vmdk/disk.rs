//! The bytes of VMware's sparse disks: the hosted kind, ESX's older and its newer kind.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `magic` of a hosted sparse disk.
pub const KDMV: &[u8; 4] = b"KDMV";
/// `magic` of ESX's older sparse disk.
pub const COWD: &[u8; 4] = b"COWD";
/// `gd_offset` of a stream: the directory is named by the footer.
pub const AT_END: u64 = u64::MAX;
/// `flags`: the check of line ends is there.
pub const FLAG_NEW_LINES: u32 = 1;
/// `flags`: there is a second directory.
pub const FLAG_SECOND_DIRECTORY: u32 = 1 << 1;
/// `flags`: an entry of [`ZERO_GRAIN`] is a grain of zeroes.
pub const FLAG_ZERO_GRAIN: u32 = 1 << 2;
/// `flags`: grains are compressed.
pub const FLAG_COMPRESSED: u32 = 1 << 16;
/// `flags`: a [`Marker`] stands before each grain and each table.
pub const FLAG_MARKERS: u32 = 1 << 17;
/// An entry of a grain table: zeroes.
pub const ZERO_GRAIN: u32 = 1;
/// Bytes of a [`Marker`] before a compressed grain, whose data follow at once: sector and length.
pub const GRAIN_MARKER_LEN: u64 = 12;
/// `check_bytes` of a file that has been left as it was.
pub const CHECK_BYTES: [u8; 4] = *b"\n \r\n";
/// `compress_algorithm`: deflate.
pub const DEFLATE: u16 = 1;
/// `kind` of the marker before a table of grains.
pub const MARKER_TABLE: u32 = 1;
/// `kind` of the marker before the directory.
pub const MARKER_DIRECTORY: u32 = 2;
/// `kind` of the marker before a footer.
pub const MARKER_FOOTER: u32 = 3;
/// Where the text begins that describes a disk with a header.
pub const DESCRIPTOR_AT: u64 = 512;

/// The header of a hosted sparse disk; it fills 512 bytes. Offsets and sizes are in sectors.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hosted {
    /// [`KDMV`].
    pub magic: [u8; 4],
    /// 1 to 3.
    pub version: U32,
    /// Flags.
    pub flags: U32,
    /// Size of the disk.
    pub capacity: U64,
    /// Size of a grain.
    pub granularity: U64,
    /// Where the descriptor begins.
    pub desc_offset: U64,
    /// How large it is.
    pub desc_size: U64,
    /// Entries of a grain table: 512.
    pub num_gtes_per_gt: U32,
    /// Where the second grain directory begins.
    pub rgd_offset: U64,
    /// Where the grain directory begins, or [`AT_END`].
    pub gd_offset: U64,
    /// Where the grains begin.
    pub grain_offset: U64,
    /// Set while the disk is open.
    pub unclean_shutdown: u8,
    /// Line ends, to tell a transfer as text.
    pub check_bytes: [u8; 4],
    /// How grains are compressed.
    pub compress_algorithm: U16,
    /// Unused.
    pub rest: [u8; 433],
}

/// The last three sectors of a stream: a marker, the header again, the end.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Footer {
    /// A [`MARKER_FOOTER`].
    pub marker: Marker,
    /// The header, with the directory's place.
    pub header: Hosted,
    /// All zero.
    pub end: Marker,
}

/// What stands before the parts of a stream.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Marker {
    /// Sectors, or the sector of a grain.
    pub value: U64,
    /// Bytes of a compressed grain; zero before anything else.
    pub size: U32,
    /// What follows.
    pub kind: U32,
    /// Unused.
    pub rest: [u8; 496],
}

/// The header of ESX's older sparse disk. Offsets and sizes are in sectors.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cowd {
    /// [`COWD`].
    pub magic: [u8; 4],
    /// 1.
    pub version: U32,
    /// Flags.
    pub flags: U32,
    /// Size of the disk.
    pub disk_sectors: U32,
    /// Size of a grain.
    pub granularity: U32,
    /// Where the grain directory begins.
    pub l1dir_offset: U32,
    /// Its entries.
    pub l1dir_size: U32,
}

/// `magic` of [`SeConst`].
pub const SE_CONST_MAGIC: u64 = 0xcafe_babe;
/// `version` of [`SeConst`]: 2.1.
pub const SE_VERSION: u64 = 0x0000_0002_0000_0001;
/// `magic` of [`SeVolatile`].
pub const SE_VOLATILE_MAGIC: u64 = 0xcafe_cafe;

/// The bits of an entry of the grain directory that say what it is; below is the number of a table.
pub const SE_TABLE_KIND: u64 = 0xffff_ffff_0000_0000;
/// There is a table.
pub const SE_TABLE: u64 = 1 << 60;
/// The bits of an entry of a grain table that say what it is; without any the grain is not there.
pub const SE_KIND: u64 = 0xf << 60;
/// The grain was unmapped by the guest.
pub const SE_UNMAPPED: u64 = 1 << 60;
/// The grain is zero.
pub const SE_ZERO: u64 = 2 << 60;
/// The grain has a number.
pub const SE_ALLOCATED: u64 = 3 << 60;
/// Bits 0 to 11 of the number.
pub const SE_LOW: u64 = 0xfff << 48;
/// Bits 12 to 59 of the number.
pub const SE_HIGH: u64 = 0xffff_ffff_ffff;

/// The header of ESX's newer sparse disk that never changes. Offsets and sizes are in sectors.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SeConst {
    /// [`SE_CONST_MAGIC`].
    pub magic: U64,
    /// [`SE_VERSION`].
    pub version: U64,
    /// Size of the disk.
    pub capacity: U64,
    /// Size of a grain: 8.
    pub grain_size: U64,
    /// Size of a grain table: 64.
    pub grain_table_size: U64,
    /// Zero.
    pub flags: U64,
    /// Zero.
    pub reserved: [U64; 4],
    /// Where [`SeVolatile`] is, and its size.
    pub volatile_header: [U64; 2],
    /// The journal's header and its size.
    pub journal_header: [U64; 2],
    /// The journal and its size.
    pub journal: [U64; 2],
    /// Where the grain directory begins.
    pub grain_dir_offset: U64,
    /// Its size.
    pub grain_dir_size: U64,
    /// Where the grain tables begin.
    pub grain_tables_offset: U64,
    /// Their size.
    pub grain_tables_size: U64,
    /// The free bitmap and its size.
    pub free_bitmap: [U64; 2],
    /// The map from grains back to tables, and its size.
    pub backmap: [U64; 2],
    /// Where the grains begin.
    pub grains_offset: U64,
    /// Their size.
    pub grains_size: U64,
    /// Zero.
    pub pad: [u8; 304],
}

/// The header of ESX's newer sparse disk that changes, in the second sector.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SeVolatile {
    /// [`SE_VOLATILE_MAGIC`].
    pub magic: U64,
    /// The next free grain table.
    pub free_gt_number: U64,
    /// The next transaction.
    pub next_txn_seq_number: U64,
    /// Not zero: the journal has to be replayed.
    pub replay_journal: U64,
    /// Zero.
    pub pad: [u8; 480],
}

const _: () = assert!(size_of::<Hosted>() == 512 && offset_of!(Hosted, compress_algorithm) == 77);
const _: () = assert!(offset_of!(Hosted, grain_offset) == 64 && size_of::<Marker>() == 512);
const _: () = assert!(size_of::<Footer>() == 1536 && size_of::<Cowd>() == 28);
const _: () = assert!(size_of::<SeConst>() == 512 && offset_of!(SeConst, grain_dir_offset) == 128);
const _: () = assert!(offset_of!(SeConst, grains_size) == 200 && size_of::<SeVolatile>() == 512);
