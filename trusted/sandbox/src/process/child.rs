//! From broker to worker: what happens between the fork and the worker's first instruction.
//!
//! The child lays the program out beside its copy of the broker, jumps in, and there the copy is given back. Until then only
//! system calls are made: the broker may have threads, and a fork copies none of them.

use crate::elf::{self, Segment};
use crate::hands::all_but;
use crate::window::Window;
use crate::{Budget, Fall};
use instar_wire::boot::PAGE;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::Pid;
use std::ffi::CStr;
use std::io::{self, PipeWriter};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Every namespace of its own; what cannot be had is left out, step by step.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;
const NAME: &CStr = c"instar-worker";
/// Where the worker finds the window: the same place in all of them, from which nothing about the broker's can be told.
pub const WINDOW_AT: usize = 1 << 32;
const EXIT_BASE: i32 = 64;

/// What the child needs, made ready before the fork.
struct Plan<'a> {
    /// A pipe whose other end the broker has, and the child's copy of that end.
    pipe: [i32; 2],
    /// The descriptors of which it has no need.
    others: Vec<[u32; 2]>,
    ruleset: Option<OwnedFd>,
    window: &'a Window,
    entry: usize,
    segments: Vec<Segment>,
    bytes: &'static [u8],
    cpu_seconds: u64,
}

/// A step that failed in the child; its number is the exit status.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Step {
    Privileges,
    Limits,
    Landlock,
    Descriptors,
    Load,
}

/// Why a child that never became a worker went away.
pub fn explain(code: i32) -> Fall {
    let what = match code - EXIT_BASE {
        0 => "the worker could not give up its privileges",
        1 => "the worker could not be limited",
        2 => "the worker could not be shut out of the file system",
        3 => "the worker's descriptors could not be closed",
        4 => "the worker could not be loaded",
        _ => return Fall::Gone(code),
    };
    Fall::Host(what, io::ErrorKind::PermissionDenied.into())
}

/// Starts the program in a child process; the broker keeps the end of a pipe for as long as it wants it.
pub fn spawn(bytes: &'static [u8], window: &Window, budget: &Budget) -> Result<(Pid, PipeWriter), Fall> {
    let fail = |what: &'static str| move |e: io::Error| Fall::Host(what, e);
    let (far, near) = io::pipe().map_err(fail("a pipe"))?;
    see_children_die();
    let (entry, segments) =
        elf::parse(bytes).ok_or_else(|| fail("the worker is no program")(io::ErrorKind::InvalidData.into()))?;
    let (pipe, ruleset) = ([far.as_raw_fd(), near.as_raw_fd()], ruleset());
    let plan = Plan {
        pipe,
        others: all_but(pipe.into_iter().chain(ruleset.as_ref().map(|ruleset| ruleset.as_raw_fd())).collect()),
        ruleset,
        window,
        entry,
        segments,
        bytes,
        cpu_seconds: if budget.earns { libc::RLIM_INFINITY } else { budget.cpu.as_secs().saturating_add(2) },
    };
    let mut error = io::Error::from(io::ErrorKind::PermissionDenied);
    for namespaces in [NAMESPACES, NAMESPACES & !libc::CLONE_NEWUSER, 0] {
        // SAFETY: a plain fork with namespaces; the child makes system calls only, until it is another program.
        match unsafe { libc::syscall(libc::SYS_clone, namespaces | libc::SIGCHLD, 0, 0, 0, 0) } {
            // SAFETY: we are the child, alone in our copy of memory.
            0 => unsafe { become_worker(&plan) },
            -1 => error = io::Error::last_os_error(),
            pid => {
                let child = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| fail("fork")(error))?;
                drop(far);
                if budget.shape.lanes > 1 {
                    // A process of several threads dies by and by, and there is a moment when it tells nobody any more
                    // and is not known to be dead. So there are no others before the child is tied to this one.
                    let mut look = libc::pollfd { fd: near.as_raw_fd(), events: 0, revents: 0 };
                    // SAFETY: waits until nobody has the other end, on a structure of our own.
                    unsafe { libc::poll(&raw mut look, 1, -1) };
                }
                return Ok((child, near));
            }
        }
    }
    Err(fail("fork")(error))
}

/// A parent that ignores the death of children hands that on, and then nobody could tell how a worker died.
fn see_children_die() {
    // SAFETY: asks for and sets a disposition; the default one does nothing but keep the dead until they are asked for.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
    }
}

