//! Apple disk images, which qemu-img reads but cannot write.

/// Chunk types.
pub mod kind {
    /// Zeroes.
    pub const ZERO: u32 = 0;
    /// As it is.
    pub const RAW: u32 = 1;
    /// Zeroes nobody cares for.
    pub const IGNORE: u32 = 2;
    /// Apple Data Compression.
    pub const ADC: u32 = 0x8000_0004;
    /// zlib.
    pub const ZLIB: u32 = 0x8000_0005;
    /// bzip2.
    pub const BZIP2: u32 = 0x8000_0006;
    /// LZFSE.
    pub const LZFSE: u32 = 0x8000_0007;
    /// LZMA.
    pub const LZMA: u32 = 0x8000_0008;
    /// A remark.
    pub const COMMENT: u32 = 0x7fff_fffe;
    /// The end of a block's chunks.
    pub const END: u32 = 0xffff_ffff;
}

/// One chunk of a block.
#[derive(Clone, Copy)]
pub struct Chunk {
    /// How it is kept.
    pub kind: u32,
    /// First sector, counted from the block's.
    pub sector: u64,
    /// Sectors.
    pub count: u64,
    /// Where its bytes lie in the data fork.
    pub at: u64,
    /// How many there are.
    pub len: u64,
}

/// Where the table of blocks is kept.
#[derive(Clone, Copy, PartialEq)]
pub enum Fork {
    /// In a property list.
    Xml,
    /// In a resource fork.
    Resource,
}

/// A block of chunks.
pub fn mish(first_sector: u64, chunks: &[Chunk]) -> Vec<u8> {
    let mut out = vec![0u8; 204];
    out[..4].copy_from_slice(b"mish");
    out[4..8].copy_from_slice(&1u32.to_be_bytes());
    out[8..16].copy_from_slice(&first_sector.to_be_bytes());
    out[16..24].copy_from_slice(&chunks.iter().map(|c| c.count).sum::<u64>().to_be_bytes());
    out[200..204].copy_from_slice(&(chunks.len() as u32).to_be_bytes());
    for chunk in chunks {
        out.extend(chunk.kind.to_be_bytes());
        out.extend([0; 4]);
        [chunk.sector, chunk.count, chunk.at, chunk.len].iter().for_each(|n| out.extend(n.to_be_bytes()));
    }
    out
}

/// The image: `data`, the table of `blocks`, the trailer.
pub fn build(data: &[u8], blocks: &[Vec<u8>], fork: Fork, sectors: u64) -> Vec<u8> {
    let table = if fork == Fork::Xml { property_list(blocks) } else { resources(blocks) };
    let place = [(data.len() as u64).to_be_bytes(), (table.len() as u64).to_be_bytes()].concat();
    let mut trailer = vec![0u8; 512];
    trailer[..4].copy_from_slice(b"koly");
    trailer[4..8].copy_from_slice(&4u32.to_be_bytes());
    trailer[8..12].copy_from_slice(&512u32.to_be_bytes());
    trailer[32..40].copy_from_slice(&(data.len() as u64).to_be_bytes());
    let at = if fork == Fork::Xml { 216 } else { 40 };
    trailer[at..at + 16].copy_from_slice(&place);
    trailer[492..500].copy_from_slice(&sectors.to_be_bytes());
    [data, &table, &trailer].concat()
}

fn property_list(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut out =
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n<dict>\n<key>resource-fork</key>\n\
        <dict>\n<key>blkx</key>\n<array>\n"
            .to_vec();
    for block in blocks {
        out.extend(b"<dict>\n<key>Attributes</key>\n<string>0x0050</string>\n<key>Data</key>\n<data>\n");
        for line in base64(block).chunks(52) {
            out.extend(b"\t\t");
            out.extend(line);
            out.push(b'\n');
        }
        out.extend(b"</data>\n<key>ID</key>\n<string>0</string>\n</dict>\n");
    }
    out.extend(b"</array>\n</dict>\n</dict>\n</plist>\n");
    out
}

fn resources(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    for block in blocks {
        data.extend((block.len() as u32).to_be_bytes());
        data.extend(block);
    }
    let mut out = vec![0u8; 256];
    out[0..4].copy_from_slice(&256u32.to_be_bytes());
    out[4..8].copy_from_slice(&(256 + data.len() as u32).to_be_bytes());
    out[8..12].copy_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend(data);
    out
}

/// The usual sixty-four letters.
pub fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= three.len() { letter } else { b'=' });
        }
    }
    out
}
