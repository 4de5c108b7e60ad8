//! Start-up in a virtual machine: the host has already laid out memory, so there is only the doorbell to know.

use super::lane::Lane;
use super::{Main, WINDOW, heap, jobs};
use core::sync::atomic::Ordering;
use instar_wire::boot::Boot;

/// Rounds of the loop by which the host tells a native processor from an emulated one: 17 µs, or 33 ms.
const SELF_TEST_ROUNDS: u32 = 50_000;

/// Leaves the machine: a store to an address that has no memory behind it.
fn ring(lane: &Lane) {
    // SAFETY: the host maps the doorbell; the store is a plain `mov`, as an exit needs.
    unsafe {
        core::arch::asm!("mov qword ptr [{bell}], {lane}", bell = in(reg) lane.boot.wall_at, lane = in(reg) lane.number());
    }
}

/// Where the host starts a vCPU.
///
/// # Safety
/// `boot` is the address of a boot page filled in by the host, and each lane number is started once.
pub unsafe fn start(boot: usize, lane: usize, main: Main) -> ! {
    // SAFETY: the caller's promise.
    let boot = unsafe { (boot as *const Boot).read_volatile() };
    // SAFETY: the window is mapped; the lane number is ours alone.
    let door = unsafe { Lane::new(&boot, lane, ring) };
    if lane != 0 {
        jobs::serve(&door);
    }
    WINDOW.store(boot.window_at as usize, Ordering::Relaxed);
    // SAFETY: counts a register down. A loop in Rust would vanish, or go through memory and take five times as long.
    unsafe {
        core::arch::asm!("2:", "dec {rounds:e}", "jnz 2b", rounds = inout(reg) SELF_TEST_ROUNDS => _, options(nomem, nostack));
    }
    // SAFETY: the host set this region aside for the heap.
    unsafe { heap::claim(boot.heap_at as usize, boot.heap_len as usize) };
    main(&door);
    super::die(&"the program came to an end without saying so")
}
