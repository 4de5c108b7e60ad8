//! Places: who writes much through the page cache takes one.

use std::sync::{Condvar, Mutex, PoisonError};

/// Writes that go on at once. A file takes writes to its cached pages from one at a time; so one gets at its bytes while
/// the other writes, and more would only stand in each other's way.
static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(2), Condvar::new());

/// One of the places, while the value lives.
pub struct Place;

impl Place {
    /// A place, as soon as there is one.
    pub fn take() -> Place {
        let places = PLACES.0.lock().unwrap_or_else(PoisonError::into_inner);
        *PLACES.1.wait_while(places, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Place
    }

    /// A place, if there is one now.
    pub fn try_take() -> Option<Place> {
        let mut free = PLACES.0.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLACES.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        PLACES.1.notify_one();
    }
}
