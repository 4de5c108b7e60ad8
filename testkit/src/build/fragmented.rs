//! A large qcow2 whose clusters lie all over its file, none beside the one before; sound in every count.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What it is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Fragmented {
    /// Clusters are 2 to this power long.
    pub cluster_bits: u32,
    /// Clusters of the disk; a power of two, at least two tables' worth.
    pub clusters: u64,
    /// So many neighbours lie about in one part of the file; a power of two.
    pub spread: u64,
}

const COPIED: u64 = 1 << 63;

impl Fragmented {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.clusters << self.cluster_bits
    }

    /// Writes it. Nothing but tables is written: the guest's clusters are holes of the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let cluster = self.cluster();
        let entries = cluster / 8;
        let tables = self.clusters / entries;
        let in_clusters = |bytes: u64| bytes.div_ceil(cluster);
        let l1_clusters = in_clusters(tables * 8);
        // Every cluster has a count of two bytes; a block of them fills a cluster.
        let counts = cluster / 2;
        let head = |blocks: u64| 1 + in_clusters(blocks * 8) + blocks + l1_clusters + tables;
        let mut blocks = 1;
        while (head(blocks) + self.clusters).div_ceil(counts) > blocks {
            blocks += 1;
        }
        let reftable = 1;
        let first_block = reftable + in_clusters(blocks * 8);
        let l1 = first_block + blocks;
        let l2 = l1 + l1_clusters;
        let data = head(blocks);
        let end = data + self.clusters;
        let file = File::create(path)?;
        file.set_len(end * cluster)?;
        let head = header(self.cluster_bits, self.size(), [(reftable, in_clusters(blocks * 8)), (l1, tables)]);
        file.write_all_at(&head, 0)?;
        let places = |first: u64, count: u64, flag: u64| -> Vec<u8> {
            (0..count).flat_map(|n| (((first + n) * cluster) | flag).to_be_bytes()).collect()
        };
        file.write_all_at(&places(first_block, blocks, 0), reftable * cluster)?;
        for block in 0..blocks {
            let used = end.saturating_sub(block * counts).min(counts);
            let ones = [0u8, 1].repeat(used as usize);
            file.write_all_at(&ones, (first_block + block) * cluster)?;
        }
        file.write_all_at(&places(l2, tables, COPIED), l1 * cluster)?;
        for table in 0..tables {
            // An odd factor goes through all clusters, in jumps.
            let place = |entry: u64| {
                let (guest, part) = (table * entries + entry, self.spread - 1);
                let number = (guest & !part) | (guest.wrapping_mul(0x9e37_79b9_7f4a_7c15) & part);
                ((data + number) * cluster) | COPIED
            };
            let bytes: Vec<u8> = (0..entries).flat_map(|entry| place(entry).to_be_bytes()).collect();
            file.write_all_at(&bytes, (l2 + table) * cluster)?;
        }
        Ok(())
    }
}

/// The first bytes of an image: cluster length as a power of two, size of the disk; where the table of blocks of counts lies
/// and how many clusters it has, and where the L1 table lies and how many entries it has.
pub fn header(bits: u32, size: u64, [(reftable, clusters), (l1, tables)]: [(u64, u64); 2]) -> Vec<u8> {
    let word = |n: u64| (n as u32).to_be_bytes().to_vec();
    let long = |n: u64| n.to_be_bytes().to_vec();
    [
        b"QFI\xfb".to_vec(),
        word(3),
        long(0),
        word(0),
        word(bits.into()),
        long(size),
        word(0),
        word(tables),
        long(l1 << bits),
        long(reftable << bits),
        word(clusters),
        word(0),
        long(0),
        long(0),
        long(0),
        long(0),
        word(4),
        word(104),
    ]
    .concat()
}
