//! The shape of the window, the memory both sides see, and the page that tells a worker where things are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of the boot page and of each lane's page.
pub const PAGE: usize = 4096;
/// Where in a lane's page the bell word lies.
pub const BELL_AT: usize = 0;
/// Where in a lane's page the call lies.
pub const CALL_AT: usize = 64;
/// Where in a lane's page the answer lies.
pub const ANSWER_AT: usize = 128;
/// Bell: the worker has the turn, the broker watches the bell.
pub const BELL_WORKER: u32 = 0;
/// Bell: the broker has the turn, the worker watches the bell.
pub const BELL_BROKER: u32 = 1;
/// Bell: the worker has the turn, the broker sleeps on the bell and must be woken.
pub const BELL_WORKER_BROKER_ASLEEP: u32 = 2;
/// Bell: the broker has the turn, the worker sleeps on the bell and must be woken.
pub const BELL_BROKER_WORKER_ASLEEP: u32 = 3;
/// Where in the boot page a worker that cannot go on says why: a length, then so many bytes of text.
pub const LAST_WORDS_AT: usize = 2048;
/// Most bytes of last words.
pub const LAST_WORDS_MAX: usize = 1024;
/// Most lanes a cell can have.
pub const LANES_MAX: usize = 16;
/// No processor in particular.
pub const ANYWHERE: u16 = u16::MAX;
/// First word of the boot page: what it is, and the version of this crate's promises.
pub const BOOT_MAGIC: u64 = 0x0005_7261_7473_6e69;

/// Bytes of the stage: the part of a long slot where what is copied lies between being read and being written.
pub const STAGE_LEN: usize = 2 << 20;
/// Room behind the stage for the marks of zeroes that follow what is read.
pub const STAGE_MARKS: usize = PAGE;

/// Bytes of a slot of this length that come before the stage; all of it, if it is too short to have one.
pub fn before_stage(slot_len: usize) -> usize {
    match slot_len.checked_sub(STAGE_LEN + STAGE_MARKS) {
        None | Some(0) => slot_len,
        Some(before) => before,
    }
}

/// The first page of the window, written by the host before the worker starts and never read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Boot {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// How many lanes there are.
    pub lanes: u64,
    /// Length of each lane's data slot.
    pub slot_len: u64,
    /// Address of the window in the worker's memory.
    pub window_at: u64,
    /// Address of the heap in the worker's memory.
    pub heap_at: u64,
    /// Length of the heap.
    pub heap_len: u64,
    /// Length of each lane's stack, where the worker has to make it itself.
    pub stack_len: u64,
    /// Process cell: offset in the window of the system-call filter. KVM cell: address of the doorbell.
    pub wall_at: u64,
    /// Process cell: instructions in the filter.
    pub wall_len: u64,
    /// How often to look at the bell before sleeping on it.
    pub spin: u64,
    /// Process cell: the processor of each lane, or [`ANYWHERE`].
    pub processors: [u16; LANES_MAX],
}

/// Where the parts of a window lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many lanes there are.
    pub lanes: usize,
    /// Length of each lane's data slot; a multiple of [`PAGE`].
    pub slot_len: usize,
}

impl Shape {
    /// Offset of the lane's page.
    pub fn page_at(&self, lane: usize) -> usize {
        PAGE * (1 + lane)
    }

    /// Offset of the lane's data slot.
    pub fn slot_at(&self, lane: usize) -> usize {
        PAGE * (1 + self.lanes) + self.slot_len * lane
    }

    /// Length of the window.
    pub fn len(&self) -> usize {
        self.slot_at(self.lanes)
    }

    /// A window always holds at least its boot page.
    pub fn is_empty(&self) -> bool {
        false
    }
}
