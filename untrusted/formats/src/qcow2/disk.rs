//! Header, header extensions, snapshots and bitmaps of qcow2 images, as they lie on disk.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::qcow::disk::MAGIC;

/// Length of version 2's header; of [`Header`], the rest is version 3's.
pub const HEADER2_LEN: u32 = 72;
/// Shortest header of version 3: without `compression_type`.
pub const HEADER3_LEN: u32 = 104;

/// `incompatible_features`: reference counts may be wrong.
pub const DIRTY: u64 = 1 << 0;
/// `incompatible_features`: an inconsistency was found; the image must not be written.
pub const CORRUPT: u64 = 1 << 1;
/// `incompatible_features`: the guest's bytes lie in another file.
pub const DATA_FILE: u64 = 1 << 2;
/// `incompatible_features`: `compression_type` is not zlib.
pub const COMPRESSION: u64 = 1 << 3;
/// `incompatible_features`: L2 entries are twice as long and tell of subclusters.
pub const EXTENDED_L2: u64 = 1 << 4;
/// `incompatible_features` that a reader may meet.
pub const INCOMPATIBLE: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
/// `compatible_features`: reference counts may be written late.
pub const LAZY_REFCOUNTS: u64 = 1 << 0;
/// `autoclear_features`: the bitmaps extension is consistent.
pub const BITMAPS: u64 = 1 << 0;
/// `autoclear_features`: the external data file alone is a raw image of the disk.
pub const DATA_FILE_RAW: u64 = 1 << 1;

/// Subclusters of a cluster with extended L2 entries.
pub const SUBCLUSTERS: u32 = 32;

/// Bits of an entry of the table of reference counts that say where the block lies.
pub const REFCOUNT_TABLE_OFFSET: u64 = 0xffff_ffff_ffff_fe00;
/// Bits of such an entry that must be zero.
pub const REFCOUNT_TABLE_RESERVED: u64 = 0x1ff;
/// Bits of an L1 entry that say where the L2 table lies.
pub const L1_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L1 entry that must be zero.
pub const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of an L2 entry that say where the cluster lies, unless it is compressed.
pub const L2_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L2 entry that must be zero, unless the cluster is compressed.
pub const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// L2 entry: the cluster reads as zeroes. Only in entries of eight bytes, from version 3 on.
pub const L2_ZERO: u64 = 1 << 0;
/// L2 entry: the cluster is compressed.
pub const L2_COMPRESSED: u64 = 1 << 62;
/// L2 entry: nobody else refers to the cluster.
pub const L2_COPIED: u64 = 1 << 63;
/// Second half of an extended L2 entry: a bit for each subcluster that has bytes.
pub const L2_ALL: u64 = 0xffff_ffff;
/// Above these, from this bit on, a bit for each subcluster that reads as zeroes.
pub const L2_ZEROES_SHIFT: u32 = 32;

/// The header, at the start of the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// 2 or 3.
    pub version: U32,
    /// Where the backing file's name lies, inside the first cluster; 0 if there is none.
    pub backing_file_offset: U64,
    /// Length of that name, at most 1023.
    pub backing_file_size: U32,
    /// Clusters are 2 to this power long: 9 to 21.
    pub cluster_bits: U32,
    /// Size of the disk in bytes.
    pub size: U64,
    /// 0: none; 1: AES in CBC mode; 2: LUKS.
    pub crypt_method: U32,
    /// Entries of the active L1 table.
    pub l1_size: U32,
    /// Where the active L1 table lies, on a cluster.
    pub l1_table_offset: U64,
    /// Where the table of reference counts lies, on a cluster.
    pub refcount_table_offset: U64,
    /// Length of that table in clusters.
    pub refcount_table_clusters: U32,
    /// How many snapshots there are.
    pub nb_snapshots: U32,
    /// Where the snapshots' table lies, on a cluster.
    pub snapshots_offset: U64,
    /// Version 3: bits that a reader must know.
    pub incompatible_features: U64,
    /// Version 3: bits that a reader may pass over.
    pub compatible_features: U64,
    /// Version 3: bits that a writer clears if it does not know them.
    pub autoclear_features: U64,
    /// Version 3: a reference count is 2 to this power bits wide, at most 6; in version 2 it is 4.
    pub refcount_order: U32,
    /// Version 3: length of the header; extensions follow it.
    pub header_length: U32,
    /// If the header is longer than 104 bytes: 0: zlib; 1: zstd.
    pub compression_type: u8,
    /// Zeroes.
    pub padding: [u8; 7],
}
const _: () = assert!(size_of::<Header>() == 112);

