//! Turns: lanes that do their shares at once, but for one step of each that is done in the order of the shares.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use instar_image::{Drive, Result};

/// How often a lane looks whether it is its turn before it lets others go on.
const LOOKS: u32 = 2000;

/// Looks until there is an answer, and lets others go on if that takes long.
pub fn wait_for<T>(drive: &dyn Drive, look: &mut dyn FnMut() -> Option<T>) -> Result<T> {
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Ok(found);
            }
            spin_loop();
        }
        drive.pause()?;
    }
}

/// Whose turn it is.
#[derive(Default)]
pub struct Turns {
    next: AtomicU64,
    /// Shares that are done altogether.
    done: AtomicU64,
    stopped: AtomicBool,
}

impl Turns {
    /// Waits for the turn of share `number`; false if there will be no more turns.
    pub fn wait(&self, number: u64, drive: &dyn Drive) -> Result<bool> {
        wait_for(drive, &mut || match self.is_stopped() {
            true => Some(false),
            false => (self.next.load(Ordering::Acquire) == number).then_some(true),
        })
    }

    /// Whoever has turn `number` waits until all shares before are done altogether; false if they will not be.
    pub fn wait_for_others(&self, number: u64, drive: &dyn Drive) -> Result<bool> {
        while self.done.load(Ordering::Acquire) != number {
            if self.is_stopped() {
                return Ok(false);
            }
            drive.pause()?;
        }
        Ok(true)
    }

    /// A share is done altogether.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }

    /// Whoever has the turn gives it to the next.
    pub fn pass(&self) {
        self.next.fetch_add(1, Ordering::Release);
    }

    /// Nobody gets a turn any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether that has been said.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
