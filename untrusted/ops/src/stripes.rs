//! Stripes: a disk cut into pieces that lanes take one after the other.

use crate::cx::Cx;
use core::sync::atomic::{AtomicU64, Ordering};

/// A stripe is at least this long, so that taking one costs nothing.
const MIN: u64 = 1 << 20;
/// A stripe is at most this long, so that no lane waits long for the last.
const MAX: u64 = 64 << 20;
/// There are at most so many of them, and then they are longer: a disk that a few bytes claim to be an exbibyte long
/// must not keep anyone busy with counting.
const COUNT: u64 = 1 << 16;
/// A lane takes about so many of them.
const SHARES: u64 = 16;

/// So much gains nothing from several lanes.
const LITTLE: u64 = 16 << 20;

/// What is left to be done.
pub struct Stripes {
    next: AtomicU64,
    len: u64,
    total: u64,
}

impl Stripes {
    /// All of `total` bytes, for all lanes.
    pub fn new(total: u64, cx: &Cx<'_>) -> Stripes {
        Stripes::of(total, cx.crew.lanes())
    }

    fn of(total: u64, lanes: usize) -> Stripes {
        let shares = u64::try_from(lanes).unwrap_or(1).saturating_mul(SHARES).max(1);
        let len = total.checked_div(shares).unwrap_or(0).clamp(MIN, MAX).max(total / COUNT).next_multiple_of(MIN);
        Stripes { next: AtomicU64::new(0), len, total }
    }

    /// The same, but in one piece if there is little to do, so that it is done from the beginning to the end.
    pub fn in_order(total: u64, work: u64, cx: &Cx<'_>) -> Stripes {
        let stripes = Stripes::new(total, cx);
        if work > LITTLE { stripes } else { Stripes { len: total.max(1), ..stripes } }
    }

    /// The next one: where it begins and ends.
    pub fn next(&self) -> Option<(u64, u64)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed).checked_mul(self.len).filter(|at| *at < self.total)?;
        Some((at, at.saturating_add(self.len).min(self.total)))
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNT, Stripes};

    #[test]
    fn stripes_cover_all_of_any_disk_and_are_not_many() {
        for total in [0, 1, 5 << 20, 1 << 30, 64 << 40, 1 << 60, i64::MAX as u64, u64::MAX] {
            let stripes = Stripes::of(total, 8);
            let (mut end, mut count) = (0, 0);
            while let Some((at, until)) = stripes.next() {
                assert!(at == end && until > at);
                (end, count) = (until, count + 1);
            }
            assert!(end == total && count <= COUNT + 1, "{count} stripes up to {end} of {total}");
        }
    }
}
