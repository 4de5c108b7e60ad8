//! The memory of a virtual machine: private to the host until a vCPU is let at it.

use crate::Fall;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ops::Range;
use std::ptr::null_mut;

/// Zeroed memory of which only those pages cost something that are touched.
pub struct Memory {
    reserved: *mut u8,
    reserved_len: usize,
    at: *mut u8,
    len: usize,
}

// SAFETY: the mapping is owned by this value and the host only copies into it.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared borrow gives out nothing but its address and length.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory, at a multiple of `align`; `large_pages` may come in such.
    pub fn new(len: usize, align: usize, large_pages: Range<usize>) -> Result<Memory, Fall> {
        let reserved_len = len + align;
        let fail = |e: rustix::io::Errno| Fall::Host("memory", e.into());
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choosing disturbs nothing.
        let reserved = unsafe { mmap_anonymous(null_mut(), reserved_len, ProtFlags::READ | ProtFlags::WRITE, flags) }
            .map_err(fail)?
            .cast::<u8>();
        let skip = reserved.align_offset(align);
        // SAFETY: less than `align`, which the mapping is longer than `len`.
        let at = unsafe { reserved.add(skip) };
        if !large_pages.is_empty() && large_pages.end <= len {
            // SAFETY: inside the mapping; advice changes no content. It may be ignored, so failure is none.
            let _ = unsafe { madvise(at.add(large_pages.start).cast(), large_pages.len(), Advice::LinuxHugepage) };
        }
        Ok(Memory { reserved, reserved_len, at, len })
    }

    /// Where it is mapped here.
    pub fn address(&self) -> usize {
        self.at as usize
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies `bytes` to `at`; a range outside the memory is the caller's mistake and is not written.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.len) {
            // SAFETY: the range was just checked to lie inside the mapping; the source is ordinary memory.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(at), bytes.len()) }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`; the machine that used it was closed before.
        let _ = unsafe { munmap(self.reserved.cast(), self.reserved_len) };
    }
}
