//! The parts of a program that have to be in memory, read from an ELF file of our own making.

use std::ops::Range;

/// A stretch of memory of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it lies in memory.
    pub at: usize,
    /// How long it is there; what the file does not give is zero.
    pub len: usize,
    /// Where its bytes lie in the file.
    pub bytes: Range<usize>,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
}

/// Entry point and segments.
pub fn parse(program: &[u8]) -> Option<(usize, Vec<Segment>)> {
    let number = |at: usize, len: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes.get_mut(..len)?.copy_from_slice(program.get(at..at.checked_add(len)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    if program.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (entry, headers, size, count) = (number(24, 8)?, number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut segments = Vec::new();
    for header in (0..count).map(|i| headers + i * size) {
        const LOAD: usize = 1;
        if number(header, 4)? != LOAD {
            continue;
        }
        let (flags, offset) = (number(header + 4, 4)?, number(header + 8, 8)?);
        let (at, in_file, len) = (number(header + 16, 8)?, number(header + 32, 8)?, number(header + 40, 8)?);
        let bytes = offset..offset.checked_add(in_file)?;
        program.get(bytes.clone())?;
        segments.push(Segment { at, len, bytes, write: flags & 2 != 0, execute: flags & 1 != 0 });
    }
    Some((entry, segments))
}
