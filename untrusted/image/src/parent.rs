//! The parent of a disk that Windows or a Mac made, or will read: paths as those systems write them.

use crate::file::File;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};
use instar_wire::io::{Granted, Role};

/// Names that are tried for one parent.
const NAMES_MAX: usize = 16;

/// Opens the first of `names`, as they stand in an image, that leads to a file.
///
/// A path with a drive, or of another machine, means nothing here: of such a one only the last part is looked for,
/// beside the image. Which names may be followed is not decided here.
pub fn open<'n>(file: &File<'_>, names: impl Iterator<Item = &'n [u8]>) -> Result<Granted> {
    let mut tried: Vec<Vec<u8>> = Vec::new();
    let mut first = None;
    for name in names.map(path).filter(|name| !name.is_empty()) {
        if tried.contains(&name) || tried.len() >= NAMES_MAX {
            continue;
        }
        match file.related(Role::Parent, &name) {
            Ok(granted) => return Ok(granted),
            Err(error) => first = first.or(Some(error)),
        }
        tried.push(name);
    }
    Err(first
        .unwrap_or_else(|| Kind::Corrupt.what("the image does not say which disk it differs from").file(file.id())))
}

/// A path of ours as [`path`] reads it; nothing if it cannot be written in that way. One that does not begin at the root is
/// relative to the disk, with backslashes.
pub fn written(name: &[u8]) -> Option<Vec<u8>> {
    // A backslash would be read as the end of a directory, and something with a colon in front as a drive or a protocol.
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b'\\' | b':' | 0)) {
        return None;
    }
    if name.starts_with(b"/") {
        return Some(name.to_vec());
    }
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let dots: &[u8] = if name.starts_with(b"../") { b"" } else { b".\\" };
    let slashes = name.iter().map(|byte| if *byte == b'/' { b'\\' } else { *byte });
    Some(dots.iter().copied().chain(slashes).collect())
}

/// A path of Windows, a URL of a file or a path of ours, as a path of ours.
fn path(name: &[u8]) -> Vec<u8> {
    if let Some(url) = name.strip_prefix(b"file://") {
        let at = url.iter().position(|byte| *byte == b'/').unwrap_or(url.len());
        return decoded(url.get(at..).unwrap_or_default());
    }
    if !name.contains(&b'\\') && !has_drive(name) {
        return name.to_vec();
    }
    let slashes: Vec<u8> = name.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    let absolute = slashes.starts_with(b"/") || has_drive(&slashes);
    match slashes.rsplit(|byte| *byte == b'/' || *byte == b':').next() {
        Some(last) if absolute => last.to_vec(),
        _ => slashes.strip_prefix(b"./").unwrap_or(&slashes).to_vec(),
    }
}

/// Whether a path begins with a drive, as in `C:`.
fn has_drive(name: &[u8]) -> bool {
    matches!(name, [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// A URL's path without its escapes.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let escape = match rest {
            [b'%', high, low, after @ ..] => digit(high).zip(digit(low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, after));
        out.push(byte);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{path, written};

    #[test]
    fn what_is_written_is_read() {
        for name in ["base.vhd", "../up/base.vhd", "a/b c.vhd", "/srv/base.vhd", ".hidden", "../../x"] {
            assert_eq!(path(&written(name.as_bytes()).unwrap()), name.as_bytes(), "{name}");
        }
        assert_eq!(path(&written(b"./base.vhd").unwrap()), b"base.vhd");
        for name in ["", "a\\b", "c:d", "nbd:x", "a\0b"] {
            assert_eq!(written(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn paths_of_other_systems_become_ours() {
        for (name, ours) in [
            (".\\base.vhd", "base.vhd"),
            ("..\\up\\base.vhd", "../up/base.vhd"),
            ("dir\\base.vhd", "dir/base.vhd"),
            ("C:\\VMs\\base.vhd", "base.vhd"),
            ("c:base.vhd", "base.vhd"),
            ("\\\\?\\Volume{1}\\a\\base.vhd", "base.vhd"),
            ("\\\\host\\share\\base.vhd", "base.vhd"),
            ("/srv/base.vhd", "/srv/base.vhd"),
            ("base.vhd", "base.vhd"),
            ("./base.vhd", "./base.vhd"),
            ("nbd://host/x", "nbd://host/x"),
            ("file:///srv/my%20base%zz.vhd", "/srv/my base%zz.vhd"),
            ("file://localhost/a", "/a"),
            ("file://localhost", ""),
            ("", ""),
        ] {
            assert_eq!(path(name.as_bytes()), ours.as_bytes(), "{name}");
        }
    }
}
