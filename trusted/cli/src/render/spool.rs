//! Bytes that wait until it is known whether they may go out: in memory, or, if they are many, in a file without a name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;

/// So many wait in memory.
const MEMORY_MAX: usize = 8 << 20;
/// So many are handed back at once, rounded up to whole records.
const PIECE: usize = 256 << 10;

/// Bytes that wait.
#[derive(Default)]
pub struct Spool {
    memory: Vec<u8>,
    /// Those before the ones in memory.
    file: Option<File>,
}

impl Spool {
    /// Adds bytes at the end.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.memory.len() + bytes.len() > MEMORY_MAX && !self.memory.is_empty() {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(nameless()?),
            };
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    /// Hands all of them back from the beginning, in pieces of whole records; of so many bytes each of those is.
    pub fn replay(self, record: usize, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let piece = PIECE.next_multiple_of(record);
        let mut rest = self.memory.as_slice();
        if let Some(mut file) = self.file {
            let mut left = file.stream_position()?;
            file.rewind()?;
            let mut buffer = vec![0; piece];
            while left > 0 {
                let have = usize::try_from(left).unwrap_or(usize::MAX).min(piece);
                file.read_exact(&mut buffer[..have])?;
                left -= have as u64;
                // A record may lie half in the file.
                let more = (have.next_multiple_of(record) - have).min(rest.len());
                buffer.truncate(have);
                buffer.extend_from_slice(&rest[..more]);
                rest = &rest[more..];
                take(&buffer)?;
                buffer.resize(piece, 0);
            }
        }
        rest.chunks(piece).try_for_each(take)
    }
}

/// A file that nobody else can open and that is gone when it is closed.
fn nameless() -> io::Result<File> {
    let folder = std::env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    if let Ok(file) = options.clone().custom_flags(flags).open(&folder) {
        return Ok(file);
    }
    // Some file systems only have files with names.
    for number in 0..1000 {
        let path = folder.join(format!(".instar-{}-{number}", std::process::id()));
        match options.clone().create_new(true).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_goes_in_comes_out_in_whole_records() {
        const RECORD: usize = 24;
        for records in [0, 1, 1000, 400_000, 1_000_000] {
            for step in [RECORD, RECORD * 4096] {
                let byte = |at: usize| (at % 251) as u8;
                let all: Vec<u8> = (0..records * RECORD).map(byte).collect();
                let mut spool = Spool::default();
                all.chunks(step).for_each(|some| spool.add(some).unwrap());
                assert_eq!(spool.file.is_some(), all.len() > MEMORY_MAX, "{records}");
                assert!(spool.memory.capacity() <= 2 * MEMORY_MAX);
                let mut at = 0;
                let check = |piece: &[u8]| {
                    assert!(!piece.is_empty() && piece.len().is_multiple_of(RECORD) && piece.len() <= PIECE + RECORD);
                    assert_eq!(piece, &all[at..at + piece.len()]);
                    at += piece.len();
                    Ok(())
                };
                spool.replay(RECORD, check).unwrap();
                assert_eq!(at, all.len());
            }
        }
    }

    #[test]
    fn records_may_come_in_pieces() {
        let all: Vec<u8> = (0..MEMORY_MAX * 2 / 3 * 3).map(|at| (at % 241) as u8).collect();
        let mut spool = Spool::default();
        all.chunks(1001).for_each(|some| spool.add(some).unwrap());
        let mut out = Vec::new();
        let check = |piece: &[u8]| {
            assert_eq!(piece.len() % 3, 0);
            out.extend_from_slice(piece);
            Ok(())
        };
        spool.replay(3, check).unwrap();
        assert!(out == all);
    }
}
