//! A large qcow2 with few clusters, which lie all over a long file; sound in every count.

use super::fragmented::header;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What it is to be like. All numbers but the last are powers of two.
#[derive(Clone, Copy, Debug)]
pub struct Thin {
    /// Clusters are 2 to this power long.
    pub cluster_bits: u32,
    /// Size of the disk in bytes.
    pub size: u64,
    /// L2 tables, at equal distances.
    pub tables: u64,
    /// Clusters that each of them leads to.
    pub each: u64,
    /// Clusters of the file that these lie among, none beside the one before.
    pub spread: u64,
    /// So many clusters are counted though nobody has them.
    pub leaked: u64,
}

const COPIED: u64 = 1 << 63;
/// An odd factor goes through all clusters, in jumps.
const JUMP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Thin {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Writes it. Nothing but tables is written: the guest's clusters are holes of the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let cluster = self.cluster();
        let in_clusters = |bytes: u64| bytes.div_ceil(cluster);
        let entries = cluster / 8;
        let (l1_len, counts) = ((self.size / cluster).div_ceil(entries), cluster / 2);
        assert!(self.tables * (self.each + 1) + self.leaked <= self.spread, "they do not fit");
        // There is a place for every block of counts; those that have nothing to say stay holes that nothing leads to.
        let blocks_max = (self.spread + self.spread / 64) / counts + 64;
        let (reftable, l1) = (1, 1 + in_clusters(blocks_max * 8));
        let first_block = l1 + in_clusters(l1_len * 8);
        let first = first_block + blocks_max;
        let end = first + self.spread;
        let file = File::create(path)?;
        file.set_len(end * cluster)?;
        let mut has_block = vec![false; blocks_max as usize];
        let word = |at: u64, value: u64| file.write_all_at(&value.to_be_bytes(), at);
        // Those that have just been needed.
        let new_blocks = RefCell::new(Vec::new());
        let mut count = |number: u64| -> io::Result<()> {
            let block = number / counts;
            let at = (first_block + block) * cluster;
            if !std::mem::replace(&mut has_block[block as usize], true) {
                word(reftable * cluster + block * 8, at)?;
                new_blocks.borrow_mut().push(block);
            }
            file.write_all_at(&[0, 1], at + number % counts * 2)
        };
        (0..first_block).try_for_each(&mut count)?;
        let mut given = 0;
        let mut place = || {
            given += 1;
            first + (u64::wrapping_mul(given, JUMP) & (self.spread - 1))
        };
        for table in 0..self.tables {
            let own = place();
            count(own)?;
            word(l1 * cluster + table * (l1_len / self.tables).max(1) * 8, (own * cluster) | COPIED)?;
            let mut bytes = Vec::new();
            for _ in 0..self.each {
                let host = place();
                count(host)?;
                bytes.extend(((host * cluster) | COPIED).to_be_bytes());
            }
            file.write_all_at(&bytes, own * cluster)?;
        }
        (0..self.leaked).try_for_each(|_| count(place()))?;
        // Blocks are counted as well, which may need one more of them.
        loop {
            let Some(block) = new_blocks.borrow_mut().pop() else { break };
            count(first_block + block)?;
        }
        let tables = [(reftable, in_clusters(blocks_max * 8)), (l1, l1_len)];
        file.write_all_at(&header(self.cluster_bits, self.size, tables), 0)
    }
}
