//! Bochs growing disks, which qemu-img reads but cannot write.

/// What a disk is made of.
pub struct Bochs {
    /// Version 1 instead of 2: the disk's size lies four bytes earlier.
    pub old: bool,
    /// Bytes of an extent: a power of two, at least 512.
    pub extent: u32,
    /// Entries of the catalog.
    pub catalog: u32,
    /// The disk's size in bytes.
    pub disk: u64,
    /// The extents that hold data, each filled with one byte.
    pub extents: Vec<(u32, u8)>,
    /// Further extents: which, the bits of its sectors, its bytes.
    pub more: Vec<(u32, Vec<u8>, Vec<u8>)>,
}

impl Default for Bochs {
    fn default() -> Self {
        Bochs {
            old: false,
            extent: 65536,
            catalog: 16,
            disk: 1 << 20,
            extents: vec![(0, b'a'), (5, b'b')],
            more: Vec::new(),
        }
    }
}

/// The image.
pub fn build(disk: &Bochs) -> Vec<u8> {
    let bitmap_blocks = (disk.extent / 512).div_ceil(8 * 512).max(1);
    let mut header = vec![0u8; 512];
    header[..22].copy_from_slice(b"Bochs Virtual HD Image");
    header[32..39].copy_from_slice(b"Redolog");
    header[48..55].copy_from_slice(b"Growing");
    let words = [if disk.old { 0x10000 } else { 0x20000 }, 512, disk.catalog, bitmap_blocks * 512, disk.extent];
    for (place, word) in words.iter().enumerate() {
        header[64 + 4 * place..68 + 4 * place].copy_from_slice(&u32::to_le_bytes(*word));
    }
    let size_at = if disk.old { 84 } else { 88 };
    header[size_at..size_at + 8].copy_from_slice(&disk.disk.to_le_bytes());
    let mut catalog = vec![u32::MAX; disk.catalog as usize];
    let mut data = Vec::new();
    for (number, (place, fill)) in disk.extents.iter().enumerate() {
        catalog[*place as usize] = number as u32;
        let mut bitmap = vec![0u8; (bitmap_blocks * 512) as usize];
        let sectors = (disk.extent / 512) as usize;
        (0..sectors).for_each(|s| bitmap[s / 8] |= 1 << (s % 8));
        data.extend(bitmap);
        data.extend(vec![*fill; disk.extent as usize]);
    }
    for (number, (place, bits, bytes)) in disk.more.iter().enumerate() {
        catalog[*place as usize] = (disk.extents.len() + number) as u32;
        let mut bitmap = bits.clone();
        bitmap.resize((bitmap_blocks * 512) as usize, 0);
        data.extend(bitmap);
        data.extend(bytes);
    }
    let mut out = header;
    out.extend(catalog.iter().flat_map(|entry| entry.to_le_bytes()));
    out.extend(data);
    out
}
