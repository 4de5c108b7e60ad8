//! Hyper-V disks: differencing ones, and ones whose log was not replayed.

/// What a disk is made of.
pub struct Vhdx {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes of a block.
    pub block_len: u32,
    /// Keys and values of the parent locator; empty: no parent.
    pub parent: Vec<(String, String)>,
    /// The blocks that hold data, each filled with one byte.
    pub blocks: Vec<(u32, u8)>,
    /// The log holds an entry that zeroes 4 KiB at this offset of the file.
    pub dirty: Option<u64>,
}

impl Default for Vhdx {
    fn default() -> Self {
        Vhdx { size: 4 << 20, block_len: 1 << 20, parent: Vec::new(), blocks: Vec::new(), dirty: None }
    }
}

const MIB: usize = 1 << 20;
/// Where the log, the block table, the metadata and the blocks begin.
const LOG_AT: usize = MIB;
const TABLE_AT: usize = 2 * MIB;
const METADATA_AT: usize = 3 * MIB;
const BLOCKS_AT: usize = 4 * MIB;
const LOG_GUID: &[u8; 16] = b"log is not empty";

/// CRC-32C.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// Writes the checksum of a structure into its second word.
pub fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// An identifier from its usual spelling.
pub fn guid(text: &str) -> [u8; 16] {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).unwrap_or("0"), 16).unwrap_or(0);
    }
    out[..4].reverse();
    out[4..6].reverse();
    out[6..8].reverse();
    out
}

fn header(disk: &Vhdx, number: u64) -> Vec<u8> {
    let mut out = vec![0u8; 4096];
    out[..4].copy_from_slice(b"head");
    out[8..16].copy_from_slice(&number.to_le_bytes());
    out[16..32].copy_from_slice(b"file write guid!");
    out[32..48].copy_from_slice(b"data write guid!");
    if disk.dirty.is_some() {
        out[48..64].copy_from_slice(LOG_GUID);
    }
    out[66..68].copy_from_slice(&1u16.to_le_bytes());
    out[68..72].copy_from_slice(&(MIB as u32).to_le_bytes());
    out[72..80].copy_from_slice(&(LOG_AT as u64).to_le_bytes());
    seal(&mut out);
    out
}

fn regions() -> Vec<u8> {
    let mut out = vec![0u8; 65536];
    out[..4].copy_from_slice(b"regi");
    out[8..12].copy_from_slice(&2u32.to_le_bytes());
    let known =
        [("2dc27766-f623-4200-9d64-115e9bfd4a08", TABLE_AT), ("8b7ca206-4790-4b9a-b8fe-575f050f886e", METADATA_AT)];
    for (place, (name, at)) in known.into_iter().enumerate() {
        let entry = &mut out[16 + 32 * place..48 + 32 * place];
        entry[..16].copy_from_slice(&guid(name));
        entry[16..24].copy_from_slice(&(at as u64).to_le_bytes());
        entry[24..28].copy_from_slice(&(MIB as u32).to_le_bytes());
        entry[28..32].copy_from_slice(&1u32.to_le_bytes());
    }
    seal(&mut out);
    out
}

fn locator(pairs: &[(String, String)]) -> Vec<u8> {
    let mut out = guid("b04aefb7-d19e-4a81-b789-25b8e9445913").to_vec();
    out.extend([0, 0]);
    out.extend((pairs.len() as u16).to_le_bytes());
    let mut texts = Vec::new();
    let texts_at = 20 + 12 * pairs.len();
    for pair in pairs {
        let [key, value] =
            [&pair.0, &pair.1].map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        out.extend(((texts_at + texts.len()) as u32).to_le_bytes());
        out.extend(((texts_at + texts.len() + key.len()) as u32).to_le_bytes());
        out.extend((key.len() as u16).to_le_bytes());
        out.extend((value.len() as u16).to_le_bytes());
        texts.extend(key);
        texts.extend(value);
    }
    out.extend(texts);
    out
}

fn metadata(disk: &Vhdx) -> Vec<u8> {
    let flags = if disk.parent.is_empty() { 0 } else { 2u32 };
    let mut items = vec![
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", [disk.block_len.to_le_bytes(), flags.to_le_bytes()].concat()),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", disk.size.to_le_bytes().to_vec()),
        ("beca12ab-b2e6-4523-93ef-c309e000c746", b"disk identifier!".to_vec()),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", 512u32.to_le_bytes().to_vec()),
        ("cda348c7-445d-4471-9cc9-e9885251c556", 4096u32.to_le_bytes().to_vec()),
    ];
    if !disk.parent.is_empty() {
        items.push(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", locator(&disk.parent)));
    }
    let mut out = vec![0u8; 65536];
    out[..8].copy_from_slice(b"metadata");
    out[10..12].copy_from_slice(&(items.len() as u16).to_le_bytes());
    for (place, (name, bytes)) in items.into_iter().enumerate() {
        let at = out.len() as u32;
        let entry = &mut out[32 + 32 * place..64 + 32 * place];
        entry[..16].copy_from_slice(&guid(name));
        entry[16..20].copy_from_slice(&at.to_le_bytes());
        entry[20..24].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        entry[24..28].copy_from_slice(&4u32.to_le_bytes());
        out.extend(bytes);
    }
    out
}

fn log_entry(zeroed_at: u64, file_len: u64) -> Vec<u8> {
    let mut out = vec![0u8; 4096];
    out[..4].copy_from_slice(b"loge");
    out[8..12].copy_from_slice(&4096u32.to_le_bytes());
    out[16..24].copy_from_slice(&1u64.to_le_bytes());
    out[24..28].copy_from_slice(&1u32.to_le_bytes());
    out[32..48].copy_from_slice(LOG_GUID);
    out[48..56].copy_from_slice(&file_len.to_le_bytes());
    out[56..64].copy_from_slice(&file_len.to_le_bytes());
    out[64..68].copy_from_slice(b"zero");
    out[72..80].copy_from_slice(&4096u64.to_le_bytes());
    out[80..88].copy_from_slice(&zeroed_at.to_le_bytes());
    out[88..96].copy_from_slice(&1u64.to_le_bytes());
    seal(&mut out);
    out
}

/// The image.
pub fn build(disk: &Vhdx) -> Vec<u8> {
    let block_len = disk.block_len as usize;
    let mut out = vec![0u8; BLOCKS_AT + block_len * disk.blocks.len()];
    let len = out.len() as u64;
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"vhdxfile");
    put(0x1_0000, &header(disk, 1));
    put(0x2_0000, &header(disk, 2));
    put(0x3_0000, &regions());
    put(0x4_0000, &regions());
    put(METADATA_AT, &metadata(disk));
    if let Some(at) = disk.dirty {
        put(LOG_AT, &log_entry(at, len));
    }
    let chunk = ((1usize << 23) * 512) / block_len;
    for (number, (place, fill)) in disk.blocks.iter().enumerate() {
        let entry = *place as usize + *place as usize / chunk;
        let at = BLOCKS_AT + number * block_len;
        put(TABLE_AT + 8 * entry, &(at as u64 | 6).to_le_bytes());
        put(at, &vec![*fill; block_len]);
    }
    out
}
