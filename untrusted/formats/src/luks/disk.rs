//! The headers of LUKS containers, versions 1 and 2, as they lie on disk.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of a container.
pub const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// The first bytes of version 2's second header.
pub const MAGIC_SECOND: [u8; 6] = *b"SKUL\xba\xbe";
/// `active` of a key slot in use.
pub const SLOT_ENABLED: u32 = 0x00AC_71F3;
/// `active` of a key slot that is free.
pub const SLOT_DISABLED: u32 = 0x0000_DEAD;
/// How many key slots a header of version 1 has.
pub const SLOT_COUNT: usize = 8;
/// The number of stripes that every key slot's material is split into.
pub const STRIPES: u32 = 4000;

/// Version 1's header, at the start of the container.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header1 {
    /// [`MAGIC`].
    pub magic: [u8; 6],
    /// 1.
    pub version: U16,
    /// Cipher, such as `aes`; ends with a NUL.
    pub cipher_name: [u8; 32],
    /// Mode and generator of initialisation vectors, such as `xts-plain64` or `cbc-essiv:sha256`.
    pub cipher_mode: [u8; 32],
    /// Hash of the key derivation.
    pub hash_spec: [u8; 32],
    /// First sector of 512 bytes that holds the guest's data.
    pub payload_offset: U32,
    /// Length of the master key in bytes.
    pub key_bytes: U32,
    /// Digest of the master key.
    pub mk_digest: [u8; 20],
    /// Salt of that digest.
    pub mk_digest_salt: [u8; 32],
    /// Iterations of that digest.
    pub mk_digest_iter: U32,
    /// The container's identity, as text.
    pub uuid: [u8; 40],
    /// The key slots.
    pub slots: [Slot1; SLOT_COUNT],
}
const _: () = assert!(size_of::<Header1>() == 592);

/// A key slot of version 1.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot1 {
    /// [`SLOT_ENABLED`] or [`SLOT_DISABLED`].
    pub active: U32,
    /// Iterations of its key derivation.
    pub iterations: U32,
    /// Salt of its key derivation.
    pub salt: [u8; 32],
    /// First sector of its key material.
    pub key_material_offset: U32,
    /// [`STRIPES`].
    pub stripes: U32,
}
const _: () = assert!(size_of::<Slot1>() == 48);

/// Version 2's binary header; text in JSON follows it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header2 {
    /// [`MAGIC`], or [`MAGIC_SECOND`] in the second copy.
    pub magic: [u8; 6],
    /// 2.
    pub version: U16,
    /// Length of this header and the text behind it.
    pub hdr_size: U64,
    /// Grows with every change.
    pub seqid: U64,
    /// The container's label; ends with a NUL.
    pub label: [u8; 48],
    /// Hash that `csum` is made with.
    pub csum_alg: [u8; 32],
    /// Makes every copy of the header differ.
    pub salt: [u8; 64],
    /// The container's identity, as text.
    pub uuid: [u8; 40],
    /// A second label.
    pub subsystem: [u8; 48],
    /// Where this copy lies.
    pub hdr_offset: U64,
    /// Zeroes.
    pub padding: [u8; 184],
    /// Hash of header and text, taken while this field is zero.
    pub csum: [u8; 64],
}
const _: () = assert!(size_of::<Header2>() == 512);

/// Where version 2's text begins, from the start of the binary header.
pub const TEXT_AT: u64 = 4096;
/// The lengths that version 2's `hdr_size` may have; the second header lies right behind the first.
pub const HEADER2_LENS: [u64; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
