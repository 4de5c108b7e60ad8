//! What reference counts tell about an image as a whole: whether space was set aside for it that was never written to.

use super::disk::REFCOUNT_TABLE_OFFSET;
use super::open::Layout;
use instar_image::{File, Result, Table};

/// Clusters of which the counts are looked at; if it takes more to find out, nothing was set aside.
const LOOKED_AT_MAX: u64 = 1 << 30;
/// Counts are read in pieces of so many bytes.
const PIECE: u64 = 64 << 10;

/// Whether more clusters of the file are in use than it has space for: by a tenth of all of them, and two at least.
///
/// That is how qemu-img tells that metadata alone were set aside. Counts that cannot be read mean that it was not so.
pub fn exceed_space(file: &File<'_>, layout: &Layout) -> bool {
    let space = file.allocated() / layout.cluster_len;
    let enough = (space.saturating_mul(10) / 9).max(space.saturating_add(2));
    let clusters = file.len().div_ceil(layout.cluster_len);
    clusters >= enough && counted(file, layout, clusters, enough).unwrap_or(false)
}

/// Whether `enough` of the first clusters are in use.
fn counted(file: &File<'_>, layout: &Layout, clusters: u64, enough: u64) -> Result<bool> {
    let block_bits = layout.cluster_len.saturating_mul(8);
    let per_block = block_bits >> layout.refcount_order;
    let mut table = Table::<8>::new(file.io(), file.id());
    let (mut used, mut seen) = (0u64, 0u64);
    let mut number = 0u64;
    while number < layout.refcounts.count && number.saturating_mul(per_block) < clusters {
        let entries = table.entries(file.place(layout.refcounts.at).at, number, layout.refcounts.count)?;
        for entry in entries {
            let left = clusters.saturating_sub(number.saturating_mul(per_block));
            number = number.saturating_add(1);
            let at = u64::from_be_bytes(*entry) & REFCOUNT_TABLE_OFFSET;
            if left == 0 || !at.is_multiple_of(layout.cluster_len) {
                return Ok(false);
            }
            if at == 0 {
                continue;
            }
            seen = seen.saturating_add(per_block);
            used = used.saturating_add(in_block(file, at, left.min(per_block), layout.refcount_order)?);
            if used >= enough {
                return Ok(true);
            }
            if seen > LOOKED_AT_MAX {
                return Ok(false);
            }
        }
    }
    Ok(false)
}

/// How many of a block's first counts are not zero.
fn in_block(file: &File<'_>, at: u64, counts: u64, order: u32) -> Result<u64> {
    let (mut used, mut done) = (0u64, 0u64);
    while done < counts {
        let piece_counts = (PIECE.saturating_mul(8) >> order).min(counts.saturating_sub(done));
        let from = at.saturating_add((done << order) / 8);
        let len = (piece_counts << order).div_ceil(8);
        let mut bytes = file.read_vec(from, usize::try_from(len).unwrap_or(0))?;
        // Of counts that share the last byte with wanted ones, nothing is to be seen.
        let bits = (piece_counts << order) % 8;
        if let (true, Some(last)) = (bits > 0, bytes.last_mut()) {
            *last &= u8::MAX.checked_shr(8u32.saturating_sub(u32::try_from(bits).unwrap_or(0))).unwrap_or(0);
        }
        used = used.saturating_add(not_zero(&bytes, order));
        done = done.saturating_add(piece_counts);
    }
    Ok(used)
}

fn not_zero(bytes: &[u8], order: u32) -> u64 {
    let narrow = |marks: u8, folds: &[u32]| {
        let marked = |byte: &u8| (folds.iter().fold(*byte, |all, fold| all | byte >> fold) & marks).count_ones();
        bytes.iter().map(marked).map(u64::from).fold(0, u64::saturating_add)
    };
    match order {
        0 => narrow(0xff, &[]),
        1 => narrow(0x55, &[1]),
        2 => narrow(0x11, &[1, 2, 3]),
        _ => {
            let width = 1usize.checked_shl(order.saturating_sub(3)).unwrap_or(1);
            let used = bytes.chunks_exact(width).filter(|count| count.iter().any(|byte| *byte != 0)).count();
            u64::try_from(used).unwrap_or(0)
        }
    }
}
