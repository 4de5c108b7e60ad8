//! Files in memory that are copied in no time, however long they are and however much is in them.

use instar_image::file::Hole;
use instar_image::{FileId, Granted, Io, Kind, Result, Role};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are kept as one.
const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// One file: pages that many copies share, and those that are this copy's own.
#[derive(Clone, Default)]
struct Body {
    len: u64,
    shared: Arc<BTreeMap<u64, Box<Page>>>,
    /// From here on, nothing of what is shared is there any more.
    cut: u64,
    own: BTreeMap<u64, Box<Page>>,
}

impl Body {
    /// The page with that number; none if it is all zeroes. What is beyond the end is kept zero.
    fn page(&self, number: u64) -> Option<&Page> {
        let shared = || self.shared.get(&number).filter(|_| number * PAGE < self.cut);
        self.own.get(&number).or_else(shared).map(|page| &**page)
    }

    fn page_mut(&mut self, number: u64) -> &mut Page {
        if !self.own.contains_key(&number) {
            let page = self.page(number).copied().unwrap_or([0; PAGE as usize]);
            self.own.insert(number, Box::new(page));
        }
        self.own.get_mut(&number).expect("it has just been put there")
    }

    fn read(&self, at: u64, bytes: &mut [u8]) {
        for (at, len, skip) in pieces(at, bytes.len() as u64, PAGE) {
            let (from, to) = ((at % PAGE) as usize, skip as usize);
            match self.page(at / PAGE) {
                Some(page) => bytes[to..to + len as usize].copy_from_slice(&page[from..from + len as usize]),
                None => bytes[to..to + len as usize].fill(0),
            }
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.len = self.len.max(at + bytes.len() as u64);
        for (at, len, skip) in pieces(at, bytes.len() as u64, PAGE) {
            let (to, from) = ((at % PAGE) as usize, skip as usize);
            let now = &bytes[from..from + len as usize];
            if self.page(at / PAGE).is_none() && now.iter().all(|byte| *byte == 0) {
                continue;
            }
            self.page_mut(at / PAGE)[to..to + len as usize].copy_from_slice(now);
        }
    }

    fn set_length(&mut self, len: u64) {
        if len < self.len {
            self.own.split_off(&len.div_ceil(PAGE));
            let inside = (len % PAGE) as usize;
            if inside > 0 && self.page(len / PAGE).is_some() {
                self.page_mut(len / PAGE)[inside..].fill(0);
            }
            self.cut = self.cut.min(len.div_ceil(PAGE) * PAGE);
        }
        self.len = len;
    }

    /// The pages between two bytes that are not all zeroes.
    fn pages(&self, at: u64, end: u64) -> Vec<u64> {
        let numbers = at / PAGE..end.div_ceil(PAGE);
        let mut all: Vec<u64> = self.own.range(numbers.clone()).map(|(number, _)| *number).collect();
        let shared = self.shared.range(numbers.start..numbers.end.min(self.cut.div_ceil(PAGE)).max(numbers.start));
        all.extend(shared.map(|(number, _)| *number));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Makes all that it has what copies of it share.
    fn freeze(&mut self) {
        if self.own.is_empty() && self.cut == u64::MAX {
            return;
        }
        let kept: BTreeMap<u64, Box<Page>> = self
            .pages(0, u64::MAX)
            .into_iter()
            .filter_map(|number| Some((number, Box::new(*self.page(number)?))))
            .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
            .collect();
        (self.shared, self.own, self.cut) = (Arc::new(kept), BTreeMap::new(), u64::MAX);
    }
}

/// Cuts a range at multiples of `unit`: where each piece begins, how long it is, and how far it is from the beginning.
pub(super) fn pieces(at: u64, len: u64, unit: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let end = at + len;
    let mut here = at;
    std::iter::from_fn(move || {
        let start = here;
        here = ((start / unit + 1).saturating_mul(unit)).min(end);
        (start < end).then(|| (start, here - start, start - at))
    })
}

/// Files by number and by name, which images may name among each other.
#[derive(Clone, Default)]
pub struct MemFiles {
    files: Vec<Body>,
    names: BTreeMap<Vec<u8>, u32>,
}

impl MemFiles {
    /// None yet.
    pub fn new() -> MemFiles {
        MemFiles::default()
    }

    /// One file with these bytes, which is number 0.
    pub fn of(bytes: &[u8]) -> MemFiles {
        let mut files = MemFiles::new();
        files.add("disk", bytes);
        files
    }

    /// One more file; answers its number.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> FileId {
        let id = self.make(name.as_bytes());
        self.files[id.0 as usize].write(0, bytes);
        self.files[id.0 as usize].freeze();
        id
    }

    /// An empty file of that name, in the place of one that may be there.
    pub(super) fn make(&mut self, name: &[u8]) -> FileId {
        let id = self.files.len() as u32;
        self.files.push(Body { cut: u64::MAX, ..Body::default() });
        self.names.insert(name.to_vec(), id);
        FileId(id)
    }

    /// If there were `before` files, and now there is one more, it takes the place of the first.
    pub fn settled(mut self, before: usize) -> MemFiles {
        if let Some(heir) = self.files.get(before).cloned() {
            self.files[0] = heir;
            self.files.truncate(before);
            self.names.retain(|_, id| (*id as usize) < before);
        }
        self
    }

    /// Takes in files of a folder, without what their holes would take.
    pub fn load(folder: &Path, names: &[&str]) -> MemFiles {
        use rustix::fs::{SeekFrom, seek};
        let mut files = MemFiles::new();
        for name in names {
            let id = files.make(name.as_bytes());
            let body = &mut files.files[id.0 as usize];
            let file = File::open(folder.join(name)).expect("a file");
            let len = file.metadata().expect("its length").len();
            body.len = len;
            let mut at = 0;
            while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
                let end = seek(&file, SeekFrom::Hole(data)).unwrap_or(len);
                for (at, len, _) in pieces(data, end - data, 1 << 20) {
                    let mut bytes = vec![0; len as usize];
                    file.read_exact_at(&mut bytes, at).expect("bytes");
                    body.write(at, &bytes);
                }
                at = end;
            }
            body.freeze();
        }
        files
    }