/// Rules that allow nothing, where the kernel has Landlock.
fn ruleset() -> Option<OwnedFd> {
    use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|r| r.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|r| r.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create);
    rules.ok().and_then(Option::<OwnedFd>::from)
}

/// Ends a child that cannot become a worker.
///
/// # Safety
/// Called in a forked child.
unsafe fn give_up(step: Step) -> ! {
    // SAFETY: leaves at once; no destructors of the broker's may run here.
    unsafe { libc::_exit(EXIT_BASE + step as i32) }
}

/// Gives up everything and becomes the worker.
///
/// # Safety
/// Called in a forked child; nothing here allocates or takes a lock.
unsafe fn become_worker(plan: &Plan<'_>) -> ! {
    // SAFETY: system calls on plain values and on memory that the fork copied.
    unsafe {
        let must = |step: Step, result: i64| {
            if result < 0 {
                give_up(step)
            }
        };
        // Locks last as long as anybody has the file: nobody is to see them when the broker is gone.
        for [first, last] in &plan.others {
            must(Step::Descriptors, libc::syscall(libc::SYS_close_range, *first, *last, 0));
        }
        must(Step::Privileges, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into());
        leave_with_the_broker(plan);
        must(Step::Privileges, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into());
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        drop_capabilities(&must);
        for (resource, limit) in [
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_FSIZE, 0),
            (libc::RLIMIT_MEMLOCK, 0),
            (libc::RLIMIT_MSGQUEUE, 0),
            (libc::RLIMIT_CPU, plan.cpu_seconds),
        ] {
            let both = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // A limit that was lower already stays.
            if libc::setrlimit(resource, &raw const both) < 0 && *libc::__errno_location() != libc::EPERM {
                give_up(Step::Limits);
            }
        }
        if let Some(ruleset) = &plan.ruleset {
            must(Step::Landlock, libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0));
        }
        must(Step::Descriptors, libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0));
        let both = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        must(Step::Limits, libc::setrlimit(libc::RLIMIT_NOFILE, &raw const both).into());
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        for segment in &plan.segments {
            lay_out(segment, plan.bytes);
        }
        move_memory(plan.window.address(), plan.window.len(), WINDOW_AT);
        forget_c_library();
        enter(plan.entry, WINDOW_AT)
    }
}

/// Ends a child whose broker died before it could be told of that.
///
/// # Safety
/// Called in a forked child that is told of it from now on.
unsafe fn leave_with_the_broker(plan: &Plan<'_>) {
    let [far, near] = plan.pipe;
    // SAFETY: system calls on a structure of our own, and on descriptors that only we have here.
    unsafe {
        libc::close(near);
        // Whoever dies tells its children under a lock that this has to wait for, and before that its files are closed.
        libc::syscall(libc::SYS_wait4, -1, 0, libc::WNOHANG, 0);
        let mut look = libc::pollfd { fd: far, events: 0, revents: 0 };
        if libc::poll(&raw mut look, 1, 0) > 0 {
            give_up(Step::Privileges);
        }
        // The broker sees that.
        libc::close(far);
    }
}

/// No capability in any set, none to be had again.
///
/// # Safety
/// Called in a forked child: the calling thread loses its rights.
unsafe fn drop_capabilities(must: &dyn Fn(Step, i64)) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    // SAFETY: the structures are the kernel's, version 3.
    unsafe {
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break;
            }
        }
        let header = Header { version: VERSION_3, pid: 0 };
        let none = [0u32; 6];
        must(Step::Privileges, libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()));
    }
}

/// Lays a segment out where it belongs. What is not written to is not copied either.
///
/// # Safety
/// Called in a forked child that needs nothing of the broker's any more.
unsafe fn lay_out(segment: &Segment, bytes: &'static [u8]) {
    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
    let from = bytes[segment.bytes.clone()].as_ptr();
    let to = segment.at as *mut libc::c_void;
    // SAFETY: a new mapping that may replace nothing; the copy stays inside it.
    unsafe {
        if segment.write {
            reserve(segment.at, segment.len, READ_WRITE);
            std::ptr::copy_nonoverlapping(from, to.cast(), segment.bytes.len());
            return;
        }
        let len = segment.len.next_multiple_of(PAGE);
        move_memory(from as usize, len, segment.at);
        let protection = if segment.execute { libc::PROT_READ | libc::PROT_EXEC } else { libc::PROT_READ };
        if libc::mprotect(to, len, protection) < 0 {
            give_up(Step::Load);
        }
    }
}

