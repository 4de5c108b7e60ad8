//! The end of a machine, which takes the kernel milliseconds. Whoever lets go of it last has to wait for that: a child does,
//! which lives in our memory and has nothing else in its hands.

use crate::dying;
use rustix::process::Pid;
use std::arch::asm;
use std::os::fd::RawFd;

/// Enough for a few system calls.
const STACK_LEN: usize = 8 << 10;
/// How long the child waits, so that it is the last.
const PATIENCE_NS: i64 = 1_000_000;

/// A stack, and on it what the child is to hold.
#[repr(C, align(16))]
struct Stack {
    bytes: [u8; STACK_LEN],
    held: Vec<RawFd>,
}

/// Has a child let go last of what these descriptors are of. Where there can be no child, or nobody would bury it, we do.
pub fn leave_to_a_child(mut held: Vec<RawFd>) {
    if !dying::orphans_are_buried() {
        return;
    }
    held.sort_unstable();
    let mut stack = Box::new(Stack { bytes: [0; STACK_LEN], held });
    // SAFETY: the child runs on a stack of its own, which lives as long as it does, and makes system calls only. It has
    // copies of our descriptors.
    // What is done on signals is done by us alone.
    let child = unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        let list = (&raw mut stack.held).cast();
        let top = stack.bytes.as_mut_ptr().add(STACK_LEN).cast();
        let child = libc::clone(let_go, top, libc::CLONE_VM | libc::SIGCHLD, list);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        child
    };
    if let Some(child) = Pid::from_raw(child).filter(|_| child > 0) {
        dying::leave(child, stack);
    }
}

/// What the child does: a moment with nothing but the machine in its hands.
extern "C" fn let_go(held: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the list is not changed any more; closing descriptors of a process that has nothing to do with them.
    unsafe {
        let mut from = 0;
        for fd in (*held.cast::<Vec<RawFd>>()).iter().map(|fd| fd.cast_unsigned() as usize) {
            if fd > from {
                syscall(libc::SYS_close_range, [from, fd - 1, 0]);
            }
            from = fd + 1;
        }
        syscall(libc::SYS_close_range, [from, u32::MAX as usize, 0]);
        let time = libc::timespec { tv_sec: 0, tv_nsec: PATIENCE_NS };
        syscall(libc::SYS_nanosleep, [&raw const time as usize, 0, 0]);
    }
    0
}

/// A system call that leaves alone what the C library keeps for the thread that we are a child of.
///
/// # Safety
/// As the call demands.
unsafe fn syscall(number: libc::c_long, a: [usize; 3]) {
    // SAFETY: the kernel keeps all registers but those named.
    unsafe {
        asm!("syscall", inlateout("rax") number => _, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             lateout("rcx") _, lateout("r11") _);
    }
}
