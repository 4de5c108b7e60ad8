//! Start-up in a process: make heap and stacks, let go of everything else, put up the filter.
//!
//! Every system call of the worker's life is made here, before it has seen a byte of anyone's image.

use super::lane::{Lane, shape};
use super::{Main, WINDOW, die, heap, jobs};
use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use instar_wire::boot::{
    ANYWHERE, BELL_AT, BELL_BROKER, BELL_BROKER_WORKER_ASLEEP, BELL_WORKER, BELL_WORKER_BROKER_ASLEEP, BOOT_MAGIC,
    Boot, LANES_MAX, PAGE,
};

const SYS_MMAP: usize = 9;
const SYS_MPROTECT: usize = 10;
const SYS_MUNMAP: usize = 11;
const SYS_CLONE: usize = 56;
const SYS_PRCTL: usize = 157;
const SYS_FUTEX: usize = 202;
const SYS_SCHED_SETAFFINITY: usize = 203;
const SYS_PRLIMIT64: usize = 302;
const SYS_SECCOMP: usize = 317;

const PROT_READ_WRITE: usize = 3;
const MAP_ARENA: usize = 0x2 | 0x20 | 0x4000 | 0x10_0000;
const CLONE_LANE: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;
const PR_SET_DUMPABLE: usize = 4;
const RLIMIT_NPROC: usize = 6;
const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;
const SECCOMP_SET_MODE_FILTER: usize = 1;
const SECCOMP_FILTER_FLAG_TSYNC: usize = 1;
/// End of the addresses that a process may map.
const ADDRESS_END: usize = 0x7fff_ffff_f000;

static MAIN: AtomicUsize = AtomicUsize::new(0);
/// Lanes other than 0 that are up.
static UP: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// A system call.
///
/// # Safety
/// As the call demands.
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps all registers but those named.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// Ends the worker if a step of its start-up failed: no wall, no work.
fn must(what: &'static str, result: isize) -> usize {
    if (-4095..0).contains(&result) {
        die(&format_args!("start-up: {what} failed with error {}", -result));
    }
    result.cast_unsigned()
}

/// Hands the turn to the broker and waits until it comes back: looks for a while, then sleeps.
fn ring(lane: &Lane) {
    // SAFETY: the bell is the first word of the lane's page and only used atomically.
    let bell = unsafe { &*lane.page().as_ptr().add(BELL_AT).cast::<AtomicU32>() };
    let futex = |op, value: u32| {
        // SAFETY: waiting and waking on a word of our own window.
        unsafe { syscall(SYS_FUTEX, [bell.as_ptr() as usize, op, value as usize, 0, 0, 0]) }
    };
    if bell.swap(BELL_BROKER, Ordering::AcqRel) == BELL_WORKER_BROKER_ASLEEP {
        futex(FUTEX_WAKE, 1);
    }
    let ours = || matches!(bell.load(Ordering::Acquire), BELL_WORKER | BELL_WORKER_BROKER_ASLEEP);
    for _ in 0..lane.boot.spin {
        if ours() {
            return;
        }
        core::hint::spin_loop();
    }
    let _ = bell.compare_exchange(BELL_BROKER, BELL_BROKER_WORKER_ASLEEP, Ordering::AcqRel, Ordering::Acquire);
    while !ours() {
        futex(FUTEX_WAIT, BELL_BROKER_WORKER_ASLEEP);
    }
}

/// Where the program begins, on a stack that is not to last.
///
/// # Safety
/// `window` is the window's address, behind which there is nothing.
pub unsafe fn start(window: usize, _lane: usize, main: Main) -> ! {
    MAIN.store(main as usize, Ordering::Relaxed);
    // SAFETY: one system call after the other on memory of our own, each checked.
    unsafe {
        WINDOW.store(window, Ordering::Relaxed);
        let mut boot = (window as *const Boot).read_volatile();
        if boot.magic != BOOT_MAGIC {
            die(&"start-up: the window is not one");
        }
        boot.window_at = window as u64;
        let lanes = boot.lanes as usize;
        let (heap_len, stack_len) = (boot.heap_len as usize, boot.stack_len as usize);
        let arena_len = heap_len + lanes * (stack_len + PAGE);
        // Where the kernel would put it tells where it puts what is the broker's.
        let arena = window + window_len(&boot) + PAGE;
        must("memory", syscall(SYS_MMAP, [arena, arena_len, PROT_READ_WRITE, MAP_ARENA, usize::MAX, 0]));
        boot.heap_at = (arena + arena_len - heap_len) as u64;
        for lane in 0..lanes {
            // The lowest page of each stack is a wall, so that an overflow is a fault and not a write elsewhere.
            must("stack guard", syscall(SYS_MPROTECT, [arena + lane * (stack_len + PAGE), PAGE, 0, 0, 0, 0]));
        }
        BOOT = boot;
        ARENA = (arena, arena_len);
        switch(arena + stack_len + PAGE)
    }
}

