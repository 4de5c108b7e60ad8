//! A file that is another one with a few bytes changed, so that ten thousand of them cost nothing.

use instar_image::{FileId, Granted, Io, Kind, Result, Role};

/// The changed file; it is number 0, and leads nowhere.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    base: &'a [u8],
    len: usize,
    changes: Vec<(usize, Vec<u8>)>,
}

impl<'a> Overlay<'a> {
    /// The file as it is.
    pub fn new(base: &'a [u8]) -> Self {
        Overlay { base, len: base.len(), changes: Vec::new() }
    }

    /// Cut to this length.
    #[must_use]
    pub fn cut(mut self, len: usize) -> Self {
        self.len = len.min(self.base.len());
        self
    }

    /// With these bytes there, as far as they are inside.
    #[must_use]
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        let room = self.len.saturating_sub(at).min(bytes.len());
        self.changes.push((at, bytes[..room].to_vec()));
        self
    }

    /// How long it is now.
    pub fn len_now(&self) -> usize {
        self.len
    }

    /// A piece of what it has become, if it is that long.
    pub fn piece(&self, at: usize, len: usize) -> Option<Vec<u8>> {
        let mut piece = vec![0; len];
        self.read(FileId(0), at as u64, &mut piece).ok()?;
        Some(piece)
    }

    /// What it has become.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.base[..self.len].to_vec();
        for (at, bytes) in &self.changes {
            // It may have been cut since then.
            out.iter_mut().skip(*at).zip(bytes).for_each(|(old, new)| *old = *new);
        }
        out
    }

    /// The grant of it.
    pub fn granted(&self, pinned: Option<&str>) -> Granted {
        Granted {
            id: FileId(0),
            len: self.len as u64,
            allocated: self.len as u64,
            writable: false,
            pinned: pinned.map(Into::into),
            suggested: None,
        }
    }
}

impl Io for Overlay<'_> {
    fn len(&self, _file: FileId) -> u64 {
        self.len as u64
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let outside = || Kind::Io.what("read outside the file").file(file).at(at);
        let start = usize::try_from(at).map_err(|_| outside())?;
        let end = start.checked_add(buf.len()).filter(|end| *end <= self.len).ok_or_else(outside)?;
        buf.copy_from_slice(self.base.get(start..end).ok_or_else(outside)?);
        for (from, bytes) in &self.changes {
            let (first, last) = (start.max(*from), end.min(from + bytes.len()));
            if first < last {
                buf[first - start..last - start].copy_from_slice(&bytes[first - from..last - from]);
            }
        }
        Ok(())
    }

    fn related(&self, from: FileId, _role: Role, _name: &[u8]) -> Result<Granted> {
        Err(Kind::Refused.what("there is nothing else").file(from))
    }
}
