//! The calls a worker may make, and the answers it gets: the whole vocabulary of the wall.

use crate::code::{Bytes, Code, Input, Malformed};
use crate::message;
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A file the broker opened. The worker never sees a path or a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

impl Code for FileId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        u32::get(input).map(FileId)
    }
}

/// Words of the wall that are codes where they cross it.
macro_rules! codes {
    ($(#[$about:meta])* $kind:ident: $($(#[$meta:meta])* $name:ident = $code:literal,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum $kind { $($(#[$meta])* $name = $code,)* }
        impl $kind {
            /// Every one, in order of its code.
            pub const ALL: &[$kind] = &[$($kind::$name,)*];
            /// The one with this code.
            pub fn from_code(code: u32) -> Option<$kind> {
                match code { $($code => Some($kind::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// What a call asks for.
    Op:
    /// Put the verb's request into the slot; value: its length.
    Start = 1,
    /// `file[at..][..len]` into the slot, from its byte `at2` on; with `arg` = g, a bitmap of all-zero granules of 2^g
    /// bytes follows the data.
    Read = 2,
    /// `len` bytes of the slot, from its byte `at2` on, to `file[at..]`.
    Write = 3,
    /// `file[at..][..len]` to `file2[at2..]`; the bytes never enter the cell. `arg`: what becomes of zeroes, as
    /// [`copy_arg`] has it.
    Copy = 4,
    /// `file[at..][..len]` reads as zeroes afterwards; `arg` 1: its space may be given up.
    Zero = 5,
    /// The space of `file[at..][..len]` may be given up; what it then reads is not promised. `arg`: why nobody needs it,
    /// a [`Freed`].
    Discard = 6,
    /// Space for `file[at..][..len]` is set aside; content and length stay. `arg` 1: all of it is about to be written, so only
    /// where that is the quicker for it, and what was not needed goes back when the worker has finished.
    Allocate = 7,
    /// `file` is `len` bytes long afterwards.
    SetLength = 8,
    /// The runs of data and holes of `file[at..][..len]`, or the first [`RUNS_MAX`] of them; value: how many; the slot:
    /// their lengths, with [`RUN_HOLE`].
    Holes = 9,
    /// Everything written to `file` is durable afterwards.
    Flush = 10,
    /// Open the file named by the [`Related`] in the slot's first `len` bytes; value: its id; the slot: a [`Granted`].
    Related = 11,
    /// The slot's first `len` bytes are a piece of an event: [`PIECE_LAST`] or [`PIECE_MORE`], then bytes of it.
    Emit = 12,
    /// The slot's first `len` bytes are the verb's outcome; the last call.
    Finish = 13,
    /// Lane 0: let the parked lanes run.
    Wake = 14,
    /// Lane 0: wait until all other lanes are parked.
    Join = 15,
    /// Any other lane: wait until woken.
    Park = 16,
    /// Make the file described by the [`Part`] in the slot's first `len` bytes; value: its id; the slot: a [`Granted`].
    Part = 17,
    /// Let others go on for a moment.
    Pause = 18,
    /// Value: nanoseconds of a clock that never goes back.
    Clock = 19,
    /// Value: how long `file` is now.
    Length = 20,
    /// The slot's first `len` bytes are [`Link`]s from `file` to `file2`: both refer to the same space afterwards, and
    /// nothing is copied. Value: how many could be made, in their order; none is tried after one that could not.
    Share = 21,
}

codes! {
    /// Why nobody needs a range any more; the user may want the space of some back and that of others not.
    Freed:
    /// What was there is gone for good, or never was anyone's.
    Lost = 0,
    /// It belonged to a snapshot, or to a layer that is emptied.
    Snapshot = 1,
    /// It lies elsewhere now.
    Other = 2,
    /// Zeroes came over it.
    Zeroed = 3,
}

/// The event is whole with this piece.
pub const PIECE_LAST: u8 = 0;
/// More pieces of the event follow on this lane.
pub const PIECE_MORE: u8 = 1;

/// Most runs that one call tells of.
pub const RUNS_MAX: usize = 1024;
/// In the length of a run: it is a hole.
pub const RUN_HOLE: u64 = 1 << 63;

/// A range of a file that is to be a range of another one as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Link {
    /// Where it is.
    pub at: u64,
    /// Where it is to be.
    pub to: u64,
    /// How long it is.
    pub len: u64,
}

impl Link {
    /// The links that such bytes are, unless they are something else.
    pub fn list(bytes: &[u8]) -> Result<Vec<Link>, Malformed> {
        let (links, rest) = bytes.as_chunks::<{ size_of::<Link>() }>();
        let links = links.iter().map(|link| Link::read_from_bytes(link).map_err(|_| Malformed)).collect();
        if rest.is_empty() { links } else { Err(Malformed) }
    }
}

/// Zeroes in a copy are written like all else.
pub const ZEROES_WRITTEN: u32 = 0;
/// Runs of zeroes are passed over.
pub const ZEROES_SKIPPED: u32 = 1;
/// Runs of zeroes become holes.
pub const ZEROES_HOLES: u32 = 2;
/// Longest run that may be asked for, in sectors.
pub const ZEROES_MAX: u32 = 0xffff;

/// `arg` of a copy: what becomes of runs of zeroes of at least so many sectors.
pub fn copy_arg(manner: u32, sectors: u32) -> u32 {
    manner << 16 | sectors.min(ZEROES_MAX)
}

/// Manner and sectors of a copy's `arg`, if it makes sense.
pub fn copy_manner(arg: u32) -> Option<(u32, u32)> {
    let (manner, sectors) = (arg >> 16, arg & ZEROES_MAX);
    match manner {
        ZEROES_WRITTEN if sectors == 0 => Some((manner, 0)),
        ZEROES_SKIPPED | ZEROES_HOLES if sectors > 0 => Some((manner, sectors)),
        _ => None,
    }
}

/// A call, as it lies in the lane's page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Call {
    /// One more than the lane's last call.
    pub seq: u64,
    /// An [`Op`].
    pub op: u32,
    /// A [`FileId`].
    pub file: u32,
    /// Offset in `file`.
    pub at: u64,
    /// Length in bytes.
    pub len: u64,
    /// A second [`FileId`], for `Copy`.
    pub file2: u32,
    /// What the operation says.
    pub arg: u32,
    /// Offset in `file2`, for `Copy`; in the slot, for `Read` and `Write`.
    pub at2: u64,
    /// Zero.
    pub zero: [u64; 2],
}

/// The answer to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answer {
    /// The call's.
    pub seq: u64,
    /// A [`Status`].
    pub status: u32,
    /// The broker's note of why, when the status is not `Done`.
    pub cause: u32,
    /// What the operation says.
    pub value: u64,
    /// What the operation says.
    pub value2: u64,
    /// Zero.
    pub zero: [u64; 4],
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    /// As asked.
    Done = 0,
    /// The operating system said no.
    Failed = 1,
    /// Policy said no.
    Refused = 2,
}

impl Status {
    /// The status with this code; anything unknown has failed.
    pub fn from_code(code: u32) -> Status {
        match code {
            0 => Status::Done,
            2 => Status::Refused,
            _ => Status::Failed,
        }
    }
}

message! {
    /// Why one file names another.
    pub enum Role {
        /// The file below in a chain.
        Backing = 1,
        /// Where the guest's bytes are kept.
        DataFile = 2,
        /// A part of the disk.
        Extent = 3,
        /// The parent of a differencing disk.
        Parent = 4,
    }
}

message! {
    /// A name found in an image, to be resolved by the broker against the file that holds it.
    pub struct Related {
        /// The file that names it.
        pub from: FileId,
        /// Why.
        pub role: Role,
        /// The name, as it stands there.
        pub name: Bytes,
    }
}

message! {
    /// One more file of an image in the making.
    pub struct Part {
        /// The file that the user named for the image.
        pub from: FileId,
        /// Its name, without a directory: it will stand beside that one. Without a name it takes that one's place.
        pub name: Bytes,
    }
}

message! {
    /// What the worker may know of a file it was granted.
    pub struct Granted {
        /// Its number from now on.
        pub id: FileId,
        /// Its length in bytes.
        pub len: u64,
        /// The space that it takes: less than its length where it has holes.
        pub allocated: u64,
        /// Whether it may be written.
        pub writable: bool,
        /// The format the *user* named for it, if any.
        pub pinned: Option<Bytes>,
        /// What its name suggests it is, where qemu-img goes by the name.
        pub suggested: Option<Bytes>,
    }
}
