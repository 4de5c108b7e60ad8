//! The order in which qemu-img walks a dictionary: that of a hash table of 512 buckets.

/// Sorts entries, given in the order of insertion, into the order in which qemu-img prints them.
///
/// Buckets are walked upwards; inside a bucket the entry inserted last comes first.
pub fn order<K: AsRef<[u8]>, T>(entries: &mut [(K, T)]) {
    entries.reverse();
    entries.sort_by_key(|(key, _)| bucket(key.as_ref()));
}

/// The bucket of a key: Samba's tdb hash, modulo 512.
fn bucket(key: &[u8]) -> u32 {
    let len = key.len() as u32;
    let mut value = 0x238F_13AFu32.wrapping_mul(len);
    for (i, byte) in key.iter().enumerate() {
        value = value.wrapping_add(u32::from(*byte) << ((i * 5) % 24));
    }
    1_103_515_243u32.wrapping_mul(value).wrapping_add(12345) % 512
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(words: &str) -> String {
        let mut entries: Vec<(&str, ())> = words.split(' ').rev().map(|w| (w, ())).collect();
        order(&mut entries);
        entries.iter().map(|(w, ())| *w).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_newest_comes_first_in_a_bucket() {
        let mut entries = vec![("format", 1), ("ivgen-hash-alg", 2)];
        order(&mut entries);
        assert_eq!(entries, [("ivgen-hash-alg", 2), ("format", 1)]);
    }

    #[test]
    fn the_orders_seen_in_the_wild() {
        for seen in [
            "limits children backing-filename-format virtual-size filename cluster-size format actual-size format-specific encrypted backing-filename dirty-flag",
            "children snapshots virtual-size filename cluster-size format actual-size format-specific full-backing-filename backing-filename dirty-flag",
            "icount vm-clock-nsec name date-sec date-nsec vm-clock-sec id vm-state-size",
            "compat compression-type lazy-refcounts bitmaps refcount-bits data-file data-file-raw corrupt extended-l2",
            "compat compression-type lazy-refcounts bitmaps refcount-bits encrypt data-file-raw corrupt extended-l2",
            "flags name granularity",
            "ivgen-alg detached-header hash-alg cipher-alg uuid ivgen-hash-alg cipher-mode slots payload-offset master-key-iters",
            "active iters key-offset stripes",
            "cid parent-cid create-type extents",
            "compressed virtual-size filename cluster-size format",
            "image-end-offset compressed-clusters total-clusters corruptions check-errors leaks allocated-clusters filename format fragmented-clusters",
            "bitmaps required fully-allocated",
            "offset driver size file",
            "throttle-group driver file",
            "driver file key-secret",
            "driver filename",
            "fat-type dir driver floppy rw",
            "read-zeroes driver size",
        ] {
            assert_eq!(ordered(seen), seen);
        }
    }
}
