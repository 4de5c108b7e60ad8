//! An image that is written to: where the bytes of its disk may go.

use crate::bitmap::Bitmap;
use crate::file::Drive;
use crate::source::{Place, Source};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use instar_codec::cipher::Sectors;
use instar_wire::error::{Kind, Result};

/// Fills bytes with the bits of the bitmap with that number, from a byte of them on.
pub type ReadBits<'r> = &'r mut dyn FnMut(usize, u64, &mut [u8]) -> Result<()>;

/// An image that is open to be written to. It is asked by one lane at a time, and in the order of the disk, so that
/// what becomes of it depends on nothing but what is written.
pub trait Target: Send {
    /// Size of the disk in bytes.
    fn size(&self) -> u64;

    /// What of the disk is given a place as one, in bytes. What is asked for never crosses a multiple of it.
    fn unit(&self) -> u64;

    /// The place of the byte at `at`, and of how many that follow it, if all have theirs, whatever is written, and read
    /// as zeroes until something is.
    fn fixed(&self, at: u64) -> Option<(u64, Spot)> {
        let _ = at;
        None
    }

    /// Nothing is given a place: all bytes have theirs, and read as anything until something is written.
    fn is_solid(&self) -> bool {
        false
    }

    /// Where `len` bytes from `at` on may go, which lie in one unit. None: nothing needs to be written.
    fn reserve(&mut self, drive: &dyn Drive, at: u64, len: u64, what: What) -> Result<Option<Spot>>;

    /// The bytes of a range of the disk are others now, or may be: whatever records changes has to know.
    fn mark(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<()> {
        let _ = (drive, at, len);
        Ok(())
    }

    /// Adds bitmaps; `read` fills bytes with the bits of the one with that number, from a byte of them on.
    fn add_bitmaps(&mut self, drive: &dyn Drive, new: &[Bitmap], read: ReadBits<'_>) -> Result<()> {
        let _ = (drive, new, read);
        Err(Kind::Unsupported.what("images of this format have no bitmaps"))
    }

    /// Somebody relies on what is there: whatever happens, it is what it was or what it is to be.
    fn keep_order(&mut self) {}

    /// What is written changes nothing for those who stand on it: it does not become another image by that.
    fn keep_identity(&mut self) {}

    /// How much waits for everything to be written that has been given a place.
    fn waiting(&self) -> usize {
        0
    }

    /// All that has been given a place has been written: what leads to it may be written too.
    fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        let _ = drive;
        Ok(())
    }

    /// Nothing more will be written: whatever has not been said in the file yet is said now.
    fn seal(&mut self, drive: &dyn Drive) -> Result<()>;

    /// What encrypts the bytes of spots that have a tweak.
    fn cipher(&self) -> Option<Arc<Sectors>> {
        None
    }

    /// Nothing is written to it but packed.
    fn is_packed(&self) -> bool {
        false
    }

    /// What makes units shorter, if the format has that.
    fn packing(&self) -> Option<Box<dyn Packing>> {
        None
    }
}

/// What is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Bytes.
    Data,
    /// Zeroes.
    Zeroes,
    /// A whole unit, or the last one of the disk, packed into so many bytes.
    Packed(u64),
}

/// A place for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Where they go.
    pub place: Place,
    /// If they are to be encrypted: the byte that initialisation vectors count the first of them as.
    pub tweak: Option<u64>,
    /// What the rest of the unit has there.
    pub rest: Rest,
    /// Nothing has ever been written there.
    pub is_fresh: bool,
}

impl Spot {
    /// The place of the byte that comes `n` bytes before, and what it is counted as.
    pub fn behind(&self, n: u64) -> (Place, u64) {
        (Place { at: self.place.at.saturating_sub(n), ..self.place }, self.tweak.unwrap_or(0).saturating_sub(n))
    }
}

/// What has to be done for the bytes of a unit that are not written, now that it has got a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing: they are there.
    There,
    /// They are zeroes.
    Zeroes,
    /// They are to be brought from the layer below.
    Below,
    /// They are to be brought from where they were.
    Was(Source),
}

/// How a format makes units shorter.
pub trait Packing: Sync {
    /// What is packed as one: a multiple of the target's own unit.
    fn unit(&self) -> u64;
    /// What does it on one lane.
    fn packer(&self) -> Box<dyn Packer>;
}

/// Makes units shorter.
pub trait Packer {
    /// What the unit at `at` is written as; none if that would not be shorter. `bytes` ends with the disk.
    fn pack(&mut self, at: u64, bytes: &[u8]) -> Option<Vec<u8>>;
}

/// What all lanes have to know of a target.
pub struct Facts {
    pub(crate) size: u64,
    pub(crate) unit: u64,
    pub(crate) cipher: Option<Arc<Sectors>>,
    pub(crate) packing: Option<Box<dyn Packing>>,
}

impl Facts {
    /// Of this target; `pack`: its units are to be made shorter.
    pub fn of(target: &dyn Target, pack: bool) -> Facts {
        let packing = if pack || target.is_packed() { target.packing() } else { None };
        Facts { size: target.size(), unit: target.unit().max(1), cipher: target.cipher(), packing }
    }

    /// What gets its place, or is packed, as one.
    pub fn unit(&self) -> u64 {
        self.packing.as_ref().map_or(self.unit, |packing| packing.unit())
    }
}
