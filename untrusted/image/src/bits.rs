//! Bitmaps: how far a bit is like those behind it, and how bits of a file are set.

use crate::draft::Draft;
use crate::file::Drive;
use crate::grow::{Room, Touch};
use crate::num::narrow;
use crate::target::Rest;
use core::ops::Range;
use instar_wire::error::{Kind, Result};

/// Which bit of a byte is the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The highest.
    High,
    /// The lowest.
    Low,
}

/// Bit number `first` of the first byte, and how many in a row from there on are like it; of no bytes all is clear.
pub fn alike(bytes: &[[u8; 1]], first: u32, order: Order) -> (bool, u64) {
    let turned = |[byte]: &[u8; 1]| if order == Order::High { *byte } else { byte.reverse_bits() };
    let mut bytes = bytes.iter().map(turned);
    let head = bytes.next().unwrap_or(0).wrapping_shl(first);
    let is_set = head & 0x80 != 0;
    let like = |byte: u8| if is_set { byte.leading_ones() } else { byte.leading_zeros() };
    let whole = 8u32.saturating_sub(first);
    let mut count = u64::from(like(head).min(whole));
    if count == u64::from(whole) {
        for byte in bytes {
            let more = like(byte);
            count = count.saturating_add(more.into());
            if more < 8 {
                break;
            }
        }
    }
    (is_set, count)
}

/// Sets bits of a bitmap that begins at `at`.
pub fn set(drive: &dyn Drive, draft: &mut Draft, at: u64, bits: Range<u64>, order: Order) -> Result<()> {
    const ALL: [u8; 512] = [0xff; 512];
    let mut bit = bits.start;
    while bit < bits.end {
        let place = at.saturating_add(bit / 8);
        let whole = bits.end.saturating_sub(bit) / 8;
        if bit.is_multiple_of(8) && whole > 0 {
            let left = 512u64.saturating_sub(place % 512);
            let bytes = ALL.get(..narrow(whole.min(left))).unwrap_or(&ALL);
            draft.link(drive, place, bytes)?;
            bit = bit.saturating_add((bytes.len() as u64).saturating_mul(8));
            continue;
        }
        let [byte] = draft.get::<1>(drive, place)?;
        draft.link(drive, place, &[byte | mask(bit, order)])?;
        bit = bit.saturating_add(1);
    }
    Ok(())
}

/// The bit in its byte.
fn mask(bit: u64, order: Order) -> u8 {
    let shift = u32::try_from(bit % 8).unwrap_or(0);
    let shifted = |byte: u8| if order == Order::High { byte.checked_shr(shift) } else { byte.checked_shl(shift) };
    shifted(if order == Order::High { 0x80 } else { 1 }).unwrap_or(0)
}

/// The bitmap of a block of a disk that differs from another: which of its sectors are here.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    /// Where the bitmap begins.
    pub at: u64,
    /// The bit of the block's first sector.
    pub first: u64,
    /// Sectors of the block.
    pub count: u64,
    /// Bytes of a sector.
    pub sector: u64,
    /// The disk gives out its places by the sector.
    pub by_sector: bool,
    /// Which bit of a byte is the first.
    pub order: Order,
}

impl Presence {
    /// Sectors are written to: they are here from now on. Those around them stay below.
    pub fn mark(&self, room: &mut Room<'_>, touch: &Touch) -> Result<Rest> {
        let end = touch.skip.saturating_add(touch.len);
        let sector = self.sector.max(1);
        let (from, until) = (touch.skip.checked_div(sector).unwrap_or(0), end.div_ceil(sector));
        let bits = |from: u64, until: u64| self.first.saturating_add(from)..self.first.saturating_add(until);
        let edges = [(touch.skip, from), (end, until.saturating_sub(1))];
        for (edge, number) in edges.into_iter().filter(|(edge, _)| !edge.is_multiple_of(sector)) {
            if touch.is_new && !self.by_sector {
                // All of the block is brought here, as a part of a sector cannot be.
                set(room.drive, room.draft, self.at, bits(0, self.count), self.order)?;
                return Ok(touch.rest);
            }
            let bit = self.first.saturating_add(number);
            let [byte] = room.draft.get::<1>(room.drive, self.at.saturating_add(bit / 8))?;
            match (byte & mask(bit, self.order) != 0, self.by_sector) {
                (true, _) => {}
                (false, true) => {
                    set(room.drive, room.draft, self.at, bits(from, until), self.order)?;
                    return Ok(Rest::Below);
                }
                (false, false) => {
                    let phrase = "only whole sectors can be written to a disk that differs from another";
                    return Err(Kind::Unsupported.what(phrase).at(edge));
                }
            }
        }
        set(room.drive, room.draft, self.at, bits(from, until), self.order)?;
        Ok(Rest::There)
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, alike};
    use alloc::vec::Vec;

    #[test]
    fn runs_are_counted_as_one_would_bit_by_bit() {
        let mut state = 7u64;
        for round in 0..3000 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as u8
            };
            let fill = |byte: u8| [0, 0xff, byte, 0x01, 0x80][usize::from(byte) % 5];
            let bytes: Vec<[u8; 1]> = (0..=round % 5).map(|_| [fill(next())]).collect();
            for (order, first) in [Order::High, Order::Low].into_iter().flat_map(|o| (0..8).map(move |n| (o, n))) {
                let bit = |n: u32| {
                    let [byte] = bytes[n as usize / 8];
                    byte >> (if order == Order::High { 7 - n % 8 } else { n % 8 }) & 1 == 1
                };
                let all = bytes.len() as u32 * 8;
                let count = (first..all).take_while(|n| bit(*n) == bit(first)).count() as u64;
                assert_eq!(alike(&bytes, first, order), (bit(first), count), "{bytes:?} {first} {order:?}");
            }
        }
    }
}
