//! What the fuzz targets share: a reader that makes numbers, texts and files of bytes.

pub mod calls;
pub mod disk;
pub mod files;
pub mod guest;
pub mod made;

/// Bytes that have not been used yet. Where there are none left, everything is zero or empty.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next bytes, at most so many.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number: often small, often at an edge, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            200..=209 => u64::from(self.byte()) << 9,
            210 => 1 << 31,
            211 => u64::from(u32::MAX),
            212 => i64::MAX as u64,
            213 => i64::MAX as u64 + 1,
            214 => u64::MAX,
            215 => 10_000,
            216 => 4096,
            217..=229 => 1 << (self.byte() % 64),
            230..=239 => u64::MAX - u64::from(self.byte()),
            _ => self.take(8).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }

    /// A text with its length before it.
    pub fn text(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }
}
