//! Bitmaps that an image keeps beside its disk: which parts of it were written to since some day.

use crate::num::{narrow, wide};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use instar_wire::error::Result;

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
    let (own, other) = (granularity.max(1), other.max(1));
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
