//! Small changes to the bytes of images that the real tools will not make.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes over a place in a file.
pub fn write(path: &Path, at: u64, bytes: &[u8]) -> Result<(), String> {
    let file = OpenOptions::new().write(true).open(path).map_err(|e| e.to_string())?;
    file.write_all_at(bytes, at).map_err(|e| e.to_string())
}

/// The bytes at a place in a file.
pub fn read(path: &Path, at: u64, len: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len];
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.read_exact_at(&mut bytes, at).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The big-endian number at a place in a file.
pub fn be(path: &Path, at: u64, len: usize) -> Result<u64, String> {
    Ok(read(path, at, len)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

/// Makes the file this long.
pub fn set_len(path: &Path, len: u64) -> Result<(), String> {
    let file = OpenOptions::new().write(true).open(path).map_err(|e| e.to_string())?;
    file.set_len(len).map_err(|e| e.to_string())
}

/// An extension of a qcow2 header: its type, where its data lies, how long it is.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// Its type.
    pub kind: u32,
    /// Where its data begins.
    pub at: u64,
    /// The length of its data.
    pub len: u64,
}

/// The extensions of a qcow2 header, the end marker last.
pub fn extensions(path: &Path) -> Result<Vec<Extension>, String> {
    let mut at = if be(path, 4, 4)? >= 3 { be(path, 100, 4)? } else { 72 };
    let mut all = Vec::new();
    loop {
        let found = Extension { kind: be(path, at, 4)? as u32, at: at + 8, len: be(path, at + 4, 4)? };
        all.push(found);
        if found.kind == 0 {
            return Ok(all);
        }
        at = found.at + found.len.next_multiple_of(8);
    }
}

/// The extension of one type.
pub fn extension(path: &Path, kind: u32) -> Result<Extension, String> {
    let all = extensions(path)?;
    all.into_iter().find(|e| e.kind == kind).ok_or_else(|| format!("no extension {kind:#x}"))
}

/// Where each entry of a qcow2's snapshot table begins.
pub fn snapshots(path: &Path) -> Result<Vec<u64>, String> {
    let (count, mut at) = (be(path, 60, 4)?, be(path, 64, 8)?);
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(at);
        at += 40 + be(path, at + 36, 4)? + be(path, at + 12, 2)? + be(path, at + 14, 2)?;
        at = at.next_multiple_of(8);
    }
    Ok(all)
}