static mut BOOT: Boot = Boot {
    magic: 0,
    lanes: 0,
    slot_len: 0,
    window_at: 0,
    heap_at: 0,
    heap_len: 0,
    stack_len: 0,
    wall_at: 0,
    wall_len: 0,
    spin: 0,
    processors: [ANYWHERE; LANES_MAX],
};
static mut ARENA: (usize, usize) = (0, 0);

/// The filter lies behind the slots, in the window as well.
fn window_len(boot: &Boot) -> usize {
    (shape(boot).len() + boot.wall_len as usize * 8).next_multiple_of(PAGE)
}

/// Goes on in [`settle`] on another stack, with nothing in hand that tells where the first one was.
///
/// # Safety
/// The stack ends at the address given and is used by nobody else.
#[unsafe(naked)]
unsafe extern "C" fn switch(_stack: usize) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "xor ebp, ebp",
        "xor ebx, ebx",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "call {settle}",
        "ud2",
        settle = sym settle,
    )
}

/// Lets go of everything that is not ours, starts the other lanes, puts up the filter, and begins.
extern "C" fn settle() -> ! {
    // SAFETY: single-threaded until the lanes start; what is unmapped is used by nobody any more.
    unsafe {
        let boot = BOOT;
        unmap_all_but(&boot, ARENA);
        heap::claim(boot.heap_at as usize, boot.heap_len as usize);
        must("dumpable", syscall(SYS_PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]));
        for lane in 1..boot.lanes as usize {
            let top = ARENA.0 + (lane + 1) * (boot.stack_len as usize + PAGE);
            // A thread begins where the one may run that starts it.
            stay(&boot, lane);
            must("thread", clone_lane(CLONE_LANE, top - 16, lane));
        }
        stay(&boot, 0);
        while u64::from(UP.load(Ordering::Acquire)) + 1 < boot.lanes {
            core::hint::spin_loop();
        }
        let none = [0u64; 2];
        must("limit", syscall(SYS_PRLIMIT64, [0, RLIMIT_NPROC, none.as_ptr() as usize, 0, 0, 0]));
        let program = (boot.wall_len, boot.window_at + boot.wall_at);
        let filter = (&raw const program) as usize;
        let sealed = syscall(SYS_SECCOMP, [SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, filter, 0, 0, 0]);
        if sealed != 0 {
            die(&format_args!("start-up: the system-call filter was refused with {sealed}"));
        }
        let lane = Lane::new(&boot, 0, ring);
        let main: Main = core::mem::transmute(MAIN.load(Ordering::Relaxed));
        main(&lane);
    }
    die(&"the program came to an end without saying so")
}

/// Has this thread run on the processor of a lane, if that has one of its own and it can be had.
fn stay(boot: &Boot, lane: usize) {
    let processor = boot.processors.get(lane).copied().unwrap_or(ANYWHERE);
    if processor != ANYWHERE {
        let mut set = [0u8; ANYWHERE as usize / 8 + 1];
        set[usize::from(processor) / 8] = 1 << (processor % 8);
        let set = &set[..=usize::from(processor) / 64 * 8 + 7];
        // SAFETY: the kernel reads this set and nothing else.
        unsafe { syscall(SYS_SCHED_SETAFFINITY, [0, set.len(), set.as_ptr() as usize, 0, 0, 0]) };
    }
}

/// Unmaps all that is neither program nor window nor arena: the first stack, what a fork left, the kernel's pages.
///
/// # Safety
/// Nobody comes back to what is unmapped; the caller runs on the arena.
unsafe fn unmap_all_but(boot: &Boot, arena: (usize, usize)) {
    let image = (&raw const __image_start) as usize;
    let mut keep = [
        (image, (&raw const __image_end) as usize),
        (boot.window_at as usize, boot.window_at as usize + window_len(boot)),
        (arena.0, arena.0 + arena.1),
    ];
    keep.sort_unstable();
    let mut from = 0;
    for (start, end) in keep.into_iter().chain([(ADDRESS_END, ADDRESS_END)]) {
        if start > from {
            // SAFETY: by the order of `keep`, nothing of ours lies between `from` and `start`.
            must("unmapping", unsafe { syscall(SYS_MUNMAP, [from, start - from, 0, 0, 0, 0]) });
        }
        from = end;
    }
}

/// Starts a thread on `stack` that runs [`lane_main`] with its lane number.
///
/// # Safety
/// The stack ends at the address given and is used by nobody else.
#[unsafe(naked)]
unsafe extern "C" fn clone_lane(_flags: usize, _stack: usize, _lane: usize) -> isize {
    naked_asm!(
        "mov r9, rdx",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call {main}",
        "ud2",
        clone = const SYS_CLONE,
        main = sym lane_main,
    )
}

extern "C" fn lane_main(number: usize) -> ! {
    // SAFETY: lane 0 wrote `BOOT` before it started this thread; the lane number is ours alone.
    let lane = unsafe {
        let boot = BOOT;
        Lane::new(&boot, number, ring)
    };
    UP.fetch_add(1, Ordering::Release);
    jobs::serve(&lane)
}
