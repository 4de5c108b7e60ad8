//! Modes of operation: how a block cipher is spread over a sector.
//!
//! Each is written once, over whole pieces of a sector, so that a cipher can work on many blocks at a time.

/// Sectors are worked on in pieces of this length, which every sector is a multiple of.
const PIECE_LEN: usize = 512;
/// The longest block of any cipher, and the length of an initialisation vector.
pub const BLOCK_MAX: usize = 16;

/// An initialisation vector; a cipher with shorter blocks uses its beginning.
pub type Vector = [u8; BLOCK_MAX];

/// A block cipher with its key. The bytes are whole blocks.
pub trait Blocks: Send + Sync {
    /// Encrypts block after block.
    fn encrypt(&self, bytes: &mut [u8]);
    /// Decrypts block after block.
    fn decrypt(&self, bytes: &mut [u8]);
}

/// `bytes ^= mask`, as far as both reach.
pub fn xor(bytes: &mut [u8], mask: &[u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// XTS: `run` is one of the cipher's two directions, `tweak` the vector after the second key encrypted it.
pub fn xts(tweak: Vector, sector: &mut [u8], run: &dyn Fn(&mut [u8])) {
    let mut tweak = u128::from_le_bytes(tweak);
    let mut tweaks = [0; PIECE_LEN];
    for piece in sector.chunks_mut(PIECE_LEN) {
        for place in tweaks.as_chunks_mut::<BLOCK_MAX>().0 {
            *place = tweak.to_le_bytes();
            let carry = if tweak >> 127 == 1 { 0x87 } else { 0 };
            tweak = tweak << 1 ^ carry;
        }
        xor(piece, &tweaks);
        run(piece);
        xor(piece, &tweaks);
    }
}

/// CBC, to be read.
pub fn cbc_decrypt(blocks: &dyn Blocks, block_len: usize, vector: Vector, sector: &mut [u8]) {
    let mut before = vector;
    let mut chain = [0; PIECE_LEN];
    for piece in sector.chunks_mut(PIECE_LEN) {
        let (first, others) = chain.split_at_mut(block_len.min(PIECE_LEN));
        copy(first, &before);
        copy(others, piece);
        if let Some(last) = piece.rchunks(block_len).next() {
            copy(&mut before, last);
        }
        blocks.decrypt(piece);
        xor(piece, &chain);
    }
}

/// CBC, to be written: one block after the other.
pub fn cbc_encrypt(blocks: &dyn Blocks, block_len: usize, vector: Vector, sector: &mut [u8]) {
    let mut before = vector;
    for block in sector.chunks_exact_mut(block_len) {
        xor(block, &before);
        blocks.encrypt(block);
        copy(&mut before, block);
    }
}

/// Counter mode, in both directions: the vector counts up, block by block, as one number with its high byte first.
pub fn ctr(blocks: &dyn Blocks, block_len: usize, vector: Vector, sector: &mut [u8]) {
    let mut counter = vector;
    let mut stream = [0; PIECE_LEN];
    for piece in sector.chunks_mut(PIECE_LEN) {
        for place in stream.chunks_exact_mut(block_len) {
            copy(place, &counter);
            for digit in counter.iter_mut().take(block_len).rev() {
                *digit = digit.wrapping_add(1);
                if *digit != 0 {
                    break;
                }
            }
        }
        blocks.encrypt(&mut stream);
        xor(piece, &stream);
    }
}

/// Copies as far as both reach.
pub fn copy(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}
