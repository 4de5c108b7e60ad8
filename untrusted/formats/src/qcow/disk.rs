//! The header of version 1 of QEMU copy-on-write images, as it lies on disk.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of an image; all versions share them.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The header, at the start of the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// 1.
    pub version: U32,
    /// Where the backing file's name lies; 0 if there is none.
    pub backing_file_offset: U64,
    /// Length of that name, at most 1023.
    pub backing_file_size: U32,
    /// When the backing file was last changed; nobody looks.
    pub mtime: U32,
    /// Size of the disk in bytes.
    pub size: U64,
    /// Clusters are 2 to this power long: 9 to 16.
    pub cluster_bits: u8,
    /// An L2 table has 2 to this power entries: 6 to 13.
    pub l2_bits: u8,
    /// Unused.
    pub padding: U16,
    /// 0: none; 1: AES in CBC mode.
    pub crypt_method: U32,
    /// Where the L1 table lies.
    pub l1_table_offset: U64,
}
const _: () = assert!(size_of::<Header>() == 48);

/// L2 entry: the cluster is compressed; its length stands below this bit, in as many bits as a cluster's length has.
pub const COMPRESSED: u64 = 1 << 63;
