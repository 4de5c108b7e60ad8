//! The heap: one region, handed over at start-up, whose end is the worker's memory budget.

use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;

#[global_allocator]
static HEAP: TalcLock<RawSpinlock, Manual> = TalcLock::new(Manual);

/// Gives the heap its region.
///
/// # Safety
/// `at..at + len` is mapped, writable and used by nobody else.
pub unsafe fn claim(at: usize, len: usize) {
    // SAFETY: the caller's promise is the one `claim` asks for.
    let _ = unsafe { HEAP.lock().claim(at as *mut u8, len) };
}
