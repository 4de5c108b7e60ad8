//! The system calls that have no safe words elsewhere. The only unsafe code of this crate.
//!
//! JUSTIFICATION: open-file-description locks and the C library's idea of local time are part of what qemu-img does;
//! the pages of a file in memory take bytes from several threads at once, which the file does not; and what is written can
//! be on its way to the disk before somebody waits for it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets or tests a shared open-file-description lock on one byte.
fn flock(kind: i32, at: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: at, l_len: 1, l_pid: 0 }
}

/// Takes a shared lock on the byte; false if somebody holds it exclusively.
pub fn lock_byte(file: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let lock = flock(libc::F_RDLCK, at);
    // SAFETY: passes one structure that lives through the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            e => Err(e),
        },
    }
}

/// Whether somebody else holds a lock on the byte.
pub fn byte_is_locked(file: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, at);
    // SAFETY: the kernel writes into the structure passed.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives up a lock on the byte.
pub fn unlock_byte(file: BorrowedFd<'_>, at: i64) {
    let lock = flock(libc::F_UNLCK, at);
    // SAFETY: as in `lock_byte`. A lock that cannot be given up goes when the file is closed.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
}

/// Alignments of memory and of offsets that unbuffered reads of the file need, where the file system tells.
pub fn direct_alignments(file: BorrowedFd<'_>) -> Option<(u32, u32)> {
    // SAFETY: all fields are plain numbers.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the kernel writes into the structure passed; the empty path names the descriptor itself.
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_DIOALIGN, &raw mut stat) };
    let told = result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0;
    told.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// A part of a file in memory, which is written to and never looked at: whoever shortens the file, or has no room for
/// its pages, makes writes fail and nothing worse.
pub struct Mapped {
    start: *mut libc::c_void,
    len: usize,
    /// Where in the file it begins.
    at: u64,
}

impl Mapped {
    /// The pages that hold `len` bytes of a file from `at` on, if it can be had in this way.
    pub fn new(file: BorrowedFd<'_>, at: u64, len: usize) -> Option<Mapped> {
        const PAGE: u64 = 4096;
        let begin = at - at % PAGE;
        let len = len + usize::try_from(at - begin).ok()?;
        let (protection, offset) = (libc::PROT_READ | libc::PROT_WRITE, libc::off_t::try_from(begin).ok()?);
        // SAFETY: new memory at a place that the kernel chooses.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset) };
        (start != libc::MAP_FAILED).then_some(Mapped { start, len, at: begin })
    }

    /// Writes bytes at a place in the file; false if not all of them could be written.
    pub fn write(&self, at: u64, bytes: &[u8]) -> bool {
        let skip = at.checked_sub(self.at).and_then(|skip| usize::try_from(skip).ok());
        let Some(skip) = skip.filter(|skip| skip.checked_add(bytes.len()).is_some_and(|end| end <= self.len)) else {
            return false;
        };
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: self.start.wrapping_byte_add(skip), iov_len: bytes.len() };
        // SAFETY: the kernel reads `bytes` and writes within the mapping, of which nobody holds a reference; what it
        // cannot write to it says, where a write of our own would end the process.
        let written = unsafe { libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(written) == Ok(bytes.len())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// Has the kernel begin to write what has been written to a part of a file, and does not wait for that.
pub fn start_writing(file: BorrowedFd<'_>, at: u64, len: u64) {
    let (Ok(at), Ok(len)) = (at.try_into(), len.try_into()) else { return };
    // SAFETY: passes numbers only. Where it fails, all is written when the file is flushed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Has changes of a new file written over what was there, where the file system would put them elsewhere.
pub fn stop_copy_on_write(file: BorrowedFd<'_>) {
    const NOCOW: libc::c_long = 0x0080_0000;
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes and reads the number passed.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) == 0 {
            flags |= NOCOW;
            libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags);
        }
    }
}

/// `struct fsxattr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct ExtendedFlags {
    flags: u32,
    extent_len: u32,
    extents: u32,
    project: u32,
    cow_extent_len: u32,
    pad: [u8; 8],
}

/// Has space for a new file set aside in pieces of this length.
pub fn hint_extents(file: BorrowedFd<'_>, len: u32) {
    const GET: libc::c_ulong = 0x801c_581f;
    const SET: libc::c_ulong = 0x401c_5820;
    const HAS_EXTENT_LEN: u32 = 0x0000_0800;
    let mut attributes = ExtendedFlags::default();
    // SAFETY: the kernel writes and reads the structure passed, which is laid out as it wants it.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), GET, &raw mut attributes) == 0 {
            attributes.flags |= HAS_EXTENT_LEN;
            attributes.extent_len = len;
            libc::ioctl(file.as_raw_fd(), SET, &raw const attributes);
        }
    }
}

/// Whether SIGUSR1 has come since this was last asked; from the first question on it does nothing else.
pub fn was_asked_how_far() -> bool {
    extern "C" fn note(_: i32) {
        ASKED.store(true, Ordering::Relaxed);
    }
    static ASKED: AtomicBool = AtomicBool::new(false);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler = note as extern "C" fn(i32);
        // SAFETY: the handler only stores to an atomic; calls that it interrupts are taken up again.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        }
    });
    ASKED.swap(false, Ordering::Relaxed)
}

/// Has the target's range refer to the source's extents, where both lie in a file system that can do that.
pub fn share_extents(from: BorrowedFd<'_>, at: u64, to: BorrowedFd<'_>, to_at: u64, len: u64) -> bool {
    let range =
        libc::file_clone_range { src_fd: from.as_raw_fd().into(), src_offset: at, src_length: len, dest_offset: to_at };
    // SAFETY: the kernel reads the structure passed.
    unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) == 0 }
}

unsafe extern "C" {
    fn tzset();
}

/// Year, month, day, hour, minute and second of a moment, given in seconds since 1970, in the environment's time zone.
pub fn local_time(seconds: i64) -> [i64; 6] {
    // SAFETY: all fields are plain numbers or a pointer that is only written to.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values; TZ, which is read here, is changed by nothing in this program.
    unsafe {
        tzset();
        libc::localtime_r(&raw const seconds, &raw mut tm);
    }
    [tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec].map(i64::from)
}
