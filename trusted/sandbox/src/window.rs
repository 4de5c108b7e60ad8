//! The window: the memory that broker and worker both see.
//!
//! The worker may change any byte of it at any moment. So nothing in it is ever borrowed as a Rust reference: calls
//! are copied out once, answers copied in, and bulk data moves by pointer inside system calls.

use crate::Fall;
use instar_wire::boot::{ANSWER_AT, BELL_AT, Boot, CALL_AT, PAGE, Shape};
use instar_wire::io::{Answer, Call};
use rustix::io::ReadWriteFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU32;
use zerocopy::IntoBytes;

/// Shared memory of a known shape.
pub struct Window {
    at: *mut u8,
    len: usize,
    shape: Shape,
}

// SAFETY: the mapping lives as long as the window and is only touched through copies and atomics.
unsafe impl Send for Window {}
// SAFETY: as above; two threads that use the same lane's bytes see torn data at worst, which is what hostile memory is.
unsafe impl Sync for Window {}

impl Window {
    /// New, zeroed shared memory.
    pub fn new(shape: Shape, extra: usize) -> Result<Window, Fall> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let len = (shape.len() + extra).next_multiple_of(PAGE);
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choosing disturbs nothing.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, read_write, MapFlags::SHARED) };
        let at = at.map_err(|e| Fall::Host("window memory", e.into()))?.cast();
        Ok(Window { at, len, shape })
    }

    /// Its lanes and slots.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Its length in bytes, extra space behind the slots included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A window is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where it is mapped here.
    pub fn address(&self) -> usize {
        self.at as usize
    }

    /// Fills in the boot page.
    pub fn set_boot(&self, boot: &Boot) {
        self.put(0, boot.as_bytes());
    }

    /// Copies `bytes` to `at`; a range outside the window is the caller's mistake and is not written.
    pub fn put(&self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.len) {
            // SAFETY: the range was just checked to lie inside the mapping; the source is ordinary memory.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(at), bytes.len()) }
        }
    }

    /// Copies `into.len()` bytes from `at`; from outside the window come zeroes.
    pub fn get(&self, at: usize, into: &mut [u8]) {
        if at.checked_add(into.len()).is_some_and(|end| end <= self.len) {
            // SAFETY: as in `put`; the copy is made once and everything after works on the copy.
            unsafe { std::ptr::copy_nonoverlapping(self.at.add(at), into.as_mut_ptr(), into.len()) }
            // The compiler may not look at the window again instead of at the copy.
            std::hint::black_box(into);
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        } else {
            into.fill(0);
        }
    }

    /// The lane's bell.
    pub fn bell(&self, lane: usize) -> &AtomicU32 {
        let at = self.shape.page_at(lane.min(self.shape.lanes - 1)) + BELL_AT;
        // SAFETY: inside the mapping by construction of the shape, aligned to a page, and only used atomically.
        unsafe { &*self.at.add(at).cast() }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing borrows from it longer than the window lives.
        let _ = unsafe { rustix::mm::munmap(self.at.cast(), self.len) };
    }
}

/// A lane whose turn it is the broker's to take.
pub struct Turn<'a> {
    window: &'a Window,
    lane: usize,
}

impl<'a> Turn<'a> {
    /// The turn of that lane.
    pub fn new(window: &'a Window, lane: usize) -> Self {
        Turn { window, lane }
    }

    /// Which lane.
    pub fn lane(&self) -> usize {
        self.lane
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.window.shape.lanes
    }

    /// The call, copied out.
    pub fn call(&self) -> Call {
        let mut call = Call::default();
        self.window.get(self.window.shape.page_at(self.lane) + CALL_AT, call.as_mut_bytes());
        call
    }

    /// Puts the answer where the worker looks for it.
    pub fn answer(&self, answer: &Answer) {
        self.window.put(self.window.shape.page_at(self.lane) + ANSWER_AT, answer.as_bytes());
    }

    /// Length of the lane's data slot.
    pub fn slot_len(&self) -> usize {
        self.window.shape.slot_len
    }

    /// Copies the slot's first `len` bytes out.
    pub fn copy_out(&self, len: usize) -> Vec<u8> {
        self.copy_out_at(0, len)
    }

    /// Copies `len` bytes of the slot out, from `at` on; none from beyond its end.
    pub fn copy_out_at(&self, at: usize, len: usize) -> Vec<u8> {
        let at = at.min(self.slot_len());
        let mut bytes = vec![0; len.min(self.slot_len() - at)];
        self.window.get(self.window.shape.slot_at(self.lane) + at, &mut bytes);
        bytes
    }

    /// Copies `bytes` into the slot at `at`; what does not fit is not written.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.slot_len()) {
            self.window.put(self.window.shape.slot_at(self.lane) + at, bytes);
        }
    }

    /// Reads up to `len` bytes of a file at `offset` into the slot at `at`.
    pub fn read_from(&self, file: BorrowedFd<'_>, offset: u64, at: usize, len: usize) -> io::Result<usize> {
        let Some(place) = self.place(at, len) else { return Err(io::ErrorKind::InvalidInput.into()) };
        // SAFETY: `place` checked that the range lies inside the slot; the kernel writes there as the worker might.
        let n = unsafe { libc::pread(file.as_raw_fd(), place.cast(), len, offset.cast_signed()) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Writes `len` bytes of the slot from `at` to a file at `offset`.
    pub fn write_to(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        at: usize,
        len: usize,
        flags: ReadWriteFlags,
    ) -> io::Result<usize> {
        let Some(place) = self.place(at, len) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let part = libc::iovec { iov_base: place.cast(), iov_len: len };
        let flags = flags.bits().cast_signed();
        // SAFETY: as in `read_from`; the kernel reads whatever is there at that moment.
        let n = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset.cast_signed(), flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Writes behind `len` bytes of the slot, from `start` on, a bitmap of their granules of `1 << shift` bytes that are
    /// all zero.
    pub fn mark_zero_granules(&self, start: usize, len: usize, shift: u32) {
        let granule = 1usize << shift;
        let count = len.div_ceil(granule);
        let mut bitmap = vec![0u8; count.div_ceil(8)];
        let mut piece = vec![0u8; granule.min(len)];
        for index in 0..count {
            let at = index * granule;
            let n = granule.min(len - at);
            self.window.get(self.window.shape.slot_at(self.lane) + start + at, &mut piece[..n]);
            if is_zero(&piece[..n]) {
                bitmap[index / 8] |= 1 << (index % 8);
            }
        }
        self.copy_in(start + len, &bitmap);
    }

    fn place(&self, at: usize, len: usize) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        // SAFETY: the slot lies inside the mapping and `at` inside the slot.
        (end <= self.slot_len()).then(|| unsafe { self.window.at.add(self.window.shape.slot_at(self.lane)).add(at) })
    }
}

/// Whether all bytes are zero: the only look the broker takes at a guest's bytes.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<256>();
    chunks.iter().all(|c| c.iter().fold(0, |all, b| all | b) == 0) && rest.iter().all(|b| *b == 0)
}
