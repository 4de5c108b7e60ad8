//! Files in memory that can be written, as a worker sees them. They may be long, but not hold much.

use crate::Reader;
use instar_image::file::Zeroes;
use instar_image::{Drive, FileId, Freed, Granted, Io, Kind, Place, Result, Role};
use instar_testkit::staged::Staged;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// What a file is kept in.
const PAGE: u64 = 4096;
/// What all files may hold together: an image does not come to that with the little that is written to it.
const PAGES_MAX: usize = (96 << 20) / PAGE as usize;
/// The longest file that an input can have.
const SECTORS_MAX: u32 = (32 << 20) / 512;
/// So much longer an image may become, however large it says its blocks are.
const GROWTH_MAX: u64 = 16 << 30;
/// Where files end, for a worker as for the kernel.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// A file.
#[derive(Clone, Default)]
pub struct File {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    /// How long it is.
    pub len: u64,
}

impl File {
    /// A file of these bytes.
    pub fn of(bytes: &[u8]) -> File {
        let mut file = File::default();
        file.write(0, bytes);
        file
    }

    /// Its sectors and the bytes behind the last, then parts of it: the sector, how many bytes, and those.
    pub fn from_input(mut input: Reader<'_>) -> File {
        let number =
            |input: &mut Reader<'_>| input.take(3).iter().rev().fold(0, |all, byte| all << 8 | u32::from(*byte));
        let sectors = number(&mut input).min(SECTORS_MAX);
        let mut file = File { len: u64::from(sectors) * 512 + u64::from(input.byte()) * 2, ..File::default() };
        while !input.is_empty() {
            let at = u64::from(number(&mut input)) * 64;
            let len = input.take(2).iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte));
            let bytes = input.take(len);
            let room = file.len.saturating_sub(at).min(bytes.len() as u64) as usize;
            file.write(at, &bytes[..room]);
        }
        file
    }

    /// The input that this file is made from.
    pub fn to_input(&self) -> Vec<u8> {
        let mut out = ((self.len / 512) as u32).to_le_bytes()[..3].to_vec();
        out.push((self.len % 512 / 2) as u8);
        for (number, page) in &self.pages {
            let mut at = 0;
            while at < page.len() {
                let is_used = |chunk: &[u8]| chunk.iter().any(|byte| *byte != 0);
                let used = page[at..].chunks(64).take_while(|chunk| is_used(chunk)).count() * 64;
                let end = at + used;
                if used > 0 {
                    out.extend(&((number * PAGE + at as u64) as u32 / 64).to_le_bytes()[..3]);
                    out.extend((used as u16).to_le_bytes());
                    out.extend(&page[at..end]);
                }
                at = end + 64;
            }
        }
        out
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let (number, skip) = ((at + done as u64) / PAGE, ((at + done as u64) % PAGE) as usize);
            let step = (buf.len() - done).min(PAGE as usize - skip);
            match self.pages.get(&number) {
                Some(page) => buf[done..done + step].copy_from_slice(&page[skip..skip + step]),
                None => buf[done..done + step].fill(0),
            }
            done += step;
        }
    }

    /// Its bytes from `at` on, with zeroes behind its end.
    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes);
        bytes
    }

    /// Writes bytes.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (number, skip) = ((at + done as u64) / PAGE, ((at + done as u64) % PAGE) as usize);
            let step = (bytes.len() - done).min(PAGE as usize - skip);
            let piece = &bytes[done..done + step];
            if self.pages.contains_key(&number) || piece.iter().any(|byte| *byte != 0) {
                let page = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE as usize]));
                page[skip..skip + step].copy_from_slice(piece);
            }
            done += step;
        }
        self.len = self.len.max(at + bytes.len() as u64);
    }

    fn zero(&mut self, at: u64, end: u64) {
        let (first, last) = (at.next_multiple_of(PAGE).min(end), (end - end % PAGE).max(at));
        for (from, until) in [(at, first), (last.max(first), end)] {
            let number = from / PAGE;
            if let Some(page) = self.pages.get_mut(&number).filter(|_| from < until) {
                page[(from % PAGE) as usize..][..(until - from) as usize].fill(0);
            }
        }
        let gone: Vec<u64> = self.pages.range(first / PAGE..(last / PAGE).max(first / PAGE)).map(|(n, _)| *n).collect();
        gone.iter().for_each(|number| _ = self.pages.remove(number));
    }
}

/// Files, of which the first is the image.
pub struct Disk {
    files: RefCell<Vec<File>>,
    /// What a worker was told of their lengths, as far as it may still believe it.
    told: RefCell<Vec<u64>>,
    /// How long each was.
    began: Vec<u64>,
    /// Those that stand below and are never written.
    below: RefCell<Vec<usize>>,
    granted: Cell<usize>,
    /// What was made beside the image, by its name.
    parts: RefCell<BTreeMap<Vec<u8>, usize>>,
    /// So many of the files can be named.
    named: usize,
    stage: Staged,
    time: Cell<u64>,
}

impl Disk {
    /// Of these files, of which the image may come to the first `named`: whatever name it asks for, it gets the next one.
    pub fn new(files: Vec<File>, named: usize, stage_len: usize) -> Disk {
        let lens: Vec<u64> = files.iter().map(|file| file.len).collect();
        Disk {
            files: RefCell::new(files),
            told: RefCell::new(lens.clone()),
            began: lens,
            below: RefCell::default(),
            granted: Cell::new(1),
            parts: RefCell::default(),
            named,
            stage: Staged::new(stage_len),
            time: Cell::new(0),
        }
    }

