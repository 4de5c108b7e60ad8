//! Virtual PC disks of every type and creator, with their checksums.

/// What a disk is made of.
pub struct Vhd {
    /// 2: fixed; 3: dynamic; 4: differencing.
    pub kind: u32,
    /// The program that made it.
    pub creator: [u8; 4],
    /// Size of the disk in bytes.
    pub size: u64,
    /// Cylinders, heads, sectors per track.
    pub geometry: (u16, u8, u8),
    /// Bytes of a block.
    pub block_len: u32,
    /// The blocks that hold data, each filled with one byte.
    pub blocks: Vec<(u32, u8)>,
    /// The bitmap in front of every block, over and over: whose sectors were written.
    pub bitmap: Vec<u8>,
    /// Identifier.
    pub uuid: [u8; 16],
    /// Identifier of the parent.
    pub parent_uuid: [u8; 16],
    /// Name of the parent.
    pub parent: String,
    /// Where the parent is: code and text.
    pub locators: Vec<([u8; 4], String)>,
}

impl Default for Vhd {
    fn default() -> Self {
        Vhd {
            kind: 3,
            creator: *b"win ",
            size: 4 << 20,
            geometry: (120, 4, 17),
            block_len: 2 << 20,
            blocks: Vec::new(),
            bitmap: vec![0xff],
            uuid: *b"disk identifier!",
            parent_uuid: *b"parent identity!",
            parent: String::new(),
            locators: Vec::new(),
        }
    }
}

/// The footer.
pub fn footer(disk: &Vhd) -> Vec<u8> {
    let mut out = vec![0u8; 512];
    out[..8].copy_from_slice(b"conectix");
    out[8..12].copy_from_slice(&2u32.to_be_bytes());
    out[12..16].copy_from_slice(&0x1_0000u32.to_be_bytes());
    let header_at = if disk.kind == 2 { u64::MAX } else { 512 };
    out[16..24].copy_from_slice(&header_at.to_be_bytes());
    out[28..32].copy_from_slice(&disk.creator);
    out[36..40].copy_from_slice(b"Wi2k");
    out[40..48].copy_from_slice(&disk.size.to_be_bytes());
    out[48..56].copy_from_slice(&disk.size.to_be_bytes());
    out[56..58].copy_from_slice(&disk.geometry.0.to_be_bytes());
    out[58] = disk.geometry.1;
    out[59] = disk.geometry.2;
    out[60..64].copy_from_slice(&disk.kind.to_be_bytes());
    out[68..84].copy_from_slice(&disk.uuid);
    seal(&mut out, 64);
    out
}

/// Writes the checksum into the four bytes at `at`.
pub fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// The image.
pub fn build(disk: &Vhd) -> Vec<u8> {
    let footer = footer(disk);
    if disk.kind == 2 {
        return [vec![0; disk.size as usize], footer].concat();
    }
    let entries = disk.size.div_ceil(u64::from(disk.block_len)) as u32;
    let table_len = (entries as usize * 4).next_multiple_of(512);
    let mut header = vec![0u8; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[8..16].fill(0xff);
    header[16..24].copy_from_slice(&1536u64.to_be_bytes());
    header[24..28].copy_from_slice(&0x1_0000u32.to_be_bytes());
    header[28..32].copy_from_slice(&entries.to_be_bytes());
    header[32..36].copy_from_slice(&disk.block_len.to_be_bytes());
    if disk.kind == 4 {
        header[40..56].copy_from_slice(&disk.parent_uuid);
        for (place, unit) in disk.parent.encode_utf16().take(255).enumerate() {
            header[64 + 2 * place..66 + 2 * place].copy_from_slice(&unit.to_be_bytes());
        }
    }
    let mut names = Vec::new();
    for (place, (code, text)) in disk.locators.iter().enumerate() {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let at = 576 + 24 * place;
        header[at..at + 4].copy_from_slice(code);
        header[at + 4..at + 8].copy_from_slice(&512u32.to_be_bytes());
        header[at + 8..at + 12].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        header[at + 16..at + 24].copy_from_slice(&((1536 + table_len + names.len()) as u64).to_be_bytes());
        names.extend(&bytes);
        names.resize(names.len().next_multiple_of(512), 0);
    }
    seal(&mut header, 36);
    let mut table = vec![0xff; table_len];
    let mut data = Vec::new();
    let bitmap_len = (disk.block_len as usize / 4096).next_multiple_of(512);
    for (place, fill) in &disk.blocks {
        let sector = ((1536 + table_len + names.len() + data.len()) / 512) as u32;
        table[4 * *place as usize..][..4].copy_from_slice(&sector.to_be_bytes());
        data.extend(disk.bitmap.iter().cycle().take(bitmap_len));
        data.extend(vec![*fill; disk.block_len as usize]);
    }
    [footer.clone(), header, table, names, data, footer].concat()
}
