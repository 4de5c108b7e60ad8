//! Binary values written as text.

use alloc::vec;
use alloc::vec::Vec;
use base64ct::{Base64, Encoding};

/// The bytes that padded base64 of one line stands for.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len()];
    let len = Base64::decode(text, &mut bytes).ok()?.len();
    bytes.truncate(len);
    Some(bytes)
}