    /// The grant of that file.
    pub fn grant(&self, id: usize) -> Granted {
        let len = self.files.borrow().get(id).map_or(0, |file| file.len);
        self.told.borrow_mut()[id] = len;
        Granted { id: FileId(id as u32), len, allocated: len, writable: true, pinned: None, suggested: None }
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.borrow().len()
    }

    /// The files as they are now.
    pub fn into_files(self) -> Vec<File> {
        self.files.into_inner()
    }

    fn change<T>(&self, place: Place, len: u64, act: impl FnOnce(&mut File) -> T) -> T {
        let id = place.file.0 as usize;
        // The broker ends a cell that asks for more than that.
        let end = place.at.checked_add(len).filter(|end| *end <= OFFSET_MAX).expect("a range of a file");
        assert!(!self.below.borrow().contains(&id), "what lies below is written to, at {}", place.at);
        let mut files = self.files.borrow_mut();
        let began = self.began.get(id).copied().unwrap_or(0);
        assert!(end <= began.saturating_add(GROWTH_MAX), "a file of {began} bytes is written to at {end}");
        let done = act(&mut files[id]);
        let pages: usize = files.iter().map(|file| file.pages.len()).sum();
        assert!(pages <= PAGES_MAX, "{pages} pages are written");
        done
    }
}

impl Io for Disk {
    fn len(&self, file: FileId) -> u64 {
        self.told.borrow().get(file.0 as usize).copied().unwrap_or(0)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let files = self.files.borrow();
        let file_len = files[file.0 as usize].len.max(self.len(file));
        let end = at.checked_add(buf.len() as u64).expect("a range");
        // The last sector of a file that is written to may be read whole, as by the broker.
        assert!(end <= file_len.next_multiple_of(512), "{at}..{end} is read of {file_len} bytes");
        files[file.0 as usize].read(at, buf);
        Ok(())
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        if let Some(part) = self.parts.borrow().get(name) {
            return Ok(self.grant(*part));
        }
        let next = self.granted.get();
        if next >= self.named {
            return Err(Kind::Refused.what("").file(from));
        }
        self.granted.set(next + 1);
        if matches!(role, Role::Backing | Role::Parent) {
            self.below.borrow_mut().push(next);
        }
        Ok(self.grant(next))
    }
}

impl Drive for Disk {
    fn slot_len(&self) -> usize {
        64 << 10
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<()> {
        self.change(place, bytes.len() as u64, |file| file.write(place.at, bytes));
        Ok(())
    }

    fn copy(&self, from: Place, to: Place, len: u64, zeroes: Zeroes) -> Result<()> {
        let mut done = 0;
        while done < len {
            let step = PAGE.min(len - done);
            let mut bytes = vec![0; step as usize];
            let held = self.files.borrow()[from.file.0 as usize].len;
            assert!(from.at + len <= held.max(self.len(from.file)), "{len} bytes are copied from {}", from.at);
            self.files.borrow()[from.file.0 as usize].read(from.at + done, &mut bytes);
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            if !(is_zero && matches!(zeroes, Zeroes::Skipped(_))) {
                self.write(to.ahead(done), &bytes)?;
            }
            done += step;
        }
        Ok(())
    }

    fn zero(&self, place: Place, len: u64, _give_up: bool) -> Result<()> {
        self.change(place, len, |file| {
            file.zero(place.at, place.at + len);
            file.len = file.len.max(place.at + len);
        });
        Ok(())
    }

    fn discard(&self, place: Place, len: u64, _freed: Freed) -> Result<bool> {
        let end = (place.at + len).min(self.files.borrow()[place.file.0 as usize].len);
        self.change(place, len, |file| file.zero(place.at.min(end), end));
        Ok(true)
    }

    fn allocate(&self, place: Place, len: u64) -> Result<()> {
        self.change(place, len, |_| ());
        Ok(())
    }

    fn set_length(&self, file: FileId, len: u64) -> Result<()> {
        self.change(Place { file, at: len }, 0, |file| {
            file.zero(len.min(file.len), file.len);
            file.len = len;
        });
        self.told.borrow_mut()[file.0 as usize] = len;
        Ok(())
    }

    fn flush(&self, _file: FileId) -> Result<()> {
        Ok(())
    }

    fn length(&self, file: FileId) -> Result<u64> {
        let len = self.files.borrow()[file.0 as usize].len;
        self.told.borrow_mut()[file.0 as usize] = len;
        Ok(len)
    }

    fn part(&self, _from: FileId, name: &[u8]) -> Result<FileId> {
        self.files.borrow_mut().push(File::default());
        self.told.borrow_mut().push(0);
        let number = self.files() - 1;
        self.parts.borrow_mut().insert(name.to_vec(), number);
        Ok(FileId(number as u32))
    }

    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read(from.file, from.at, &mut bytes)?;
        Ok(self.stage.load(skip, &bytes, granule))
    }

    fn lay(&self, skip: usize, bytes: &[u8]) {
        self.stage.lay(skip, bytes);
    }

    fn take(&self, skip: usize, bytes: &mut [u8]) {
        self.stage.take(skip, bytes);
    }

    fn store(&self, skip: usize, len: usize, to: Place) -> Result<()> {
        self.write(to, &self.stage.bytes(skip, len))
    }

    fn stage_len(&self) -> usize {
        self.stage.len()
    }

    fn pause(&self) -> Result<()> {
        // There is nobody else who could go on.
        panic!("a lane waits for itself");
    }

    fn clock(&self) -> Result<u64> {
        // Every look at it takes a second, so that a key is not derived for long.
        self.time.set(self.time.get() + 1_000_000_000);
        Ok(self.time.get())
    }
}
