//! Pieces: a disk cut where the target has its units. Lanes take one after the other, and have their turns in that order.

use instar_image::holes::Holes;
use instar_image::{Found, Result, Source, Walk};
use spinning_top::Spinlock;

/// The pieces of a copy in their order.
pub struct Pieces {
    next: Spinlock<Next>,
    /// Bytes of a piece.
    len: u64,
    /// Bytes of the first piece that lie before what is copied.
    before: u64,
    total: u64,
}

/// What is given out next.
#[derive(Default)]
struct Next {
    turn: u64,
    number: u64,
}

/// A piece: whose turn it is, and where it begins and ends among all that is copied.
pub struct Piece {
    /// So many pieces have their turns before.
    pub turn: u64,
    /// Its first byte.
    pub at: u64,
    /// Where it ends.
    pub end: u64,
}

impl Pieces {
    /// Of `len` bytes each; what is copied begins at the target's byte `at`, and has `total` bytes.
    pub fn new(len: u64, at: u64, total: u64) -> Pieces {
        let len = len.max(1);
        Pieces { next: Spinlock::default(), len, before: at.checked_rem(len).unwrap_or(0), total }
    }

    /// Bytes of a piece.
    pub fn piece_len(&self) -> u64 {
        self.len
    }

    /// The next one.
    pub fn next(&self) -> Option<Piece> {
        let mut next = self.next.lock();
        let at = self.start(next.number).filter(|at| *at < self.total)?;
        let number = next.number.saturating_add(1);
        let end = self.start(number)?.min(self.total);
        let piece = Piece { turn: next.turn, at, end };
        *next = Next { turn: next.turn.saturating_add(1), number };
        Some(piece)
    }

    /// Passes over the pieces that nobody has taken and that end before `until`; answers how many bytes they have.
    pub fn skip(&self, until: u64) -> u64 {
        let until = until.saturating_add(self.before);
        let whole =
            if until >= self.total.saturating_add(self.before) { until.div_ceil(self.len) } else { until / self.len };
        let mut next = self.next.lock();
        if whole <= next.number {
            return 0;
        }
        let ends = |number: u64| self.start(number).unwrap_or(self.total).min(self.total);
        let skipped = ends(whole).saturating_sub(ends(next.number));
        next.number = whole;
        skipped
    }

    fn start(&self, number: u64) -> Option<u64> {
        number.checked_mul(self.len).map(|start| start.saturating_sub(self.before))
    }
}

/// Walks on as long as `passes` lets it, which is asked for each run: where it begins, its length, what it is, and whether
/// it is known without reading that it is zeroes. Answers how far that was, and how much of it are holes in what otherwise
/// is data.
pub fn blank(
    walk: &mut Walk<'_>,
    holes: &mut Holes<'_>,
    passes: &mut dyn FnMut(u64, u64, &Found, bool) -> u64,
) -> Result<(u64, u64)> {
    let (start, mut hollow) = (walk.at(), 0u64);
    while let Some((len, found)) = walk.peek()? {
        let (len, is_hole) = match found.source {
            Source::Raw { place, tweak: None, sparse: true } => {
                let (run, is_hole) = holes.run(place)?;
                (run.min(len), is_hole)
            }
            _ => (len, false),
        };
        let passed = passes(walk.at(), len, &found, is_hole || found.source.is_zero()).min(len);
        hollow = hollow.saturating_add(if is_hole { passed } else { 0 });
        walk.advance(passed);
        if passed < len || len == 0 {
            break;
        }
    }
    Ok((walk.at().saturating_sub(start), hollow))
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn pieces_cover_all_but_what_is_passed_over() {
        for (at, total) in [(0, 0), (0, 1), (512, 4096), (100, 10_000), (0, 12_288), (4095, 1), (7, 100_000)] {
            for skips in [0, 1, 3, 17] {
                let pieces = Pieces::new(4096, at, total);
                let (mut end, mut turn) = (0, 0);
                while let Some(piece) = pieces.next() {
                    assert!(piece.at == end && piece.end > end && piece.turn == turn, "{at} {total} {skips}");
                    (end, turn) = (piece.end, turn + 1);
                    assert!((end + at).is_multiple_of(4096) || end == total);
                    let until = (end + skips * 3000).min(total);
                    let skipped = pieces.skip(until);
                    assert!(end + skipped <= until && until - end - skipped < 4096);
                    end += skipped;
                }
                assert!(end == total, "{end} of {total}");
            }
        }
    }
}
