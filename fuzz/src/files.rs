//! Files made of bytes, as a worker sees them.

use crate::Reader;
use instar_image::{FileId, Granted, Io, Kind, Result, Role};
use std::cell::Cell;

/// Files in their order; whatever name an image asks for, it gets the next one.
pub struct Files<'a> {
    files: Vec<&'a [u8]>,
    granted: Cell<usize>,
}

impl<'a> Files<'a> {
    /// Up to three files with their lengths before them, and one more that takes the rest: the image, which comes first.
    pub fn new(mut input: Reader<'a>) -> Files<'a> {
        let count = input.byte() % 4;
        let mut files: Vec<&[u8]> = Vec::new();
        for _ in 0..count {
            let len = input.take(3).iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte));
            files.push(input.take(len));
        }
        files.insert(0, input.0);
        Files { files, granted: Cell::new(1) }
    }

    /// The grant of that file.
    pub fn grant(&self, id: usize) -> Granted {
        let len = self.files.get(id).map_or(0, |f| f.len()) as u64;
        Granted { id: FileId(id as u32), len, allocated: len, writable: false, pinned: None, suggested: None }
    }
}

impl Io for Files<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.grant(file.0 as usize).len
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        // A worker that reads outside what it was granted is stopped, so this is a bug.
        let from = usize::try_from(at).expect("an offset inside");
        let bytes = self.files[file.0 as usize].get(from..).and_then(|f| f.get(..buf.len())).expect("a range inside");
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn related(&self, from: FileId, _role: Role, _name: &[u8]) -> Result<Granted> {
        let next = self.granted.get();
        if next >= self.files.len() {
            return Err(Kind::Refused.what("").file(from));
        }
        self.granted.set(next + 1);
        Ok(self.grant(next))
    }
}