/// Extension: format of the backing file, as text.
pub const EXT_BACKING_FORMAT: u32 = 0xE279_2ACA;
/// Extension: [`FeatureName`]s.
pub const EXT_FEATURE_NAMES: u32 = 0x6803_F857;
/// Extension: [`Bitmaps`].
pub const EXT_BITMAPS: u32 = 0x2385_2875;
/// Extension: [`Crypto`].
pub const EXT_CRYPTO: u32 = 0x0537_BE77;
/// Extension: name of the external data file, as text.
pub const EXT_DATA_FILE: u32 = 0x4441_5441;

/// What every header extension begins with; the next one follows at a multiple of eight bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extension {
    /// What it is; 0 ends the extensions.
    pub magic: U32,
    /// Length of what follows.
    pub len: U32,
}
const _: () = assert!(size_of::<Extension>() == 8);

/// What to call a feature bit.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeatureName {
    /// 0: incompatible; 1: compatible; 2: autoclear.
    pub kind: u8,
    /// The bit's number.
    pub bit: u8,
    /// Its name, padded with zeroes; an empty one ends the table.
    pub name: [u8; 46],
}
const _: () = assert!(size_of::<FeatureName>() == 48);

/// Where the bitmaps are.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bitmaps {
    /// How many there are, at least one.
    pub nb_bitmaps: U32,
    /// Zero.
    pub reserved: U32,
    /// Length of their directory.
    pub directory_size: U64,
    /// Where their directory lies, on a cluster.
    pub directory_offset: U64,
}
const _: () = assert!(size_of::<Bitmaps>() == 24);

/// Where the LUKS header is.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Crypto {
    /// Where it lies, on a cluster.
    pub offset: U64,
    /// How long it is, with its key material.
    pub length: U64,
}
const _: () = assert!(size_of::<Crypto>() == 16);

/// `flags` of a bitmap: it was not saved properly.
pub const BITMAP_IN_USE: u32 = 1;
/// `flags` of a bitmap: it records all writes from now on.
pub const BITMAP_AUTO: u32 = 2;

/// A bitmap in the directory; extra data, the name, and padding to eight bytes follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bitmap {
    /// Where its table of clusters lies, on a cluster.
    pub table_offset: U64,
    /// Entries of that table.
    pub table_size: U32,
    /// [`BITMAP_IN_USE`], [`BITMAP_AUTO`]; bit 2 says that unknown extra data may be kept.
    pub flags: U32,
    /// 1: a dirty tracking bitmap.
    pub kind: u8,
    /// One bit stands for 2 to this power bytes: 9 to 31.
    pub granularity_bits: u8,
    /// Length of its name.
    pub name_size: U16,
    /// Length of its extra data.
    pub extra_data_size: U32,
}
const _: () = assert!(size_of::<Bitmap>() == 24);
/// Bits of an entry of a bitmap's table that must be zero.
pub const BITMAP_ENTRY_RESERVED: u64 = 0xff00_0000_0000_01fe;
/// Bits of such an entry that say where the cluster lies.
pub const BITMAP_ENTRY_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// In such an entry without a cluster: all bits are ones.
pub const BITMAP_ENTRY_ONES: u64 = 1;

/// A snapshot; extra data, identifier, name, and padding to eight bytes follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Snapshot {
    /// Where its L1 table lies, on a cluster.
    pub l1_table_offset: U64,
    /// Entries of that table.
    pub l1_size: U32,
    /// Length of its identifier.
    pub id_str_size: U16,
    /// Length of its name.
    pub name_size: U16,
    /// When it was taken: seconds since 1970.
    pub date_sec: U32,
    /// When it was taken: nanoseconds.
    pub date_nsec: U32,
    /// How long the guest had run: nanoseconds.
    pub vm_clock_nsec: U64,
    /// Size of the saved machine state, unless the extra data says it.
    pub vm_state_size: U32,
    /// Length of its extra data.
    pub extra_data_size: U32,
}
const _: () = assert!(size_of::<Snapshot>() == 40);

/// Extra data of a snapshot; it may end after any field, and more may follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SnapshotExtra {
    /// Size of the saved machine state.
    pub vm_state_size_large: U64,
    /// Size of the disk when it was taken.
    pub disk_size: U64,
    /// Instructions the guest had run; all ones if they were not counted.
    pub icount: U64,
}
const _: () = assert!(size_of::<SnapshotExtra>() == 24);
