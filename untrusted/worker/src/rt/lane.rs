//! A lane: its page, its slot, and how its bell is rung.

use super::jobs;
use crate::port::Door;
use core::ptr::NonNull;
use instar_wire::boot::{ANSWER_AT, Boot, CALL_AT, PAGE, Shape};
use instar_wire::io::{Answer, Call};
use zerocopy::{FromZeros, IntoBytes};

/// Rings the bell of a lane's page and returns when the answer is there.
pub type Ring = fn(&Lane);

/// One lane of the window, used by one thread or vCPU.
pub struct Lane {
    page: NonNull<u8>,
    slot: NonNull<u8>,
    slot_len: usize,
    number: usize,
    ring: Ring,
    /// What [`Boot::wall_at`] and [`Boot::spin`] say.
    pub boot: Boot,
}

impl Lane {
    /// The lane of that number.
    ///
    /// # Safety
    /// `boot` describes a window that is mapped and writable, with at least `number + 1` lanes, and nobody else on
    /// this side uses this lane.
    pub unsafe fn new(boot: &Boot, number: usize, ring: Ring) -> Lane {
        let shape = shape(boot);
        let window = boot.window_at as usize;
        // SAFETY: inside the window by the caller's promise, so neither address is null.
        let (page, slot) = unsafe {
            (
                NonNull::new_unchecked((window + shape.page_at(number)) as *mut u8),
                NonNull::new_unchecked((window + shape.slot_at(number)) as *mut u8),
            )
        };
        Lane { page, slot, slot_len: shape.slot_len, number, ring, boot: *boot }
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its page.
    pub fn page(&self) -> NonNull<u8> {
        self.page
    }

    /// Puts bytes anywhere into the lane's page.
    pub fn put_page(&self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_some_and(|end| end <= PAGE) {
            // SAFETY: inside the page, which is ours to write.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.page.as_ptr().add(at), bytes.len()) }
        }
    }
}

/// The window's shape as the boot page tells it.
pub fn shape(boot: &Boot) -> Shape {
    Shape { lanes: boot.lanes as usize, slot_len: boot.slot_len as usize }
}

impl Door for Lane {
    fn call(&self, call: &Call) -> Answer {
        self.put_page(CALL_AT, call.as_bytes());
        (self.ring)(self);
        let mut answer = Answer::new_zeroed();
        let bytes = answer.as_mut_bytes();
        // SAFETY: inside the page.
        unsafe {
            core::ptr::copy_nonoverlapping(self.page.as_ptr().add(ANSWER_AT), bytes.as_mut_ptr(), bytes.len());
        }
        answer
    }

    fn slot_len(&self) -> usize {
        self.slot_len
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        let at = at.min(self.slot_len);
        // SAFETY: cut to the slot, which is ours to write while it is our turn.
        unsafe {
            let len = bytes.len().min(self.slot_len - at);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.slot.as_ptr().add(at), len);
        }
    }

    fn get(&self, at: usize, bytes: &mut [u8]) {
        let have = self.slot_len.saturating_sub(at).min(bytes.len());
        let (inside, beyond) = bytes.split_at_mut(have);
        beyond.fill(0);
        // SAFETY: cut to the slot.
        unsafe {
            core::ptr::copy_nonoverlapping(self.slot.as_ptr().add(at.min(self.slot_len)), inside.as_mut_ptr(), have)
        }
    }

    fn next_seq(&self) -> u64 {
        jobs::next_seq(self)
    }

    fn number(&self) -> usize {
        self.number
    }

    fn lanes(&self) -> usize {
        self.boot.lanes as usize
    }

    fn on_all_lanes(&self, job: &(dyn Fn(&dyn Door) + Sync)) {
        jobs::on_all_lanes(self, &|lane| job(lane), &|| jobs::next_seq(self));
    }
}
