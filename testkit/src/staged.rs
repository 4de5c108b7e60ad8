//! The stage of a drive that has none of the broker's.

use std::sync::Mutex;

/// How long it is where that does not matter.
pub const STAGE: usize = 1 << 20;

/// Bytes on their way.
pub struct Staged(Mutex<Vec<u8>>);

impl Staged {
    /// So many.
    pub fn new(len: usize) -> Staged {
        Staged(Mutex::new(vec![0; len]))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.lock().expect("no panic before").len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes there; answers a bit for each granule of them, which is set where all are zero.
    pub fn load(&self, skip: usize, bytes: &[u8], granule: u32) -> Vec<u8> {
        self.lay(skip, bytes);
        let mut zero = vec![0; bytes.len().div_ceil(1 << granule).div_ceil(8)];
        for (index, piece) in bytes.chunks(1 << granule).enumerate() {
            zero[index / 8] |= u8::from(piece.iter().all(|byte| *byte == 0)) << (index % 8);
        }
        zero
    }

    /// Puts bytes there.
    pub fn lay(&self, skip: usize, bytes: &[u8]) {
        self.0.lock().expect("no panic before")[skip..skip + bytes.len()].copy_from_slice(bytes);
    }

    /// Takes bytes from there.
    pub fn take(&self, skip: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.lock().expect("no panic before")[skip..skip + bytes.len()]);
    }

    /// So many bytes of it.
    pub fn bytes(&self, skip: usize, len: usize) -> Vec<u8> {
        self.0.lock().expect("no panic before")[skip..skip + len].to_vec()
    }
}
