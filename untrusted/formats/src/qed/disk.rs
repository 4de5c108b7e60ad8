//! The header of QEMU enhanced disks, as it lies on disk.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of an image.
pub const MAGIC: [u8; 4] = *b"QED\0";
/// `features`: there is a backing file.
pub const BACKING_FILE: u64 = 1;
/// `features`: the image was not closed properly and must be checked before it is written.
pub const NEED_CHECK: u64 = 2;
/// `features`: the backing file is raw, whatever its bytes look like.
pub const BACKING_NO_PROBE: u64 = 4;
/// `features` that a reader may meet.
pub const FEATURES: u64 = BACKING_FILE | NEED_CHECK | BACKING_NO_PROBE;

/// An entry of an L2 table: the cluster is zero. One that is 0 asks the backing file.
pub const ZERO_CLUSTER: u64 = 1;

/// The header, at the start of the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// Length of a cluster: a power of two from 4 KiB to 64 MiB.
    pub cluster_size: U32,
    /// Length of every table in clusters: 1, 2, 4, 8 or 16.
    pub table_size: U32,
    /// Length of the header in clusters.
    pub header_size: U32,
    /// Bits that a reader must know.
    pub features: U64,
    /// Bits that a reader may pass over.
    pub compat_features: U64,
    /// Bits that a writer clears if it does not know them.
    pub autoclear_features: U64,
    /// Where the L1 table lies.
    pub l1_table_offset: U64,
    /// Size of the disk in bytes.
    pub image_size: U64,
    /// Where the backing file's name lies, inside the header.
    pub backing_filename_offset: U32,
    /// Length of that name.
    pub backing_filename_size: U32,
}
const _: () = assert!(size_of::<Header>() == 64);
/// Where `image_size` stands.
pub const SIZE_AT: u64 = core::mem::offset_of!(Header, image_size) as u64;
/// Where `features` stands.
pub const FEATURES_AT: u64 = core::mem::offset_of!(Header, features) as u64;
