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
    /// Bytes of a sector as the guest sees it.
    pub sector: u32,
    /// Further blocks: which, in which state, and what lies in the file for it.
    pub more: Vec<(u32, u8, Vec<u8>)>,
    /// Sector bitmaps: of which chunk, and its first bytes.
    pub bitmaps: Vec<(u32, Vec<u8>)>,
}

/// What one entry of the log does.
#[derive(Clone, Debug)]
pub enum Change {
    /// Bytes become zero: from where, how many.
    Zero(u64, u64),
    /// A sector of 4096 bytes is written there.
    Data(u64, Vec<u8>),
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it begins in the log.
    pub at: u64,
    /// Its number.
    pub sequence: u64,
    /// Where its sequence begins.
    pub tail: u64,
    /// What it does.
    pub changes: Vec<Change>,
    /// How long the file is at least, before and after.
    pub flushed: u64,
    /// See above.
    pub last: u64,
}

impl Entry {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let heads = (64 + 32 * self.changes.len()).next_multiple_of(4096);
        let mut out = vec![0u8; 64];
        out[..4].copy_from_slice(b"loge");
        out[12..16].copy_from_slice(&(self.tail as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..28].copy_from_slice(&(self.changes.len() as u32).to_le_bytes());
        out[32..48].copy_from_slice(LOG_GUID);
        out[48..56].copy_from_slice(&self.flushed.to_le_bytes());
        out[56..64].copy_from_slice(&self.last.to_le_bytes());
        let mut sectors = Vec::new();
        for change in &self.changes {
            let (words, at) = match change {
                Change::Zero(at, len) => ([&b"zero\0\0\0\0"[..], &len.to_le_bytes()].concat(), at),
                Change::Data(at, bytes) => {
                    sectors.extend([&b"data"[..], &self.sequence.to_le_bytes()[4..], &bytes[8..4092]].concat());
                    sectors.extend(&self.sequence.to_le_bytes()[..4]);
                    ([b"desc", &bytes[4092..4096], &bytes[..8]].concat(), at)
                }
            };
            out.extend([&words[..], &at.to_le_bytes(), &self.sequence.to_le_bytes()].concat());
        }
        out.resize(heads, 0);
        out.extend(sectors);
        let len = out.len() as u32;
        out[8..12].copy_from_slice(&len.to_le_bytes());
        seal(&mut out);
        out
    }
}

/// Makes the log of an image, ours or anyone's, hold these entries.
pub fn log(image: &mut [u8], entries: &[Entry]) {
    let number = |image: &[u8], at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"));
    let (at, len) = (number(image, 0x1_0048) as usize, (number(image, 0x1_0040) >> 32) as usize);
    for entry in entries {
        for (place, byte) in entry.bytes().into_iter().enumerate() {
            image[at + (entry.at as usize + place) % len] = byte;
        }
    }
    for header in [0x1_0000, 0x2_0000] {
        image[header + 48..header + 64].copy_from_slice(LOG_GUID);
        seal(&mut image[header..header + 4096]);
    }
}

impl Default for Vhdx {
    fn default() -> Self {
        Vhdx {
            size: 4 << 20,
            block_len: 1 << 20,
            parent: Vec::new(),
            blocks: Vec::new(),
            dirty: None,
            sector: 512,
            more: Vec::new(),
            bitmaps: Vec::new(),
        }
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

fn header(number: u64) -> Vec<u8> {
    let mut out = vec![0u8; 4096];
    out[..4].copy_from_slice(b"head");
    out[8..16].copy_from_slice(&number.to_le_bytes());
    out[16..32].copy_from_slice(b"file write guid!");
    out[32..48].copy_from_slice(b"data write guid!");
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
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", disk.sector.to_le_bytes().to_vec()),
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

/// The image.
pub fn build(disk: &Vhdx) -> Vec<u8> {
    let block_len = disk.block_len as usize;
    let held = disk.more.iter().filter(|(_, _, data)| !data.is_empty()).count() + disk.blocks.len();
    let mut out = vec![0u8; BLOCKS_AT + block_len * held + MIB * disk.bitmaps.len()];
    let len = out.len() as u64;
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"vhdxfile");
    put(0x1_0000, &header(1));
    put(0x2_0000, &header(2));
    put(0x3_0000, &regions());
    put(0x4_0000, &regions());
    put(METADATA_AT, &metadata(disk));
    let chunk = ((1usize << 23) * disk.sector as usize) / block_len;
    let mut next = BLOCKS_AT;
    for (place, fill) in &disk.blocks {
        let entry = *place as usize + *place as usize / chunk;
        put(TABLE_AT + 8 * entry, &(next as u64 | 6).to_le_bytes());
        put(next, &vec![*fill; block_len]);
        next += block_len;
    }
    for (place, state, data) in &disk.more {
        let entry = *place as usize + *place as usize / chunk;
        let at = if data.is_empty() { 0 } else { next };
        put(TABLE_AT + 8 * entry, &(at as u64 | u64::from(*state)).to_le_bytes());
        put(at.max(BLOCKS_AT), data);
        next += if data.is_empty() { 0 } else { block_len };
    }
    for (place, bytes) in &disk.bitmaps {
        put(TABLE_AT + 8 * (*place as usize * (chunk + 1) + chunk), &(next as u64 | 6).to_le_bytes());
        put(next, bytes);
        next += MIB;
    }
    if let Some(at) = disk.dirty {
        let changes = vec![Change::Zero(at, 4096)];
        log(&mut out, &[Entry { at: 0, sequence: 1, tail: 0, changes, flushed: len, last: len }]);
    }
    out
}
