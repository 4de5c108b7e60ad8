//! Compressed loop images, which qemu-img reads but cannot write.

/// The script every such image begins with.
pub const SCRIPT: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n";

/// The image: blocks of `block_len` bytes of `data`, each in stored deflate blocks.
pub fn build(block_len: u32, data: &[u8]) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for block in data.chunks(block_len as usize) {
        let mut padded = block.to_vec();
        padded.resize(block_len as usize, 0);
        blocks.push(zlib_stored(&padded));
    }
    of_blocks(block_len, &blocks)
}

/// The image of blocks that are compressed already, or claim to be.
pub fn of_blocks(block_len: u32, blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![0u8; 128];
    out[..SCRIPT.len()].copy_from_slice(SCRIPT);
    out.extend(block_len.to_be_bytes());
    out.extend((blocks.len() as u32).to_be_bytes());
    let mut at = 136 + 8 * (blocks.len() as u64 + 1);
    out.extend(at.to_be_bytes());
    for block in blocks {
        at += block.len() as u64;
        out.extend(at.to_be_bytes());
    }
    blocks.iter().for_each(|block| out.extend(block));
    out
}

/// `data` as a zlib stream that compresses nothing.
pub fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut pieces = data.chunks(65535).peekable();
    while let Some(piece) = pieces.next() {
        let len = piece.len() as u16;
        out.push(u8::from(pieces.peek().is_none()));
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(piece);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}
