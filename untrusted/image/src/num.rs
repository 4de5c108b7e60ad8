//! Arithmetic on numbers that an image says, where every step may be a trap.

use instar_wire::error::{Error, Result};

/// `a + b`, or the error.
pub fn add(a: u64, b: u64, or: impl FnOnce() -> Error) -> Result<u64> {
    a.checked_add(b).ok_or_else(or)
}

/// `a * b`, or the error.
pub fn mul(a: u64, b: u64, or: impl FnOnce() -> Error) -> Result<u64> {
    a.checked_mul(b).ok_or_else(or)
}

/// A length that fits memory and a limit, or the error.
pub fn bounded(len: u64, max: u64, or: impl FnOnce() -> Error) -> Result<usize> {
    if len > max {
        return Err(or());
    }
    usize::try_from(len).map_err(|_| or())
}

/// 2 to the power of `bits`, which the caller has bounded.
pub fn power(bits: u32) -> u64 {
    1u64.checked_shl(bits).unwrap_or(0)
}

/// Which of the units of length `unit` the byte at `at` lies in, how far from its beginning, and how far from its end.
pub fn split(at: u64, unit: u64) -> (u64, u64, u64) {
    let (number, skip) = (at.checked_div(unit).unwrap_or(0), at.checked_rem(unit).unwrap_or(0));
    (number, skip, unit.saturating_sub(skip))
}

/// A length in memory as one in a file.
pub fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A length in a file as one in memory; whoever bounds it first loses nothing.
pub fn narrow(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
