//! Where a new image is made, and what whoever lays it out may draw on.

use crate::file::Drive;
use crate::source::Place;
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_codec::random::Random;
use instar_wire::code::Secret;
use instar_wire::error::{Kind, Result};
use instar_wire::io::FileId;
use instar_wire::op::{Recipe, Rules, info};
use zerocopy::{Immutable, IntoBytes};

/// The surroundings of an image in the making. Its files are empty, and read as zeroes wherever nothing was written.
pub struct Site<'s> {
    /// The way to its files.
    pub drive: &'s dyn Drive,
    /// The file that it is opened by.
    pub file: FileId,
    /// A second file, which the user named.
    pub beside: Option<FileId>,
    /// The name of the file, without its directory.
    pub name: &'s [u8],
    /// What the image below says of itself, with all that it has to say; none if there is none, or nobody looked at it.
    pub below: Option<&'s info::Image>,
    /// What its key is kept under.
    pub key: Option<&'s Secret>,
    /// Whose ways count.
    pub rules: &'s Rules,
    /// When it is made: seconds since 1970.
    pub time: u64,
    /// What identifiers and keys are drawn from.
    pub random: RefCell<Random>,
}

impl Site<'_> {
    /// Writes a structure, or bytes, to the file.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&self, at: u64, what: &T) -> Result<()> {
        self.put_in(self.file, at, what)
    }

    /// The same, to another of its files.
    pub fn put_in<T: IntoBytes + Immutable + ?Sized>(&self, file: FileId, at: u64, what: &T) -> Result<()> {
        self.drive.write(Place { file, at }, what.as_bytes())
    }

    /// Its file is so long when it is done. Whoever lays an image out says so last.
    pub fn end(&self, len: u64) -> Result<()> {
        self.drive.set_length(self.file, len)
    }

    /// One more file of the image, named like it but for what comes before the ending: `disk-flat.vmdk` for `-flat`.
    pub fn part(&self, mark: &str) -> Result<(FileId, Vec<u8>)> {
        let dot = self.name.iter().rposition(|byte| *byte == b'.').unwrap_or(self.name.len());
        let (stem, ending) = self.name.split_at_checked(dot).unwrap_or((self.name, &[]));
        let name = [stem, mark.as_bytes(), ending].concat();
        let file = self.drive.part(self.file, &name)?;
        Ok((file, name))
    }

    /// Bytes that nobody can foretell.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.borrow_mut().fill(&mut bytes);
        bytes
    }

    /// A random identifier, as RFC 4122 has it: version 4, in the order of bytes in which it is written as text.
    pub fn uuid(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, version, g, variant, rest @ ..] = self.random::<16>();
        let [h, i, j, k, l, m, n] = rest;
        [a, b, c, d, e, f, version & 0x0f | 0x40, g, variant & 0x3f | 0x80, h, i, j, k, l, m, n]
    }

    /// The same in the order in which Windows keeps it: the first three groups little-endian.
    pub fn guid(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.uuid();
        let [i, j, k, l, m, n, o, p] = rest;
        [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
    }

    /// Writes a table of `count` entries.
    pub fn table<const N: usize>(&self, at: u64, count: u64, entry: impl FnMut(u64) -> [u8; N]) -> Result<()> {
        self.table_in(self.file, at, count, entry)
    }

    /// The same, to another of its files.
    pub fn table_in<const N: usize>(
        &self,
        file: FileId,
        at: u64,
        count: u64,
        mut entry: impl FnMut(u64) -> [u8; N],
    ) -> Result<()> {
        let entry_len = size_of::<[u8; N]>();
        let room = self.drive.slot_len().checked_div(entry_len).unwrap_or(1).max(1);
        let mut piece = Vec::with_capacity(room.saturating_mul(entry_len));
        let mut place = Place { file, at };
        for index in 0..count {
            piece.extend_from_slice(&entry(index));
            if piece.len() >= room.saturating_mul(entry_len) {
                self.drive.write(place, &piece)?;
                place = place.ahead(piece.len() as u64);
                piece.clear();
            }
        }
        if piece.is_empty() { Ok(()) } else { self.drive.write(place, &piece) }
    }
}

/// How space is set aside for what will be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preallocation {
    /// Not at all.
    Off,
    /// Only in the tables of the image.
    Metadata,
    /// By asking the file system.
    Falloc,
    /// By writing zeroes.
    Full,
}

impl Preallocation {
    /// Space is set aside for all of the disk.
    pub fn is_full(self) -> bool {
        matches!(self, Preallocation::Falloc | Preallocation::Full)
    }

    /// What a recipe asks of the file that an image is put into.
    pub fn of_file(recipe: &Recipe) -> Result<Preallocation> {
        match recipe.text("preallocation") {
            None | Some(b"off") => Ok(Preallocation::Off),
            Some(b"falloc") => Ok(Preallocation::Falloc),
            Some(b"full") => Ok(Preallocation::Full),
            Some(b"metadata") => Err(Kind::Unsupported.what("Unsupported preallocation mode: metadata")),
            Some(other) => Err(Kind::Unsupported.what("invalid parameter value: {}").arg(other)),
        }
    }

    /// The same, unless it is not to be followed: qemu-img takes it for the file as it is made, which is empty.
    #[must_use]
    pub fn unless(self, ignored: bool) -> Preallocation {
        if ignored { Preallocation::Off } else { self }
    }

    /// What a recipe asks for.
    pub fn of(recipe: &Recipe) -> Result<Preallocation> {
        match recipe.text("preallocation") {
            None | Some(b"off") => Ok(Preallocation::Off),
            Some(b"metadata") => Ok(Preallocation::Metadata),
            Some(b"falloc") => Ok(Preallocation::Falloc),
            Some(b"full") => Ok(Preallocation::Full),
            Some(other) => {
                Err(Kind::Unsupported.what("Parameter 'preallocation' does not accept value '{}'").arg(other))
            }
        }
    }
}

impl Site<'_> {
    /// Gives a file its length, and sets space aside from `at` on.
    pub fn extend(&self, file: FileId, at: u64, len: u64, how: Preallocation) -> Result<()> {
        self.drive.set_length(file, len)?;
        let (place, space) = (Place { file, at }, len.saturating_sub(at));
        match how {
            Preallocation::Falloc if space > 0 => self.drive.allocate(place, space),
            Preallocation::Full if space > 0 => self.drive.zero(place, space, false),
            _ => Ok(()),
        }
    }
}
