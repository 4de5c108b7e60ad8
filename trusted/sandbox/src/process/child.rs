//! From broker to worker: what happens between the fork and the worker's first instruction.
//!
//! Between fork and exec only system calls are made: the broker may have threads, and a fork copies none of them.

use crate::elf::{self, Segment};
use crate::window::Window;
use crate::{Budget, Fall};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::Pid;
use std::ffi::CStr;
use std::io;
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
/// The descriptor under which the worker finds the window.
const WINDOW_FD: i32 = 3;
const EXIT_BASE: i32 = 64;

/// What the child needs, made ready before the fork.
struct Plan<'a> {
    program: Option<OwnedFd>,
    ruleset: Option<OwnedFd>,
    window: &'a Window,
    window_fd: i32,
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

/// Starts the program in a child process.
pub fn spawn(bytes: &'static [u8], window: &Window, budget: &Budget) -> Result<Pid, Fall> {
    let fail = |what: &'static str| move |e: io::Error| Fall::Host(what, e);
    see_children_die();
    let (entry, segments) =
        elf::parse(bytes).ok_or_else(|| fail("the worker is no program")(io::ErrorKind::InvalidData.into()))?;
    let plan = Plan {
        program: program_file(bytes).ok(),
        ruleset: ruleset(),
        window,
        window_fd: window.memory().map_or(-1, |fd| fd.as_raw_fd()),
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
            pid => return i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| fail("fork")(error)),
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

/// The program as a file without a name.
fn program_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let fd = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(NAME, MemfdFlags::CLOEXEC))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = rustix::io::write(&fd, rest)?;
        rest = &rest[n..];
    }
    Ok(fd)
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
        must(Step::Privileges, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into());
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
        let program = keep_two(plan, &must);
        let both = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        must(Step::Limits, libc::setrlimit(libc::RLIMIT_NOFILE, &raw const both).into());
        let argv = [NAME.as_ptr(), std::ptr::null()];
        let envp = [std::ptr::null::<libc::c_char>()];
        libc::syscall(libc::SYS_execveat, program, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH);
        // Executing anything but the tool itself is denied here: become the worker in this very memory.
        load_in_place(plan)
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

/// Closes all descriptors but the window, which becomes number 3, and the program; tells the program's.
///
/// # Safety
/// Called in a forked child: whoever uses a descriptor afterwards finds it closed.
unsafe fn keep_two(plan: &Plan<'_>, must: &dyn Fn(Step, i64)) -> i32 {
    let program = plan.program.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: duplicating and closing descriptors of this process.
    unsafe {
        // Out of the way first, so that neither is overwritten by the other.
        let high = libc::fcntl(program, libc::F_DUPFD_CLOEXEC, WINDOW_FD + 1);
        let window = libc::fcntl(plan.window_fd, libc::F_DUPFD_CLOEXEC, WINDOW_FD + 1);
        must(Step::Descriptors, window.into());
        must(Step::Descriptors, libc::dup2(window, WINDOW_FD).into());
        let close = |from: i32, to: u32| {
            if from.cast_unsigned() <= to {
                must(Step::Descriptors, libc::syscall(libc::SYS_close_range, from, to, 0));
            }
        };
        close(0, 2);
        if high > WINDOW_FD {
            close(WINDOW_FD + 1, high.cast_unsigned() - 1);
            close(high + 1, u32::MAX);
        } else {
            close(WINDOW_FD + 1, u32::MAX);
        }
        high
    }
}

/// Lays the program's segments out beside the broker's copy and jumps in; the worker then unmaps all the rest.
///
/// # Safety
/// Called in a forked child that needs nothing of the broker's any more.
unsafe fn load_in_place(plan: &Plan<'_>) -> ! {
    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
    let fixed = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: new mappings that may replace nothing; the copies stay inside them.
    unsafe {
        for segment in &plan.segments {
            let start = segment.at - segment.at % 4096;
            let len = segment.at + segment.len - start;
            let at = libc::mmap(start as *mut libc::c_void, len, READ_WRITE, fixed, -1, 0);
            if at as usize != start {
                give_up(Step::Load);
            }
            let bytes = &plan.bytes[segment.bytes.clone()];
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), segment.at as *mut u8, bytes.len());
            let protection = match (segment.write, segment.execute) {
                (true, _) => READ_WRITE,
                (false, true) => libc::PROT_READ | libc::PROT_EXEC,
                (false, false) => libc::PROT_READ,
            };
            if libc::mprotect(at, len, protection) < 0 {
                give_up(Step::Load);
            }
        }
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        forget_c_library();
        std::arch::asm!(
            "jmp {entry}",
            entry = in(reg) plan.entry,
            in("rdi") plan.window.address(),
            in("rsi") 0,
            options(noreturn)
        )
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
