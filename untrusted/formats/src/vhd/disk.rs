//! The bytes of a VHD: its footer, which growing disks repeat at the front, and the header of growing disks.

use core::mem::{offset_of, size_of};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `cookie` of the footer.
pub const CONECTIX: &[u8; 8] = b"conectix";
/// `cookie` of the header.
pub const CXSPARSE: &[u8; 8] = b"cxsparse";
/// `disk_type`: all of the disk, one sector after another.
pub const FIXED: u32 = 2;
/// `disk_type`: blocks that were written to.
pub const DYNAMIC: u32 = 3;
/// `disk_type`: blocks in which it differs from another disk.
pub const DIFFERENCING: u32 = 4;
/// Where the checksum lies in a footer.
pub const FOOTER_CHECKSUM_AT: usize = 64;
/// Where the checksum lies in a header.
pub const HEADER_CHECKSUM_AT: usize = 36;
/// Notations of where a parent is, the one first that still holds after both were moved.
pub const PLATFORMS: [&[u8; 4]; 4] = [b"W2ru", b"W2ku", b"MacX", b"Mac "];
/// An entry of the block table that leads nowhere.
pub const NOWHERE: u32 = u32::MAX;

/// The footer, in the last sector; old writers left out its last byte.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Footer {
    /// [`CONECTIX`].
    pub cookie: [u8; 8],
    /// Features.
    pub features: U32,
    /// Version of the layout.
    pub version: U32,
    /// Where the header of a growing disk is.
    pub data_offset: U64,
    /// When it was made: seconds since 2000.
    pub timestamp: U32,
    /// The program that made it.
    pub creator_app: [u8; 4],
    /// Its version.
    pub creator_version: U32,
    /// The system it ran on.
    pub creator_os: [u8; 4],
    /// Size of the disk when it was made, in bytes.
    pub original_size: U64,
    /// Size of the disk, in bytes.
    pub current_size: U64,
    /// Cylinders.
    pub cylinders: U16,
    /// Heads.
    pub heads: u8,
    /// Sectors per track.
    pub sectors: u8,
    /// The kind of disk.
    pub disk_type: U32,
    /// Complement of the sum of all other bytes.
    pub checksum: U32,
    /// Identifier.
    pub uuid: [u8; 16],
    /// It holds a saved machine.
    pub saved_state: u8,
    /// Unused.
    pub rest: [u8; 427],
}

/// The header of a growing disk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`CXSPARSE`].
    pub cookie: [u8; 8],
    /// Unused.
    pub data_offset: U64,
    /// Where the block table begins.
    pub table_offset: U64,
    /// Version of the layout.
    pub version: U32,
    /// Entries of the block table.
    pub max_table_entries: U32,
    /// Bytes of a block.
    pub block_size: U32,
    /// Complement of the sum of all other bytes.
    pub checksum: U32,
    /// Identifier of the parent.
    pub parent_uuid: [u8; 16],
    /// When the parent was last changed: seconds since 2000.
    pub parent_timestamp: U32,
    /// Unused.
    pub reserved: [u8; 4],
    /// Name of the parent: UTF-16, big-endian.
    pub parent_name: [u8; 512],
    /// Where the parent is, in several notations.
    pub locators: [Locator; 8],
    /// Unused.
    pub rest: [u8; 256],
}

/// One notation of where the parent is.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Locator {
    /// Which notation, such as `W2ru`: relative, UTF-16, little-endian.
    pub platform_code: [u8; 4],
    /// Room for it.
    pub data_space: U32,
    /// Bytes of it.
    pub data_length: U32,
    /// Unused.
    pub reserved: [u8; 4],
    /// Where it is.
    pub data_offset: U64,
}

const _: () = assert!(size_of::<Footer>() == 512 && offset_of!(Footer, checksum) == FOOTER_CHECKSUM_AT);
const _: () = assert!(size_of::<Header>() == 1024 && offset_of!(Header, checksum) == HEADER_CHECKSUM_AT);
const _: () = assert!(offset_of!(Footer, current_size) == 48 && offset_of!(Header, locators) == 576);
