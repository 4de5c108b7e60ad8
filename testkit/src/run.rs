//! Running a program: words in, and out come its words, how it ended and how much memory it took.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where this is linked in, the standard library starts programs in their folders without copying this one first, which
/// takes longer than most of them run.
#[used]
static ADD_CHDIR: unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, *const libc::c_char) -> libc::c_int =
    libc::posix_spawn_file_actions_addchdir_np;

/// What other threads may take while a program is started.
const SLACK_KIB: u64 = 8 << 10;

/// A program about to be run.
#[derive(Clone, Debug)]
pub struct Run {
    before: Vec<OsString>,
    program: PathBuf,
    called: Option<OsString>,
    args: Vec<OsString>,
    folder: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    limit: Duration,
    narrow: bool,
    measured: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It was still running at the limit, and was killed.
    Timeout,
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// The most memory that it or one of its children had at once, in KiB, if that was to be measured; 0: no more than we
    /// had when it was started as a copy of us.
    pub peak: Option<u64>,
}

impl Ran {
    /// The exit code in the way Python counts: a signal is negative; `None` after a timeout.
    pub fn code(&self) -> Option<i32> {
        match self.end {
            End::Code(code) => Some(code),
            End::Signal(signal) => Some(-signal),
            End::Timeout => None,
        }
    }

    /// The most memory that it or one of its children had at once, in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.peak.expect("a run whose memory is measured")
    }

    /// Standard error as text, for messages of tests.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as text, for messages of tests.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program that goes on running until it is let go.
pub struct Held {
    /// The program.
    pub child: Child,
    /// What is written here, it reads.
    pub stdin: Option<ChildStdin>,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// A program with nothing in its environment but `LC_ALL=C`, `TZ=UTC` and a `PATH`.
    pub fn new(program: impl AsRef<Path>) -> Self {
        let run = Run {
            before: Vec::new(),
            program: program.as_ref().to_owned(),
            called: None,
            args: Vec::new(),
            folder: None,
            env: Vec::new(),
            limit: Duration::from_secs(60),
            narrow: false,
            measured: false,
        };
        run.env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// What the program is told it is called.
    #[must_use]
    pub fn called(mut self, name: impl AsRef<OsStr>) -> Self {
        self.called = Some(name.as_ref().to_owned());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(n, _)| n != name.as_ref());
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Takes every variable away but those of the list.
    #[must_use]
    pub fn only_env(mut self, keep: &[&str]) -> Self {
        self.env.retain(|(n, _)| keep.iter().any(|k| n == *k));
        self
    }

    /// The longest it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Keeps all its threads on one processor. A program whose threads hand each other every request is many times
    /// faster so where waking another processor is dear, as it is in a virtual machine.
    #[must_use]
    pub fn narrow(mut self) -> Self {
        self.narrow = true;
        self
    }

    /// Measures its memory. It is started as a copy of this program then, which takes longer: else it would be told to
    /// have had all that this one ever had.
    #[must_use]
    pub fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    /// Runs it through another program, such as `prlimit --as=… --`; what it is called is then its path.
    #[must_use]
    pub fn through<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        let outer: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.before.splice(0..0, outer);
        self
    }

