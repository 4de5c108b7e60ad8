//! The bytes of a compressed loop image's header.

use core::mem::size_of;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The script that the preamble begins with.
pub const SCRIPT: &[u8] = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/// The header, at the start of the file; the offsets of the blocks follow, and one of their end.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// A shell script that mounts the image.
    pub preamble: [u8; 128],
    /// Bytes of a block when unpacked.
    pub block_size: U32,
    /// Blocks.
    pub num_blocks: U32,
}

/// Where the offsets begin.
pub const OFFSETS_AT: u64 = 136;

const _: () = assert!(size_of::<Header>() as u64 == OFFSETS_AT);
