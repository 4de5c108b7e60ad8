//! Space that is set aside some way ahead of what is written: whoever writes need not look for it then, nor anyone wait
//! for that.

use instar_image::{Drive, FileId, Place, Result};
use spinning_top::Spinlock;

/// So much is set aside at once, whenever half of it is left.
const STEP: u64 = 32 << 20;
/// Shorter files are not worth it.
const LEAST: u64 = 16 << 20;

/// How far space has been set aside in a file that is filled from its beginning to its end.
pub struct Ahead {
    file: Option<FileId>,
    until: Spinlock<u64>,
}

impl Ahead {
    /// In this file, or in none.
    pub fn of(file: Option<FileId>) -> Ahead {
        Ahead { file, until: Spinlock::new(0) }
    }

    /// Bytes are about to be written up to there, and at most `left` behind them.
    pub fn reach(&self, drive: &dyn Drive, end: Place, left: u64) -> Result<()> {
        let range = if self.file == Some(end.file) { self.next(end.at, left) } else { None };
        range.map_or(Ok(()), |(at, len)| drive.prepare(Place { at, ..end }, len))
    }

    /// What is to be set aside now: from where on, and how much.
    fn next(&self, end: u64, left: u64) -> Option<(u64, u64)> {
        let mut until = self.until.lock();
        let from = end.max(*until);
        let have = from.saturating_sub(end);
        let len = left.saturating_sub(have).min(STEP);
        if end < LEAST || have > STEP / 2 || len == 0 {
            return None;
        }
        *until = from.saturating_add(len);
        Some((from, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_set_aside_once_and_no_more_than_there_may_be_use_for() {
        let piece = 2 << 20;
        for total in [0, 1, LEAST, LEAST + 1, LEAST + STEP, 10 * STEP + 12_345] {
            let ahead = Ahead::of(Some(FileId(0)));
            let (mut ranges, mut end) = (alloc::vec::Vec::new(), 0);
            while end < total {
                end = total.min(end + piece);
                // Lanes do not come in the order in which they got their places.
                for end in [end, end.saturating_sub(piece)] {
                    let range = ahead.next(end, total - end);
                    ranges.extend(range);
                    let until = range.map_or(*ahead.until.lock(), |(from, len)| from + len);
                    assert!(end < LEAST || end == total || until >= total.min(end + STEP / 2), "{end} of {total}");
                }
            }
            assert!(
                ranges.iter().all(|(from, len)| *from >= LEAST && *len <= STEP && from + len <= total),
                "{ranges:?}"
            );
            assert!(ranges.is_sorted_by(|(from, len), (next, _)| from + len == *next), "{ranges:?}");
        }
    }
}
