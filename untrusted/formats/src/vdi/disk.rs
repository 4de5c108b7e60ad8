//! The bytes of a VDI header, as VirtualBox lays them out.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `signature` of every VDI.
pub const SIGNATURE: u32 = 0xbeda_107f;
/// The only version in use: 1.1.
pub const VERSION_1_1: u32 = 0x0001_0001;
/// `block_size` of every VDI that qemu-img reads.
pub const BLOCK_LEN: u32 = 1 << 20;
/// `image_type` of a disk that grows.
pub const DYNAMIC: u32 = 1;
/// `image_type` of a disk whose blocks were all set aside when it was made.
pub const STATIC: u32 = 2;
/// An entry of the block map from this one on leads nowhere: a block discarded, or never written to. Both are zeroes.
pub const DISCARDED: u32 = 0xffff_fffe;

/// The header, at the start of the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Free text such as `<<< Oracle VM VirtualBox Disk Image >>>`.
    pub text: [u8; 64],
    /// [`SIGNATURE`].
    pub signature: U32,
    /// Major version in the upper half, minor in the lower.
    pub version: U32,
    /// Length of what follows, as far as the version defines it.
    pub header_size: U32,
    /// 1: grows; 2: allocated at once; 3: undo; 4: differencing.
    pub image_type: U32,
    /// Flags.
    pub image_flags: U32,
    /// Free text.
    pub description: [u8; 256],
    /// Where the block map begins; a multiple of 512.
    pub offset_bmap: U32,
    /// Where the blocks begin; a multiple of 512.
    pub offset_data: U32,
    /// Geometry of old: cylinders, heads, sectors.
    pub geometry: [U32; 3],
    /// 512.
    pub sector_size: U32,
    /// Unused.
    pub unused: U32,
    /// Size of the disk in bytes.
    pub disk_size: U64,
    /// Bytes of a block.
    pub block_size: U32,
    /// Bytes of extra data before each block.
    pub block_extra: U32,
    /// Entries of the block map.
    pub blocks_in_image: U32,
    /// Blocks that have a place in the file.
    pub blocks_allocated: U32,
    /// Identifier of the image.
    pub uuid_image: [u8; 16],
    /// Identifier of its last snapshot.
    pub uuid_last_snap: [u8; 16],
    /// Identifier of the image it differs from.
    pub uuid_link: [u8; 16],
    /// Identifier of its parent.
    pub uuid_parent: [u8; 16],
    /// Unused.
    pub rest: [u8; 56],
}

const _: () = assert!(size_of::<Header>() == 512);
const _: () = assert!(offset_of!(Header, signature) == 0x40 && offset_of!(Header, offset_bmap) == 0x154);
const _: () = assert!(offset_of!(Header, disk_size) == 0x170 && offset_of!(Header, uuid_parent) == 0x1b8);
