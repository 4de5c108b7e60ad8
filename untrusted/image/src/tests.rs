//! What reading through a file and its cache must be like, held against the plain bytes.

use crate::cache::Cache;
use crate::file::{File, Io};
use crate::{FileId, Granted, Kind, Result, Role};
use alloc::vec::Vec;
use core::cell::Cell;

/// A file of known bytes that counts how often it is read.
struct Disk {
    bytes: Vec<u8>,
    reads: Cell<usize>,
}

impl Disk {
    fn new(len: usize) -> Disk {
        let bytes = (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap_or(0)).collect();
        Disk { bytes, reads: Cell::new(0) }
    }

    fn granted(&self) -> Granted {
        let len = self.bytes.len() as u64;
        Granted { id: FileId(0), len, allocated: len, writable: false, pinned: None, suggested: None }
    }
}

impl Io for Disk {
    fn len(&self, _file: FileId) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        self.reads.set(self.reads.get() + 1);
        let at = usize::try_from(at).expect("small");
        let bytes = self.bytes.get(at..at + buf.len()).ok_or_else(|| Kind::Io.what("outside").file(file))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn related(&self, from: FileId, _role: Role, _name: &[u8]) -> Result<Granted> {
        Err(Kind::Refused.what("nothing else").file(from))
    }
}

#[test]
fn any_range_reads_as_the_bytes_and_zeroes_beyond() {
    for len in [0, 1, 511, 4096, 70_000, 200_001] {
        let disk = Disk::new(len);
        let cache = Cache::new(&disk);
        let file = File::new(&cache, &disk.granted());
        let mut seed = 1u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(seed >> 33).expect("small") % (len + 1000);
            let size = usize::try_from(seed >> 20 & 0x3fff).expect("small");
            let want: Vec<u8> = (at..at + size).map(|i| disk.bytes.get(i).copied().unwrap_or(0)).collect();
            assert_eq!(file.read_vec(at as u64, size), Ok(want), "{size} from {at} of {len}");
        }
    }
}

#[test]
fn small_reads_that_lie_together_are_fetched_once() {
    let disk = Disk::new(300_000);
    let cache = Cache::new(&disk);
    let file = File::new(&cache, &disk.granted());
    (0..600u64).for_each(|i| assert!(file.read_as::<u64>(i * 100).is_ok()));
    assert_eq!(disk.reads.get(), 1);
    assert!(file.read_vec(0, 100_000).is_ok());
    assert_eq!(disk.reads.get(), 2, "a large one goes past the cache");
}

#[test]
fn a_part_is_a_file_of_its_own() {
    let disk = Disk::new(10_000);
    let part = File::slice(&disk, FileId(0), 1000, 500);
    assert_eq!(part.len(), 500);
    let want: Vec<u8> = disk.bytes.iter().skip(1490).take(10).copied().chain([0; 10]).collect();
    assert_eq!(part.read_vec(490, 20), Ok(want));
    assert_eq!(part.read_vec(u64::MAX, 4), Ok([0; 4].to_vec()));
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let disk = Disk::new(10);
    let lying = Granted { len: 100, ..disk.granted() };
    let error = File::new(&disk, &lying).read_vec(0, 50).expect_err("there is less");
    assert_eq!((error.kind, error.file), (Kind::Io, Some(FileId(0))));
}