    /// Runs it as the user who owns nothing; only root can.
    #[must_use]
    pub fn as_nobody(self) -> Self {
        self.through(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
    }

    /// Runs it from a shell line in which `"$@"` stands for it, to redirect or to set limits.
    #[must_use]
    pub fn in_shell(self, line: &str) -> Self {
        self.through(["sh", "-c", line, "sh"])
    }

    /// The command line, fit to be pasted into a shell.
    pub fn line(&self) -> String {
        let mut out = String::new();
        if let Some(folder) = &self.folder {
            let _ = write!(out, "cd {} && ", quoted(folder.as_os_str()));
        }
        for (name, value) in self.env.iter().filter(|(n, _)| n != "PATH") {
            let _ = write!(out, "{}={} ", name.to_string_lossy(), quoted(value));
        }
        let words = self.before.iter().map(OsString::as_os_str).chain([self.program.as_os_str()]);
        for word in words.chain(self.args.iter().map(OsString::as_os_str)) {
            out.push_str(&quoted(word));
            out.push(' ');
        }
        out.trim_end().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = match self.before.split_first() {
            None => {
                let mut command = Command::new(&self.program);
                if let Some(name) = &self.called {
                    command.arg0(name);
                }
                command
            }
            Some((outer, words)) => {
                let mut command = Command::new(outer);
                command.args(words).arg(&self.program);
                command
            }
        };
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(n, v)| (n, v)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if self.measured {
            // The library has no other way to be asked for a copy than something that nothing else can do.
            command.gid(rustix::process::getgid().as_raw());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn spawn(&self, command: &mut Command) -> Child {
        let all = sched_getaffinity(None).ok().filter(|_| self.narrow);
        let one = all.and_then(|all| one_of(&all));
        let _ = one.map(|one| sched_setaffinity(None, &one));
        let started = command.spawn();
        let _ = one.and(all).map(|all| sched_setaffinity(None, &all));
        started.unwrap_or_else(|e| panic!("cannot run {}: {e}", self.line()))
    }

    /// Runs it to its end.
    pub fn go(&self) -> Ran {
        let before = own_kib();
        let mut child = self.spawn(&mut self.command());
        let own = own_kib().max(before) + SLACK_KIB;
        let (stdout, stderr, in_time) = listen(&mut child, Instant::now() + self.limit);
        if !in_time {
            let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        }
        let (end, peak_kib) = reap(&child);
        let peak = self.measured.then_some(if peak_kib > own { peak_kib } else { 0 });
        Ran { stdout, stderr, end: if in_time { end } else { End::Timeout }, peak }
    }

    /// Runs it to its end, which must be a good one.
    pub fn must(&self) -> Ran {
        let ran = self.go();
        assert_eq!(ran.end, End::Code(0), "{}\n{}{}", self.line(), ran.out(), ran.err());
        ran
    }

    /// Starts it, with a pipe to write to.
    pub fn hold(&self) -> Held {
        let mut child = self.spawn(self.command().stdin(Stdio::piped()));
        Held { stdin: child.stdin.take(), child }
    }
}

/// Memory that we have, in KiB.
fn own_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("our memory");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * 4
}

/// One of these processors, another one for each thread that asks.
fn one_of(all: &CpuSet) -> Option<CpuSet> {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed));
    let those: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    let mut one = CpuSet::new();
    one.set(*those.get(NUMBER.with(|number| *number) % those.len().max(1))?);
    Some(one)
}

fn quoted(word: &OsStr) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=./:,+%".contains(b);
    match word.as_bytes() {
        bytes if !bytes.is_empty() && bytes.iter().all(plain) => word.to_string_lossy().into_owned(),
        bytes if bytes.iter().all(|b| (b' '..0x7f).contains(b) && *b != b'\'') => {
            format!("'{}'", word.to_string_lossy())
        }
        bytes => format!("$'{}'", bytes.escape_ascii()),
    }
}

/// Collects both outputs until the program has ended; false when it had not by the deadline.
fn listen(child: &mut Child, deadline: Instant) -> (Vec<u8>, Vec<u8>, bool) {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a pidfd of the child");
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut gone = false;
    while !gone || stdout.is_some() || stderr.is_some() {
        // A grandchild may keep the pipes open; it is given a moment after the program itself is gone.
        let patience = deadline.saturating_duration_since(Instant::now());
        let patience = if gone { patience.min(Duration::from_millis(500)) } else { patience };
        let mut fds = Vec::with_capacity(3);
        fds.extend(stdout.iter().map(|p| PollFd::from_borrowed_fd(p.as_fd(), PollFlags::IN)));
        fds.extend(stderr.iter().map(|p| PollFd::from_borrowed_fd(p.as_fd(), PollFlags::IN)));
        if !gone {
            fds.push(PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN));
        }
        let wait = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => return (out, err, gone),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => panic!("poll: {e}"),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        drop(fds);
        if stdout.is_some() && ready.next() == Some(true) {
            take(&mut stdout, &mut out);
        }
        if stderr.is_some() && ready.next() == Some(true) {
            take(&mut stderr, &mut err);
        }
        gone = gone || ready.next() == Some(true);
    }
    (out, err, true)
}

/// Reads what there is; at the end of the pipe, closes it.
fn take(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) {
    let mut piece = [0; 65536];
    match pipe.as_mut().map(|p| p.read(&mut piece)) {
        Some(Ok(n)) if n > 0 => into.extend(piece.iter().take(n)),
        _ => *pipe = None,
    }
}

/// Waits for the program, and asks what it used.
#[allow(unsafe_code)]
fn reap(child: &Child) -> (End, u64) {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let pid = Pid::from_child(child).as_raw_nonzero().get();
    loop {
        // SAFETY: `status` and `usage` are ours and live across the call; no one else waits for this child.
        // JUSTIFICATION: the standard library tells no resource usage, and a limit on memory is to be tested.
        let got = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
        if got == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR), "wait4: {error}");
    }
    // SAFETY: all zeroes is a valid `rusage`, and the call above has filled it.
    let usage = unsafe { usage.assume_init() };
    let end = if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Code(libc::WEXITSTATUS(status))
    };
    (end, u64::try_from(usage.ru_maxrss).unwrap_or(0))
}
