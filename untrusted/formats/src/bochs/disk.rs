//! The bytes of a Bochs growing disk's header.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `magic`, with the zero that ends it.
pub const MAGIC: &[u8] = b"Bochs Virtual HD Image\0";
/// `kind`, with the zero that ends it.
pub const REDOLOG: &[u8] = b"Redolog\0";
/// `subtype`, with the zero that ends it.
pub const GROWING: &[u8] = b"Growing\0";
/// `version` of the layout with the early disk size.
pub const VERSION_1: u32 = 0x0001_0000;
/// `version` of the layout in use.
pub const VERSION_2: u32 = 0x0002_0000;

/// An entry of the catalog that leads nowhere.
pub const NOWHERE: u32 = u32::MAX;

/// The header, at the start of the file; it fills 512 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 32],
    /// [`REDOLOG`].
    pub kind: [u8; 16],
    /// [`GROWING`].
    pub subtype: [u8; 16],
    /// The layout of what follows.
    pub version: U32,
    /// Length of the header: the catalog follows it.
    pub header: U32,
    /// Entries of the catalog, one for each extent.
    pub catalog: U32,
    /// Bytes of the bitmap before each extent.
    pub bitmap: U32,
    /// Bytes of an extent.
    pub extent: U32,
    /// Version 2: a time stamp. Version 1: the lower half of the disk's size.
    pub extra: U32,
    /// Version 2: the disk's size in bytes.
    pub disk: U64,
    /// Unused.
    pub rest: [u8; 416],
}

/// Where version 1 keeps the disk's size.
pub const DISK_AT_1: u64 = 84;

const _: () = assert!(size_of::<Header>() == 512 && offset_of!(Header, version) == 64);
const _: () = assert!(offset_of!(Header, disk) == 88 && offset_of!(Header, extra) as u64 == DISK_AT_1);
