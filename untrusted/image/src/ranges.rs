//! Parts of a file that are in use, where they may begin anywhere: neighbours become one.

use alloc::collections::BTreeMap;
use core::ops::Range;

/// Parts that are remembered; if there are more, the ones furthest behind are forgotten and looked at another time.
const MOST: usize = 1 << 20;

/// The parts of a window.
pub struct Ranges {
    /// What is looked at; its end comes nearer as parts are forgotten.
    pub window: Range<u64>,
    most: usize,
    parts: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Nothing is in use.
    pub fn new(window: Range<u64>) -> Ranges {
        Ranges { window, most: MOST, parts: BTreeMap::new() }
    }

    /// Uses a part; whether some of it was in use already.
    pub fn add(&mut self, at: u64, end: u64) -> bool {
        let (mut at, mut end) = (at.max(self.window.start), end.min(self.window.end));
        if at >= end {
            return false;
        }
        let mut shared = false;
        // Those that touch it become one with it.
        while let Some((start, behind)) = self.parts.range(..=end).next_back().map(|(a, b)| (*a, *b)) {
            if behind < at {
                break;
            }
            shared |= start < end && behind > at;
            (at, end) = (at.min(start), end.max(behind));
            self.parts.remove(&start);
        }
        self.parts.insert(at, end);
        if self.parts.len() > self.most {
            self.forget();
        }
        shared
    }

    /// Forgets the second half.
    fn forget(&mut self) {
        if let Some(middle) = self.parts.keys().nth(self.most / 2).copied() {
            self.parts.split_off(&middle);
            self.window.end = middle;
        }
    }

    /// What is not in use below `end`, part by part.
    pub fn gaps(&self, end: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = end.min(self.window.end);
        let mut from = self.window.start;
        let ends = self.parts.iter().map(|(at, end)| (*at, *end)).chain([(end, end)]);
        ends.map_while(move |(at, behind)| {
            let gap = from..at.min(end);
            from = from.max(behind);
            (gap.start < end).then_some(gap)
        })
        .filter(|gap| !gap.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Every byte on its own.
    fn model(claims: &[(u64, u64)], len: usize) -> (Vec<bool>, Vec<bool>) {
        let mut used = vec![false; len];
        let mut told = Vec::new();
        for (at, end) in claims {
            let part = &mut used[*at as usize..*end as usize];
            told.push(part.iter().any(|used| *used));
            part.fill(true);
        }
        (told, used)
    }

    #[test]
    fn what_is_shared_and_what_is_free_is_told_as_byte_by_byte() {
        let mut seed = 7u64;
        let mut next = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % end
        };
        for round in 0..500 {
            let claims: Vec<(u64, u64)> = (0..next(40))
                .map(|_| {
                    let at = next(900);
                    (at, at + next(40).min(1000 - at))
                })
                .collect();
            let (told, used) = model(&claims, 1000);
            let most = if round % 2 == 0 { MOST } else { 4 };
            let mut found = vec![false; claims.len()];
            let mut gaps = Vec::new();
            let mut start = 0;
            while start < 1000 {
                let mut ranges = Ranges { most, ..Ranges::new(start..u64::MAX) };
                for ((at, end), found) in claims.iter().zip(&mut found) {
                    // An empty part is nobody's.
                    *found |= ranges.add(*at, *end);
                }
                gaps.extend(ranges.gaps(1000).flat_map(|gap| gap.collect::<Vec<u64>>()));
                start = ranges.window.end;
            }
            assert_eq!(found, told, "{claims:?}");
            let free: Vec<u64> = (0..1000).filter(|at| !used[*at as usize]).collect();
            assert_eq!(gaps, free, "{claims:?}");
        }
    }
}
