//! Bitmaps: how far a bit is like those behind it.

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
