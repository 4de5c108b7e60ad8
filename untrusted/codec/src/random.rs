//! Bytes drawn from a seed: as hard to foretell as it is, and the same ones for the same seed.

use sha2::{Digest, Sha256};

/// A source of random bytes.
pub struct Random {
    seed: [u8; 32],
    count: u64,
}

impl Random {
    /// From a seed of any length.
    pub fn new(seed: &[u8]) -> Random {
        Random { seed: Sha256::digest(seed).into(), count: 0 }
    }

    /// The next bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(32) {
            let block = Sha256::new().chain_update(self.seed).chain_update(self.count.to_le_bytes()).finalize();
            self.count = self.count.wrapping_add(1);
            piece.iter_mut().zip(block).for_each(|(byte, drawn)| *byte = drawn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn what_is_drawn_depends_on_the_seed_and_never_comes_again() {
        let draw = |seed: &[u8]| {
            let (mut random, mut bytes) = (Random::new(seed), [0; 100]);
            random.fill(&mut bytes);
            bytes
        };
        assert_eq!(draw(b"a"), draw(b"a"));
        assert_ne!(draw(b"a"), draw(b"b"));
        let bytes = draw(b"a");
        assert_ne!(bytes[..32], bytes[32..64]);
    }
}
