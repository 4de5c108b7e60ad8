//! The end of a machine, which takes the kernel milliseconds. Whoever lets go of it last has to wait for that: a child does,
//! which lives in our memory and has nothing else in its hands.

use crate::dying;
use crate::hands::all_but;
use rustix::process::{Pid, Signal, kill_process};
use std::arch::asm;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Enough for a few system calls.
const STACK_LEN: usize = 8 << 10;
/// How often, and for how long, a child is waited for that still has more in its hands than it is to hold.
const LOOKS: u32 = 1000;
const LOOK: Duration = Duration::from_micros(50);

/// A child that holds a machine until this is dropped, which has to be behind all else that does.
pub struct Parting {
    child: Pid,
    room: Option<Box<Room>>,
}

/// What the child has of its own: a stack, and what it is told.
#[repr(C, align(16))]
struct Room {
    stack: [u8; STACK_LEN],
    parent: usize,
    /// The descriptors that it is not to hold.
    others: Vec<[u32; 2]>,
    holds_nothing_else: AtomicBool,
}

impl Parting {
    /// Has a child hold what these descriptors are of. There is none where there can be none, or nobody would bury it.
    pub fn prepare(held: Vec<RawFd>) -> Option<Parting> {
        if !dying::orphans_are_buried() {
            return None;
        }
        let parent = std::process::id().try_into().ok()?;
        let holds_nothing_else = AtomicBool::new(false);
        let mut room = Box::new(Room { stack: [0; STACK_LEN], parent, others: all_but(held), holds_nothing_else });
        // SAFETY: the child runs on a stack of its own, which lives as long as it does, and makes system calls only. It
        // has copies of our descriptors. What is done on signals is done by us alone.
        let child = unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            let top = room.stack.as_mut_ptr().add(STACK_LEN).cast();
            let child = libc::clone(hold, top, libc::CLONE_VM | libc::SIGCHLD, (&raw mut *room).cast());
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            child
        };
        let child = Pid::from_raw(child).filter(|_| child > 0)?;
        Some(Parting { child, room: Some(room) })
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else { return };
        // Files that we close are to be closed when we are gone.
        for _ in 0..LOOKS {
            if room.holds_nothing_else.load(Ordering::Acquire) {
                break;
            }
            thread::sleep(LOOK);
        }
        let _ = kill_process(self.child, Signal::KILL);
        dying::leave(self.child, room);
    }
}

/// What the child does: nothing, with the machine in its hands, until it is killed or its parent dies.
extern "C" fn hold(room: *mut libc::c_void) -> libc::c_int {
    // SAFETY: what it is told does not change any more; all else is system calls on what is the child's alone.
    unsafe {
        let room = &*room.cast::<Room>();
        for [first, last] in &room.others {
            syscall(libc::SYS_close_range, [*first as usize, *last as usize, 0, 0]);
        }
        syscall(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0]);
        // Who dies becomes nobody's parent under a lock that this has to wait for.
        syscall(libc::SYS_wait4, [usize::MAX, 0, libc::WNOHANG as usize, 0]);
        room.holds_nothing_else.store(true, Ordering::Release);
        while syscall(libc::SYS_getppid, [0; 4]) == room.parent {
            syscall(libc::SYS_pause, [0; 4]);
        }
    }
    0
}

/// A system call that leaves alone what the C library keeps for the thread that we are a child of.
///
/// # Safety
/// As the call demands.
unsafe fn syscall(number: libc::c_long, a: [usize; 4]) -> usize {
    let result;
    // SAFETY: the kernel keeps all registers but those named.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], lateout("rcx") _, lateout("r11") _);
    }
    result
}
