//! How formats write names and identifiers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A number as qemu-img tells it of corrupt images.
pub fn hex(number: u64) -> String {
    if number == 0 { "0".into() } else { format!("{number:#x}") }
}

/// A text in an image ends with its first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// An identifier whose first three groups are little-endian, as VHDX and VDI keep it.
pub fn guid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
    let [i, j, k, l, m, n, o, p] = rest;
    uuid(&[d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
}

/// An identifier kept in the order in which it is written, as in VHD.
pub fn uuid(bytes: &[u8; 16]) -> String {
    let whole = u128::from_be_bytes(*bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        whole >> 96,
        whole >> 80 & 0xffff,
        whole >> 64 & 0xffff,
        whole >> 48 & 0xffff,
        whole & 0xffff_ffff_ffff
    )
}

/// An identifier from its text.
pub fn from_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'-').collect();
    let text = core::str::from_utf8(&digits).ok().filter(|text| text.len() == 32)?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// UTF-16 code units of the bytes of UTF-8, if they are that.
pub fn to_utf16(text: &[u8]) -> Option<Vec<u16>> {
    core::str::from_utf8(text).ok().map(|text| text.encode_utf16().collect())
}

/// UTF-16 code units as the bytes of UTF-8, up to the first zero; what is not text becomes U+FFFD.
pub fn from_utf16(units: impl Iterator<Item = u16>) -> Vec<u8> {
    let text: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.into_bytes()
}

/// [`from_utf16`] of little-endian bytes.
pub fn from_utf16le(bytes: &[u8]) -> Vec<u8> {
    from_utf16(bytes.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)))
}

/// [`from_utf16`] of big-endian bytes.
pub fn from_utf16be(bytes: &[u8]) -> Vec<u8> {
    from_utf16(bytes.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair)))
}
