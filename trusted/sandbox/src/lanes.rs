//! Lane control: which lanes run, which are parked, and who waits for whom.

use std::sync::{Condvar, Mutex, PoisonError};

/// The lanes of a cell as the host sees them.
pub struct Lanes {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    parked: Vec<bool>,
    over: bool,
}

impl Lanes {
    /// `count` lanes, none of them parked yet.
    pub fn new(count: usize) -> Self {
        Lanes { state: Mutex::new(State { parked: vec![false; count], over: false }), changed: Condvar::new() }
    }

    fn wait_until(&self, mut done: impl FnMut(&mut State) -> bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.over {
                return false;
            }
            if done(&mut state) {
                self.changed.notify_all();
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Parks `lane` and waits until it is woken; false when the cell is over.
    pub fn park(&self, lane: usize) -> bool {
        self.wait_until(|s| {
            s.parked[lane] = true;
            true
        }) && self.wait_until(|s| !s.parked[lane])
    }

    /// Waits until all lanes but 0 are parked; false when the cell is over.
    pub fn join(&self) -> bool {
        self.wait_until(|s| s.parked.iter().skip(1).all(|p| *p))
    }

    /// Wakes all lanes, once each has come to park; false when the cell is over.
    pub fn wake(&self) -> bool {
        self.join()
            && self.wait_until(|s| {
                s.parked.fill(false);
                true
            })
    }

    /// The cell is over: nobody waits any longer.
    pub fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.changed.notify_all();
    }

    /// Whether the cell is over.
    pub fn over(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over
    }
}
