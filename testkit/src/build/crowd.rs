//! A small qcow2 with very many snapshots, all of them of nothing; sound in every count.

use super::fragmented::header;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BITS: u32 = 9;
const CLUSTER: u64 = 1 << BITS;
/// Size of the disk.
const SIZE: u64 = 64 << 10;

/// Writes one with `count` snapshots, of which each has a table of its own that leads nowhere. They are called `s1` and so on.
pub fn crowd(path: &Path, count: u64) -> io::Result<()> {
    let in_clusters = |bytes: usize| (bytes as u64).div_ceil(CLUSTER);
    let l1_len = (SIZE / CLUSTER).div_ceil(CLUSTER / 8);
    let entry = |number: u64, l1: u64| -> Vec<u8> {
        let (id, name) = (number.to_string(), format!("s{number}"));
        let mut bytes = [
            &(l1 * CLUSTER).to_be_bytes()[..],
            &(l1_len as u32).to_be_bytes(),
            &(id.len() as u16).to_be_bytes(),
            &(name.len() as u16).to_be_bytes(),
            &[0; 20],
            &24u32.to_be_bytes(),
            &[0; 8],
            &SIZE.to_be_bytes(),
            &[0; 8],
            id.as_bytes(),
            name.as_bytes(),
        ]
        .concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    // Header, table and blocks of counts, the disk's own table, those of the snapshots, and the list of them.
    let list_len: usize = (1..=count).map(|number| entry(number, 0).len()).sum();
    let counts = CLUSTER / 2;
    let most = 2 + count + in_clusters(list_len);
    let blocks = most / (counts - 2) + 2;
    let table = blocks.div_ceil(CLUSTER / 8);
    let (first_block, l1) = (1 + table, 1 + table + blocks);
    let list_at = l1 + 1 + count;
    let end = list_at + in_clusters(list_len);
    assert!(end <= blocks * counts, "too few blocks");
    let file = File::create(path)?;
    file.set_len(end * CLUSTER)?;
    let mut head = header(BITS, SIZE, [(1, table), (l1, l1_len)]);
    head[60..64].copy_from_slice(&(count as u32).to_be_bytes());
    head[64..72].copy_from_slice(&(list_at * CLUSTER).to_be_bytes());
    file.write_all_at(&head, 0)?;
    let places: Vec<u8> = (0..blocks).flat_map(|n| ((first_block + n) * CLUSTER).to_be_bytes()).collect();
    file.write_all_at(&places, CLUSTER)?;
    file.write_all_at(&[0, 1].repeat(end as usize), first_block * CLUSTER)?;
    let list: Vec<u8> = (1..=count).flat_map(|number| entry(number, l1 + number)).collect();
    file.write_all_at(&list, list_at * CLUSTER)
}