    /// Puts all of them into a folder under their names, with holes where there is nothing.
    pub fn save(&self, folder: &Path) {
        for (name, id) in &self.names {
            let name = std::str::from_utf8(name).expect("a name");
            let (body, file) = (self.body(FileId(*id)), File::create(folder.join(name)).expect("a file"));
            file.set_len(body.len).expect("a length");
            for number in body.pages(0, body.len) {
                let len = (body.len - number * PAGE).min(PAGE) as usize;
                let page = body.page(number).expect("a page");
                file.write_all_at(&page[..len], number * PAGE).expect("bytes");
            }
        }
    }

    /// The file of that number, as it is granted to whoever opens it.
    pub fn granted(&self, id: FileId) -> Granted {
        let body = self.body(id);
        let allocated = body.pages(0, body.len).len() as u64 * PAGE;
        Granted { id, len: body.len, allocated, writable: true, pinned: None, suggested: None }
    }

    /// The file of that name.
    pub fn named(&self, name: &[u8]) -> Option<FileId> {
        self.names.get(name).map(|id| FileId(*id))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// All bytes of a file.
    pub fn bytes(&self, id: FileId) -> Vec<u8> {
        let mut bytes = vec![0; self.body(id).len as usize];
        self.body(id).read(0, &mut bytes);
        bytes
    }

    /// Bytes from `at`; those behind the end are zeroes.
    pub(super) fn peek(&self, id: FileId, at: u64, bytes: &mut [u8]) {
        self.body(id).read(at, bytes);
    }

    /// Writes bytes, as a test does that damages a file.
    pub fn poke(&mut self, id: FileId, at: u64, bytes: &[u8]) {
        self.files[id.0 as usize].write(at, bytes);
    }

    /// The file ends there.
    pub fn cut(&mut self, id: FileId, len: u64) {
        self.files[id.0 as usize].set_length(len);
    }

    /// The file ends there or later.
    pub(super) fn grow(&mut self, id: FileId, len: u64) {
        let body = &mut self.files[id.0 as usize];
        body.len = body.len.max(len);
    }

    /// The parts of a range that are not all zeroes, rounded to pages.
    pub(super) fn data(&self, id: FileId, at: u64, end: u64) -> Vec<(u64, u64)> {
        let pages = self.body(id).pages(at, end).into_iter();
        pages.map(|number| ((number * PAGE).max(at), ((number + 1) * PAGE).min(end))).collect()
    }

    /// Copies made from now on share what is there.
    pub(super) fn freeze(&mut self) {
        self.files.iter_mut().for_each(Body::freeze);
    }

    fn body(&self, id: FileId) -> &Body {
        &self.files[id.0 as usize]
    }
}

impl Io for MemFiles {
    fn len(&self, file: FileId) -> u64 {
        self.body(file).len
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let body = self.body(file);
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > body.len) {
            return Err(Kind::Io.what("read outside the file").file(file).at(at));
        }
        body.read(at, buf);
        Ok(())
    }

    fn related(&self, from: FileId, _role: Role, name: &[u8]) -> Result<Granted> {
        let id = self.named(name).ok_or_else(|| Kind::Refused.what("no such file").file(from))?;
        Ok(self.granted(id))
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        let end = at + len;
        let (mut runs, mut here) = (Vec::new(), at);
        for (start, stop) in self.data(file, at, end) {
            if start > here {
                runs.push(Hole { len: start - here, is_hole: true });
            }
            match runs.last_mut() {
                Some(Hole { len, is_hole: false }) => *len += stop - start,
                _ => runs.push(Hole { len: stop - start, is_hole: false }),
            }
            here = stop;
        }
        if here < end {
            runs.push(Hole { len: end - here, is_hole: true });
        }
        Ok(runs)
    }
}
