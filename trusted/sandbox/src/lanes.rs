//! Lane control: which lanes run, which are parked, and who waits for whom.

use crate::{Fall, Next};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

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

    /// Does what a call came to; false when the lane does not run on.
    pub fn follow(&self, lane: usize, next: Next) -> bool {
        match next {
            Next::Resume => true,
            Next::Park => self.park(lane),
            Next::Wake => self.wake(),
            Next::Join => self.join(),
            Next::End => false,
        }
    }
}

/// Runs `lane` for each of `count` lanes, for lane 0 on this thread, until the first of them returns.
///
/// What that one returns is the outcome. `stop` then brings the others to an end; it is called once, while every
/// thread that entered its lane still lives.
pub fn run_all(
    count: usize,
    lane: impl Fn(usize, &Lanes) -> Result<(), Fall> + Sync,
    stop: impl Fn() + Sync,
) -> Result<(), Fall> {
    let lanes = Lanes::new(count);
    let first: Mutex<Result<(), Fall>> = Mutex::new(Ok(()));
    let end = |outcome: Result<(), Fall>| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.over() {
            *first = outcome;
            lanes.end();
            stop();
        }
    };
    // A panic on one lane must not leave the others waiting.
    let go = |number| match catch_unwind(AssertUnwindSafe(|| lane(number, &lanes))) {
        Ok(outcome) => end(outcome),
        Err(panic) => {
            end(Ok(()));
            resume_unwind(panic)
        }
    };
    thread::scope(|scope| {
        let go = &go;
        for number in 1..count {
            if let Err(e) = thread::Builder::new().spawn_scoped(scope, move || go(number)) {
                end(Err(Fall::Host("a thread", e)));
            }
        }
        go(0);
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner)
}
