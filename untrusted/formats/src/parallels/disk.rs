//! The bytes of a Parallels disk: its header and its format extension.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `magic` of the older layout: the table counts in sectors, the disk's size in 32 bits.
pub const MAGIC: &[u8; 16] = b"WithoutFreeSpace";
/// `magic` of the newer layout: the table counts in clusters.
pub const MAGIC_EXT: &[u8; 16] = b"WithouFreSpacExt";
/// The only version.
pub const VERSION: u32 = 2;
/// `inuse` of an image that was not closed.
pub const IN_USE: u32 = 0x746f_6e59;
/// Bit of `flags`: the disk is empty.
pub const EMPTY: u32 = 1;
/// `magic` of the format extension.
pub const EXTENSION: u64 = 0xab23_4cef_23dc_ea87;
/// `magic` of the feature that keeps a dirty bitmap.
pub const BITMAP: u64 = 0x2038_5fae_252c_b34a;

/// The header, at the start of the file; the table follows it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`] or [`MAGIC_EXT`].
    pub magic: [u8; 16],
    /// [`VERSION`].
    pub version: U32,
    /// Geometry: heads.
    pub heads: U32,
    /// Geometry: cylinders.
    pub cylinders: U32,
    /// Sectors of a cluster.
    pub tracks: U32,
    /// Entries of the table.
    pub bat_entries: U32,
    /// Size of the disk in sectors.
    pub nb_sectors: U64,
    /// [`IN_USE`] while a writer has it open.
    pub inuse: U32,
    /// First sector of the data; zero: right behind the table.
    pub data_off: U32,
    /// Flags, such as [`EMPTY`].
    pub flags: U32,
    /// Sector of the format extension; zero: none.
    pub ext_off: U64,
}

/// Where `inuse` stands.
pub const IN_USE_AT: u64 = offset_of!(Header, inuse) as u64;
/// Where `data_off` stands.
pub const DATA_OFF_AT: u64 = offset_of!(Header, data_off) as u64;

/// What a format extension begins with; it fills one cluster.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extension {
    /// [`EXTENSION`].
    pub magic: U64,
    /// MD5 of the rest of the cluster.
    pub checksum: [u8; 16],
}

/// What each feature of a format extension begins with; its data follows, padded to 8 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Feature {
    /// Which feature; zero ends the list.
    pub magic: U64,
    /// Flags: what to do with a feature one does not know.
    pub flags: U64,
    /// Bytes of data.
    pub data_size: U32,
    /// Unused.
    pub unused: U32,
}

/// What the data of a [`BITMAP`] feature begins with; the table of clusters follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bitmap {
    /// Size of the disk in sectors.
    pub size: U64,
    /// Identifier.
    pub id: [u8; 16],
    /// Sectors for which one bit stands.
    pub granularity: U32,
    /// Entries of the table: 0: all clear; 1: all set; else the sector of a cluster of bits.
    pub l1_size: U32,
}

const _: () = assert!(size_of::<Header>() == 64 && offset_of!(Header, nb_sectors) == 36);
const _: () = assert!(offset_of!(Header, ext_off) == 56 && size_of::<Extension>() == 24);
const _: () = assert!(size_of::<Feature>() == 24 && size_of::<Bitmap>() == 32);
