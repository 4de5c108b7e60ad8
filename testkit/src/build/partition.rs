//! Partitioned disks: a master boot record, and a GUID partition table.

/// Four primary partitions as (boot flag, type), in a disk of `len` bytes.
pub fn mbr(len: usize, entries: [(u8, u8); 4]) -> Vec<u8> {
    let mut disk = vec![0; len.max(512)];
    for (index, (boot, kind)) in entries.into_iter().enumerate() {
        let at = 446 + 16 * index;
        disk[at] = boot;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&2048u32.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&4096u32.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

/// A disk of `len` bytes with a protective master boot record and a valid, empty GUID partition table; sectors are
/// `sector` bytes long.
pub fn gpt(len: usize, sector: usize) -> Vec<u8> {
    let mut disk = mbr(len.max(4 * sector), [(0, 0xEE), (0, 0), (0, 0), (0, 0)]);
    let mut header = vec![0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    header[24..32].copy_from_slice(&1u64.to_le_bytes());
    let last = (disk.len() / sector - 1) as u64;
    header[32..40].copy_from_slice(&last.to_le_bytes());
    header[40..48].copy_from_slice(&3u64.to_le_bytes());
    header[48..56].copy_from_slice(&last.to_le_bytes());
    header[72..80].copy_from_slice(&2u64.to_le_bytes());
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    let crc = crc32(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk[sector..sector + 92].copy_from_slice(&header);
    disk
}

/// CRC-32 as Ethernet has it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}
