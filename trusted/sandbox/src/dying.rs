//! Children that nobody waits for: those that are seen to be gone are buried whenever another one is left.

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::sync::{Mutex, PoisonError};

/// Children, and what is theirs as long as they live.
static DYING: Mutex<Vec<(Pid, Box<dyn Send>)>> = Mutex::new(Vec::new());

/// Leaves a child that is about to die to itself: its death takes longer than many a command.
///
/// The next one's end buries it, or the end of this process.
pub fn leave(child: Pid, belongings: impl Send + 'static) {
    let mut dying = DYING.lock().unwrap_or_else(PoisonError::into_inner);
    dying.push((child, Box::new(belongings)));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    dying.retain(|(child, _)| matches!(waitid(WaitId::Pid(*child), options), Ok(None)));
}
