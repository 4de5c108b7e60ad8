//! CRC-32C, the checksum of VHDX (and of NVMe, iSCSI and ext4).

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What one byte does to the sum.
static TABLE: [u32; 256] = table();

#[allow(clippy::indexing_slicing)] // evaluated by the compiler
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0u32;
    while byte < 256 {
        let mut sum = byte;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte as usize] = sum;
        byte += 1;
    }
    table
}

/// A sum under way.
#[derive(Clone, Copy)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    /// The sum of nothing.
    fn default() -> Self {
        Crc32c(u32::MAX)
    }
}

impl Crc32c {
    /// Adds bytes.
    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Self {
        Crc32c(bytes.iter().fold(self.0, |sum, byte| {
            let [low, ..] = sum.to_le_bytes();
            (sum >> 8) ^ TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0)
        }))
    }

    /// The sum.
    pub fn finish(self) -> u32 {
        !self.0
    }
}

/// The sum of a structure whose own checksum, taken as zero, is its second word.
pub fn of_structure(bytes: &[u8]) -> u32 {
    let (signature, rest) = bytes.split_at(bytes.len().min(4));
    Crc32c::default().update(signature).update(&[0; 4]).update(rest.get(4..).unwrap_or(&[])).finish()
}
