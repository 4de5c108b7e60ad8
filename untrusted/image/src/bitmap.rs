//! Bitmaps that an image keeps beside its disk: which parts of it were written to since some day.

use crate::num::{narrow, wide};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use instar_wire::error::{Error, Kind, Result};

/// A bitmap, without its bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    /// Its name.
    pub name: Vec<u8>,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// It records what is written from now on.
    pub is_enabled: bool,
    /// It was not kept properly: its bits say nothing.
    pub is_broken: bool,
}

/// What is said of a bitmap whose bits mean nothing.
pub fn broken(name: &[u8]) -> Error {
    let words =
        "Bitmap '{}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk";
    Kind::Unsupported.what(words).arg(name)
}

/// A bitmap that an image is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What it is.
    pub bitmap: Bitmap,
    /// The number of the one in the image whose bits it keeps; none if they are others.
    pub kept: Option<usize>,
}

impl Bitmap {
    /// Bytes of the bits of a disk so long.
    pub fn len(&self, size: u64) -> u64 {
        size.div_ceil(self.granularity.max(1)).div_ceil(8)
    }
}

/// Bits that are read at once, in bytes.
const AT_ONCE: u64 = 64 << 10;

/// Reads bits, from a byte of them on.
pub type Bits<'b> = &'b dyn Fn(u64, &mut [u8]) -> Result<()>;

/// Sets those bits of a bitmap for whose bytes of the disk another has a bit: `bytes` are its bits from byte `at` of them
/// on, each for `granularity` bytes of the disk; the other's are read by `read`, of the granularity `other`. Both are
/// powers of two, and about a disk of this size.
pub fn merge(size: u64, granularity: u64, at: u64, bytes: &mut [u8], other: u64, read: Bits<'_>) -> Result<()> {
    let (own, other): (u64, u64) = (granularity.max(1), other.max(1));
    let (first, end) = (at.saturating_mul(8), size.div_ceil(own));
    let end = end.min(at.saturating_add(wide(bytes.len())).saturating_mul(8));
    let others = size.div_ceil(other);
    let mut piece = vec![0; narrow(AT_ONCE)];
    // The bits of the other that tell of what these bits stand for, from whole bytes on.
    let mut from = first.saturating_mul(own) / other / 8;
    let last = end.saturating_mul(own).div_ceil(other).min(others).div_ceil(8);
    while from < last {
        let len = narrow(last.saturating_sub(from).min(AT_ONCE));
        let some = piece.get_mut(..len).unwrap_or_default();
        read(from, some)?;
        for (number, byte) in (from..).zip(some.iter()).filter(|(_, byte)| **byte != 0) {
            let bit = number.saturating_mul(8);
            // Where both count alike, bytes are as good as bits.
            if own == other && bit.saturating_add(8) <= end {
                bytes.iter_mut().skip(narrow(number.saturating_sub(at))).take(1).for_each(|to| *to |= byte);
                continue;
            }
            for (bit, _) in (bit..others).zip(0..8u32).filter(|(_, shift)| byte.wrapping_shr(*shift) & 1 != 0) {
                let place = bit.saturating_mul(other);
                let range = (place / own).max(first)..place.saturating_add(other).div_ceil(own).min(end);
                set(bytes, first, range);
            }
        }
        from = from.saturating_add(wide(len));
    }
    Ok(())
}

/// Sets a range of bits, of which the first byte begins with bit `first`.
fn set(bytes: &mut [u8], first: u64, range: Range<u64>) {
    let mut bit = range.start;
    while bit < range.end {
        let (byte, shift) = (narrow(bit.saturating_sub(first) / 8), bit % 8);
        let whole = range.end.saturating_sub(bit) / 8;
        if shift == 0 && whole > 0 {
            bytes.iter_mut().skip(byte).take(narrow(whole)).for_each(|byte| *byte = 0xff);
            bit = bit.saturating_add(whole.saturating_mul(8));
            continue;
        }
        let mask = 1u8.wrapping_shl(u32::try_from(shift).unwrap_or(0));
        bytes.iter_mut().skip(byte).take(1).for_each(|byte| *byte |= mask);
        bit = bit.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in no order.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (self.0 >> 33) % end
        }
    }

    #[test]
    fn merged_bits_are_all_that_stand_for_a_byte_that_either_has() {
        let mut dice = Dice(9);
        let mut whole = 0;
        for _ in 0..3000 {
            let granularity = |dice: &mut Dice| 512 << dice.below(6);
            let (own, other): (u64, u64) = (granularity(&mut dice), granularity(&mut dice));
            let order = 12 + 4 * dice.below(3);
            let size: u64 = 1 + dice.below(1 << order);
            let kind = dice.below(4);
            let len = size.div_ceil(other).div_ceil(64) * 8;
            let theirs: Vec<u8> = (0..len)
                .map(|_| match kind {
                    0 => 0xff,
                    1 => 0,
                    2 if dice.below(8) > 0 => 0,
                    _ => dice.below(256) as u8,
                })
                .collect();
            let room = size.div_ceil(own).div_ceil(64) * 8;
            let at = dice.below(room);
            let count = 1 + dice.below(room - at) as usize;
            let before: Vec<u8> =
                (0..count).map(|_| if dice.below(3) == 0 { dice.below(256) as u8 } else { 0 }).collect();
            let mut bytes = before.clone();
            let read = |at: u64, bytes: &mut [u8]| {
                bytes.copy_from_slice(&theirs[at as usize..][..bytes.len()]);
                Ok(())
            };
            merge(size, own, at, &mut bytes, other, &read).unwrap();
            let is_set = |bit: u64| theirs[bit as usize / 8] >> (bit % 8) & 1 == 1;
            for bit in 0..count as u64 * 8 {
                let start = (at * 8 + bit) * own;
                let end = (start + own).min(size);
                let is_hit = start < size && (start / other..end.div_ceil(other)).any(is_set);
                let want = before[bit as usize / 8] >> (bit % 8) & 1 == 1 || is_hit;
                let got = bytes[bit as usize / 8] >> (bit % 8) & 1 == 1;
                assert_eq!(got, want, "{size} bytes, {own} from {other}, byte {at}, bit {bit}");
                whole += u64::from(is_hit);
            }
        }
        assert!(whole > 10_000, "{whole} bits");
    }
}
