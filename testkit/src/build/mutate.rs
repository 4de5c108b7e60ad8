//! Damage done to an image on purpose: every truncation, every field at its extremes, and seeded noise.

/// A small generator of numbers, the same on every run (xorshift64*).
pub struct Noise(u64);

impl Noise {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // it never ends
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// `image` with `bytes` written at `at`; longer if need be.
pub fn patched(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = image.to_vec();
    if out.len() < at + bytes.len() {
        out.resize(at + bytes.len(), 0);
    }
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out
}

/// Shows `each` the image cut at every 512 bytes and one byte either side.
pub fn truncated(image: &[u8], mut each: impl FnMut(Vec<u8>)) {
    for cut in (0..image.len()).step_by(512) {
        for len in [cut.saturating_sub(1), cut, cut + 1] {
            each(image[..len.min(image.len())].to_vec());
        }
    }
}

/// Shows `each` the image with every aligned field of 1, 2, 4 and 8 bytes in `range` set to zero, its extremes and noise.
pub fn fields(image: &[u8], range: core::ops::Range<usize>, seed: u64, mut each: impl FnMut(Vec<u8>)) {
    let mut noise = Noise::new(seed);
    for width in [1, 2, 4, 8] {
        for at in range.clone().step_by(width) {
            for fill in [0x00, 0xff, 0x7f, 0x80] {
                each(patched(image, at, &vec![fill; width]));
            }
            each(patched(image, at, &noise.next().to_le_bytes()[..width]));
            each(patched(image, at, &(noise.next() >> noise.below(60)).to_be_bytes()[8 - width..]));
        }
    }
}

/// Shows `each` the image `rounds` times with a few random bytes of `range` changed.
pub fn noise(image: &[u8], range: core::ops::Range<usize>, seed: u64, rounds: usize, mut each: impl FnMut(Vec<u8>)) {
    let mut noise = Noise::new(seed);
    let end = range.end.min(image.len());
    for _ in 0..rounds {
        let mut out = image.to_vec();
        for _ in 0..=noise.below(6) {
            let at = range.start + noise.below((end - range.start).max(1) as u64) as usize;
            out[at] = noise.next() as u8;
        }
        each(out);
    }
}

/// All of the above over the first `header` bytes: what an opener must survive.
pub fn storm(image: &[u8], header: usize, mut each: impl FnMut(Vec<u8>)) {
    truncated(image, &mut each);
    fields(image, 0..header.min(image.len()), 1, &mut each);
    noise(image, 0..header.min(image.len()), 2, 2000, &mut each);
}
