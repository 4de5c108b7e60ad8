//! Start-up: what a program needs before there is a Rust to speak of. The only unsafe code in a cell.
//!
//! JUSTIFICATION: without an operating system somebody has to make a heap, find the window, switch stacks and ring
//! the bell; all of it happens here and nowhere else.

pub mod heap;
pub mod jobs;
pub mod kvm;
pub mod lane;
pub mod process;
mod symbols;

use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering};
use instar_wire::boot::{LAST_WORDS_AT, LAST_WORDS_MAX};

/// What a program does on a lane; lane 0 gets the request, the others wait for jobs.
pub type Main = fn(&lane::Lane);

/// Where the window lies, once that is known.
static WINDOW: AtomicUsize = AtomicUsize::new(0);

/// Text that is cut where the room ends.
struct Words {
    bytes: [u8; LAST_WORDS_MAX],
    len: usize,
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Leaves last words in the boot page and stops the cell.
pub fn die(why: &dyn core::fmt::Display) -> ! {
    let window = WINDOW.load(Ordering::Relaxed);
    if window != 0 {
        let mut words = Words { bytes: [0; LAST_WORDS_MAX], len: 0 };
        let _ = write!(words, "{why}");
        let at = (window + LAST_WORDS_AT) as *mut u8;
        // SAFETY: the boot page is part of the window, which is mapped and writable for as long as the program runs.
        unsafe {
            core::ptr::copy_nonoverlapping(words.bytes.as_ptr(), at.add(8), words.len);
            at.cast::<u64>().write_volatile(words.len as u64);
        }
    }
    // SAFETY: an invalid instruction ends the cell; that is its purpose.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// Makes a program of a main function: `program!(kvm, main)`.
#[macro_export]
macro_rules! program {
    ($wall:ident, $main:path) => {
        core::arch::global_asm!(
            ".section .text.entry,\"ax\"",
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            "and rsp, -16",
            "call {start}",
            "ud2",
            start = sym start,
        );

        extern "C" fn start(boot: usize, lane: usize) -> ! {
            let main: $crate::rt::Main = $main;
            // SAFETY: the entry point passes on what the host or the kernel put into the registers.
            unsafe { $crate::rt::$wall::start(boot, lane, main) }
        }

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::rt::die(&info.message())
        }
    };
}
