//! Files in memory, behind the same door that a cell has.

use instar_image::file::Hole;
use instar_image::{Bytes, FileId, Granted, Io, Kind, Result, Role};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Files by number, and which names lead to which.
#[derive(Default)]
pub struct MemIo {
    files: RefCell<Vec<Vec<u8>>>,
    names: HashMap<Vec<u8>, Vec<u8>>,
    /// Names that were asked for, in order.
    pub asked: RefCell<Vec<Vec<u8>>>,
    /// How often holes were asked for.
    pub looks: Cell<u32>,
}

impl MemIo {
    /// One file, which is number 0.
    pub fn new(top: Vec<u8>) -> Self {
        MemIo { files: RefCell::new(vec![top]), ..Self::default() }
    }

    /// A further file that images may name.
    #[must_use]
    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.names.insert(name.as_bytes().to_vec(), bytes);
        self
    }

    /// The grant of file 0.
    pub fn top(&self) -> Granted {
        self.granted(0)
    }

    fn granted(&self, id: usize) -> Granted {
        let len = self.files.borrow().get(id).map_or(0, Vec::len) as u64;
        Granted { id: FileId(id as u32), len, allocated: len, writable: false, pinned: None::<Bytes>, suggested: None }
    }
}

impl Io for MemIo {
    fn len(&self, file: FileId) -> u64 {
        self.granted(file.0 as usize).len
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let files = self.files.borrow();
        let bytes = files
            .get(file.0 as usize)
            .and_then(|f| f.get(usize::try_from(at).ok()?..)?.get(..buf.len()))
            .ok_or_else(|| Kind::Io.what("read outside the file").file(file).at(at))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn related(&self, from: FileId, _role: Role, name: &[u8]) -> Result<Granted> {
        self.asked.borrow_mut().push(name.to_vec());
        let bytes = self.names.get(name).ok_or_else(|| Kind::Refused.what("no such file").file(from))?;
        self.files.borrow_mut().push(bytes.clone());
        Ok(self.granted(self.files.borrow().len() - 1))
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        self.looks.set(self.looks.get() + 1);
        // As a file system would: whole blocks of zeroes are holes.
        const BLOCK: usize = 4096;
        let mut bytes = vec![0; len as usize];
        self.read(file, at, &mut bytes)?;
        let first = (BLOCK - at as usize % BLOCK).min(bytes.len());
        let (head, rest) = bytes.split_at(first);
        let blocks = [head].into_iter().chain(rest.chunks(BLOCK)).filter(|block| !block.is_empty());
        let mut runs: Vec<Hole> = Vec::new();
        for block in blocks {
            let is_hole = block.iter().all(|byte| *byte == 0);
            match runs.last_mut() {
                Some(last) if last.is_hole == is_hole => last.len += block.len() as u64,
                _ => runs.push(Hole { len: block.len() as u64, is_hole }),
            }
        }
        Ok(runs)
    }
}