/// Memory at an address where there is none yet.
///
/// # Safety
/// Called in a forked child.
unsafe fn reserve(at: usize, len: usize, protection: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping that may replace nothing.
    unsafe {
        if libc::mmap(at as *mut libc::c_void, len, protection, flags, -1, 0) as usize != at {
            give_up(Step::Load);
        }
    }
}

/// Has pages lie at another address, where there are none yet.
///
/// # Safety
/// Called in a forked child that does not look for them any more where they are.
unsafe fn move_memory(from: usize, len: usize, to: usize) {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: what is replaced has been reserved for that.
    unsafe {
        reserve(to, len, libc::PROT_NONE);
        let from = from as *mut libc::c_void;
        if libc::mremap(from, len, len, flags, to as *mut libc::c_void) as usize != to {
            give_up(Step::Load);
        }
    }
}

unsafe extern "C" {
    static __rseq_offset: isize;
    static __rseq_size: u32;
}

/// Takes back what the C library and the Rust runtime have told the kernel about memory that is about to go.
///
/// # Safety
/// Called in a forked child that will not use the C library again.
unsafe fn forget_c_library() {
    const RSEQ_UNREGISTER: i32 = 1;
    const RSEQ_SIGNATURE: u32 = 0x5305_3053;
    const RSEQ_SIZE_AT_LEAST: u32 = 32;
    // SAFETY: reads the thread pointer and makes system calls; a size that was not registered changes nothing.
    unsafe {
        let thread: *const u8;
        std::arch::asm!("mov {}, fs:0", out(reg) thread);
        let area = thread.offset(__rseq_offset);
        for size in [RSEQ_SIZE_AT_LEAST, __rseq_size] {
            libc::syscall(libc::SYS_rseq, area, size, RSEQ_UNREGISTER, RSEQ_SIGNATURE);
        }
        libc::syscall(libc::SYS_set_robust_list, 0, size_of::<[usize; 3]>());
        libc::syscall(libc::SYS_set_tid_address, 0);
        for signal in 1..libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        libc::sigaltstack(&raw const none, std::ptr::null_mut());
    }
}

/// What the processor has beside its general registers, as a new program finds it.
#[repr(C, align(64))]
struct Blank([u32; 256]);

/// Where the word of floating-point modes lies in it, and what it says at first.
const MODES: (usize, u32) = (6, 0x1f80);

static BLANK: Blank = {
    let mut blank = [0; 256];
    blank[MODES.0] = MODES.1;
    Blank(blank)
};

/// Jumps into the program, which finds nothing of the broker's in any register.
///
/// # Safety
/// Called in a forked child, when the program and the window are where they belong.
unsafe fn enter(entry: usize, window: usize) -> ! {
    const ARCH_SET_FS: i32 = 0x1002;
    // SAFETY: nobody comes back. The thread pointer, which all of our own code relies on, goes last.
    unsafe {
        std::arch::asm!(
            "test r14d, r14d",
            "jz 2f",
            "mov eax, -1",
            "mov edx, -1",
            "xrstor64 [r15]",
            "2:",
            "mov eax, {arch_prctl}",
            "mov edi, {set_fs}",
            "xor esi, esi",
            "syscall",
            "mov rdi, r12",
            "xor eax, eax",
            "xor ebx, ebx",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor ebp, ebp",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            "xor r12d, r12d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "jmp r13",
            arch_prctl = const libc::SYS_arch_prctl,
            set_fs = const ARCH_SET_FS,
            in("r12") window,
            in("r13") entry,
            in("r14") u32::from(std::arch::is_x86_feature_detected!("xsave")),
            in("r15") &raw const BLANK,
            options(noreturn)
        )
    }
}

/// Sleeps while the bell says `value`, at most so long.
pub fn wait(bell: &AtomicU32, value: u32, patience: Duration) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    // SAFETY: waiting on a word of our own mapping.
    unsafe { libc::syscall(libc::SYS_futex, bell.as_ptr(), libc::FUTEX_WAIT, value, &raw const time, 0, 0) };
}

/// Wakes whoever sleeps on the bell.
pub fn wake(bell: &AtomicU32) {
    // SAFETY: waking on a word of our own mapping.
    unsafe { libc::syscall(libc::SYS_futex, bell.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
}

/// Processor time that all threads of the process have used.
pub fn cpu_time(process: Pid) -> Duration {
    const CPU_CLOCK_OF_PROCESS: i32 = 2;
    let clock = (!process.as_raw_nonzero().get() << 3) | CPU_CLOCK_OF_PROCESS;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one structure.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } < 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
