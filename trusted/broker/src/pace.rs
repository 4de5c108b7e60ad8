//! A limit on the rate at which bytes are written.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes a second, for all lanes together.
pub struct Pace {
    rate: u64,
    /// When the bytes written so far will have taken their time.
    next: Mutex<Instant>,
}

impl Pace {
    /// So many bytes a second, at least one.
    pub fn new(rate: u64) -> Pace {
        Pace { rate: rate.max(1), next: Mutex::new(Instant::now()) }
    }

    /// Waits until it is time for so many bytes more.
    pub fn wait(&self, bytes: u64) {
        let due = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let due = (*next).max(Instant::now());
            *next = due + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            due
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_whoever_writes_them() {
        let pace = Pace::new(1 << 20);
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| pace.wait(16 << 10)));
            }
        });
        // Sixteen times a sixty-fourth of a second; the last need not be waited for.
        assert!(started.elapsed() >= Duration::from_millis(15 * 1000 / 64 - 5));
    }
}
