//! Files in a folder, behind the same door that a cell has, without a cell.

use crate::staged::{STAGE, Staged};
use instar_image::file::Hole;
use instar_image::{FileId, Granted, Io, Kind, Result, Role};
use rustix::fs::{SeekFrom, seek};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The files of a folder that have been opened, by number.
pub struct Folder {
    path: PathBuf,
    files: Mutex<Vec<Arc<File>>>,
    pub(crate) stage: Staged,
}

impl Folder {
    /// A folder of which nothing has been opened.
    pub fn new(path: &Path) -> Folder {
        Folder { path: path.to_path_buf(), files: Mutex::default(), stage: Staged::new(STAGE) }
    }

    pub(crate) fn path_of(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    /// Opens a file of the folder.
    pub fn open(&self, name: &[u8]) -> Result<Granted> {
        self.open_as(name, false)
    }

    /// Opens a file of the folder to be written to.
    pub fn open_to_write(&self, name: &[u8]) -> Result<Granted> {
        self.open_as(name, true)
    }

    fn open_as(&self, name: &[u8], writable: bool) -> Result<Granted> {
        let file = File::options().read(true).write(writable).open(self.path_of(name));
        let file = file.map_err(|_| Kind::Io.what("no such file"))?;
        let (len, allocated) =
            file.metadata().map(|m| (m.len(), m.blocks() * 512)).map_err(|_| Kind::Io.what("no length"))?;
        let mut files = self.files.lock().expect("no panic before");
        files.push(Arc::new(file));
        let id = FileId(files.len() as u32 - 1);
        Ok(Granted { id, len, allocated, writable, pinned: None, suggested: None })
    }

    pub(crate) fn file(&self, id: FileId) -> Arc<File> {
        self.files.lock().expect("no panic before")[id.0 as usize].clone()
    }
}

impl Io for Folder {
    fn len(&self, file: FileId) -> u64 {
        self.file(file).metadata().map_or(0, |m| m.len())
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let read = self.file(file).read_exact_at(buf, at);
        read.map_err(|_| Kind::Io.what("read outside the file").file(file).at(at))
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        // What belongs to an image that is written to is written to as well.
        let writable = role == Role::Extent;
        self.open_as(name, writable).or_else(|_| self.open(name)).map_err(|error| error.file(from))
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        let file = self.file(file);
        let data = seek(&*file, SeekFrom::Data(at)).unwrap_or(u64::MAX);
        if data > at {
            return Ok(vec![Hole { len: len.min(data - at), is_hole: true }]);
        }
        let hole = seek(&*file, SeekFrom::Hole(at)).unwrap_or(u64::MAX);
        Ok(vec![Hole { len: len.min(hole.saturating_sub(at)), is_hole: false }])
    }
}
