//! How a running vCPU is stopped from outside: by a signal that only gets through while it runs.
//!
//! The signal is blocked in the threads that run vCPUs, and let through inside `KVM_RUN` alone. So it cannot come too
//! early, needs no handler, and the program around the cell never sees it.

use std::io;
use std::mem::zeroed;
use std::ptr::null;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// The clock of the thread itself, which a timer can be set by.
const OWN_CLOCK: i32 = libc::CLOCK_THREAD_CPUTIME_ID;
/// The shortest time worth a timer; the kernel looks no more often.
const TICK: Duration = Duration::from_millis(1);

fn signal() -> i32 {
    libc::SIGRTMAX()
}

fn set_of_signal() -> libc::sigset_t {
    // SAFETY: both calls fill in the set they are given.
    unsafe {
        let mut set = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        set
    }
}

/// Takes away what has come of the signal.
pub fn clear() {
    let (set, none) = (set_of_signal(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: a call on plain values; there is nothing to be told about the signal.
    while unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const none) } > 0 {}
}

/// Keeps the signal from this thread, and from those it starts, for as long as it lives.
pub struct Deaf {
    before: libc::sigset_t,
}

impl Deaf {
    /// From now on.
    pub fn new() -> Deaf {
        let set = set_of_signal();
        // SAFETY: changes this thread's mask and writes the old one; neither can fail with these arguments.
        let before = unsafe {
            let mut before = zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            before
        };
        Deaf { before }
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        clear();
        // SAFETY: puts back the mask that `new` was given.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The signals that are blocked in this thread, as the kernel writes them.
pub fn signals() -> u64 {
    // SAFETY: writes the set it is given, and asks it about plain numbers.
    unsafe {
        let mut set = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, null(), &raw mut set);
        (1..=64).filter(|n| libc::sigismember(&raw const set, *n) == 1).map(|n| 1 << (n - 1)).sum()
    }
}

/// The signals to be blocked while a vCPU runs on this thread.
pub fn signals_while_running() -> u64 {
    signals() & !(1 << (signal() - 1))
}

/// Sends this thread the signal when it has used so much processor time.
pub struct Timer(libc::timer_t);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Timer> {
        // SAFETY: a timer of this very thread; the call writes its number.
        unsafe {
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal();
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = zeroed();
            match libc::timer_create(OWN_CLOCK, &raw mut event, &raw mut timer) {
                0 => Ok(Timer(timer)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// Sets it.
    pub fn set(&self, after: Duration) {
        let after = after.max(TICK);
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let seconds = after.as_secs().min(u32::MAX.into());
        let it_value = libc::timespec { tv_sec: seconds.cast_signed(), tv_nsec: after.subsec_nanos().into() };
        let spec = libc::itimerspec { it_interval: none, it_value };
        // SAFETY: our own timer and a time that is one.
        unsafe { libc::timer_settime(self.0, 0, &raw const spec, std::ptr::null_mut()) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: our own timer, used no more.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The threads that run vCPUs, and what they may use together.
pub struct Meter {
    budget: Duration,
    /// Nanoseconds beyond the budget.
    earned: AtomicU64,
    threads: Vec<Thread>,
}

#[derive(Default)]
struct Thread {
    id: AtomicI32,
    before: AtomicU64,
}

impl Meter {
    /// For so many lanes, whose threads have yet to come.
    pub fn new(budget: Duration, lanes: usize) -> Meter {
        Meter { budget, earned: AtomicU64::new(0), threads: (0..lanes).map(|_| Thread::default()).collect() }
    }

    /// What all lanes together may use.
    pub fn budget(&self) -> Duration {
        self.budget.saturating_add(Duration::from_nanos(self.earned.load(Ordering::Relaxed)))
    }

    /// They may use so much more than the budget from now on.
    pub fn earn(&self, earned: Duration) {
        self.earned.store(u64::try_from(earned.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// This thread runs that lane from now on.
    pub fn enter(&self, lane: usize) {
        // SAFETY: asks for a number.
        let id = unsafe { libc::gettid() };
        self.threads[lane].before.store(used(id), Ordering::Relaxed);
        self.threads[lane].id.store(id, Ordering::Release);
    }

    /// How long each lane can run before the budget may be used up; none when it is.
    pub fn left(&self) -> Option<Duration> {
        let spent = |thread: &Thread| match thread.id.load(Ordering::Acquire) {
            0 => 0,
            id => used(id).saturating_sub(thread.before.load(Ordering::Relaxed)),
        };
        let spent = Duration::from_nanos(self.threads.iter().map(spent).sum());
        let left = self.budget().checked_sub(spent).filter(|left| !left.is_zero())?;
        Some(left / u32::try_from(self.threads.len()).unwrap_or(u32::MAX))
    }

    /// Sends every thread the signal. None of them may have ended.
    pub fn stop(&self) {
        for thread in &self.threads {
            let id = thread.id.load(Ordering::Acquire);
            if id != 0 {
                // SAFETY: a signal to a thread of ours that has it blocked.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, signal()) };
            }
        }
    }
}

/// Processor time that a thread of this process has used, in nanoseconds.
fn used(thread: i32) -> u64 {
    const CPU_CLOCK_OF_THREAD: i32 = 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one structure.
    if unsafe { libc::clock_gettime((!thread << 3) | CPU_CLOCK_OF_THREAD, &raw mut time) } < 0 {
        return 0;
    }
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
