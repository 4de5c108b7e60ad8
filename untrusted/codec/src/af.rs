//! Anti-forensic splitting: a key is blown up so that losing any small part of the material destroys it.

use crate::hash::Hash;
use crate::modes::xor;
use alloc::vec;
use alloc::vec::Vec;

/// The key of `key_len` bytes that `material` was split from; every `key_len` bytes of it are a stripe.
pub fn merge(hash: &Hash, material: &[u8], key_len: usize) -> Vec<u8> {
    let mut key = vec![0; key_len];
    let last = last_stripe(material.len(), key_len);
    if let Some((stripes, last)) = last.and_then(|at| material.split_at_checked(at)) {
        condense(hash, stripes, &mut key);
        xor(&mut key, last);
    }
    key
}

/// Splits a key: all of `material` but its last stripe is random already, and the last one becomes what completes it.
pub fn split(hash: &Hash, key: &[u8], material: &mut [u8]) {
    let last = last_stripe(material.len(), key.len());
    if let Some((stripes, last)) = last.and_then(|at| material.split_at_mut_checked(at)) {
        last.fill(0);
        condense(hash, stripes, last);
        xor(last, key);
    }
}

fn last_stripe(len: usize, key_len: usize) -> Option<usize> {
    len.checked_sub(key_len)
}

fn condense(hash: &Hash, stripes: &[u8], key: &mut [u8]) {
    for stripe in stripes.chunks_exact(key.len().max(1)) {
        xor(key, stripe);
        diffuse(hash, key);
    }
}

/// Every part as long as the hash is replaced by the hash of its number and itself.
fn diffuse(hash: &Hash, key: &mut [u8]) {
    for (part, number) in key.chunks_mut(hash.len).zip(0u32..) {
        let digest = hash.digest(&[&number.to_be_bytes(), part]);
        part.iter_mut().zip(digest).for_each(|(byte, new)| *byte = new);
    }
}
