//! Children whose death takes longer than many a command: nobody waits for them, if somebody else buries them.

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the kernel calls the namespace that all processes of the machine are in.
const ALL: &[u8] = b"pid:[4026531836]";

/// Children, and what is theirs as long as they live.
static DYING: Mutex<Vec<(Pid, Box<dyn Send>)>> = Mutex::new(Vec::new());

/// Whether a child that we leave behind is buried by whoever gets it. The machine's first process does that; that of a
/// container is often a program that knows of no children but its own.
pub fn orphans_are_buried() -> bool {
    static ARE_BURIED: OnceLock<bool> = OnceLock::new();
    let ours = || std::fs::read_link(Path::new("/proc/self/ns/pid"));
    *ARE_BURIED.get_or_init(|| ours().is_ok_and(|ours| ours.as_os_str().as_bytes() == ALL))
}

/// Leaves a child that is about to die to itself where that can be done. The next one's end buries it, or whoever gets it.
pub fn leave(child: Pid, belongings: impl Send + 'static) {
    if !orphans_are_buried() {
        let _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
        return;
    }
    let mut dying = DYING.lock().unwrap_or_else(PoisonError::into_inner);
    dying.push((child, Box::new(belongings)));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    dying.retain(|(child, _)| matches!(waitid(WaitId::Pid(*child), options), Ok(None)));
}
