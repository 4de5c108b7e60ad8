//! An image that is changed where it stands.
//!
//! Whatever is changed, a crash leaves the old state or the new one, and at worst space that nobody uses: space that
//! nothing refers to is filled first, references are turned over then, and what nothing refers to any more is given
//! back last.

use crate::bitmap::Wanted;
use crate::chain::Chain;
use crate::file::Drive;
use crate::site::Preallocation;
use crate::source::Place;
use crate::target::ReadBits;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_codec::random::Random;
use instar_wire::code::Secret;
use instar_wire::error::{Error, Kind, Result};
use instar_wire::fact::Fact;
use instar_wire::op::{Recipe, Rules, info};

/// A snapshot that is to be taken.
pub struct NewSnapshot<'n> {
    /// What it is called.
    pub name: &'n [u8],
    /// When it is taken: seconds since 1970, and nanoseconds.
    pub date_sec: u32,
    /// See `date_sec`.
    pub date_nsec: u32,
}

/// What is to become of an image: options of its format.
pub struct Amendment<'n> {
    /// The options that are to have these values.
    pub recipe: &'n Recipe,
    /// Whose ways count.
    pub rules: &'n Rules,
    /// It is done although all that the disk holds may be lost by it.
    pub is_forced: bool,
    /// What a slot for keys is to be opened with.
    pub new_secret: Option<&'n Secret>,
    /// What opens the slots that are meant.
    pub old_secret: Option<&'n Secret>,
    /// What keys are sealed with.
    pub random: RefCell<Random>,
    /// Is told how much has been done of how much.
    pub tell: &'n dyn Fn(u64, u64) -> Result<()>,
    /// Is told what is done, and should not be asked for.
    pub warn: &'n dyn Fn(Error) -> Result<()>,
}

impl Amendment<'_> {
    /// Whether there is any option whose name begins so.
    pub fn has(&self, prefix: &str) -> bool {
        match &self.recipe.options {
            Fact::Fields(fields) => fields.iter().any(|field| field.name.0.starts_with(prefix.as_bytes())),
            _ => false,
        }
    }

    /// Bytes that nobody can foretell.
    pub fn random(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.borrow_mut().fill(&mut bytes);
        bytes
    }
}

/// How far an amendment has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amended {
    /// The image is as it was: that is what was asked for.
    Not,
    /// It has been changed.
    Done,
    /// It has been changed, and the size is to follow, which is asked for in another way. Whoever has seen to that asks
    /// for the same once more.
    UpToSize,
}

/// What an image is to stand on.
#[derive(Clone, Copy, Default)]
pub struct Footing<'f> {
    /// The name that is written down; empty if it is to stand on nothing.
    pub name: &'f [u8],
    /// The format that is written down with it, if there is one.
    pub format: Option<&'f [u8]>,
    /// What the image of that name says of itself, if it was looked at.
    pub below: Option<&'f info::Image>,
}

/// An image that is open to be changed. Each change is complete, and durable, when it has been answered.
pub trait Edit {
    /// The disk gets another size; what is new reads as zeroes, whatever lies below. Answers the size that it has now,
    /// which is larger if the format cannot have any. `below`: the layers below it, of which there may be none.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Chain<'_>) -> Result<u64> {
        let _ = (drive, size, space, below);
        Err(Kind::Unsupported.what("Image format driver does not support resize"))
    }

    /// The image has other options of its format.
    fn amend(&mut self, drive: &dyn Drive, wish: &Amendment<'_>) -> Result<Amended> {
        let _ = (drive, wish);
        Err(Kind::Unsupported.what("the format has no options that can be changed"))
    }

    /// What the disk holds now can be had again later.
    fn take_snapshot(&mut self, drive: &dyn Drive, new: &NewSnapshot<'_>) -> Result<()> {
        let _ = (drive, new);
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// The disk holds what it held when the snapshot with that number was taken.
    fn apply_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        let _ = (drive, number);
        Err(Kind::Unsupported.what("Block driver does not support snapshots"))
    }

    /// Whether it could stand on this image; an error says why not.
    fn may_stand_on(&self, footing: &Footing<'_>) -> Result<()> {
        let _ = footing;
        Ok(())
    }

    /// It stands on this image from now on. What it reads as changes with that, so whoever asks has made sure that it may.
    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        let _ = (drive, footing);
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// It has nothing of its own any more, and reads as what lies below.
    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        let _ = drive;
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// The snapshot with that number is not wanted any more.
    fn delete_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        let _ = (drive, number);
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// The image has these bitmaps, in this order; `read` fills bytes with the bits of the one with that number, from a
    /// byte of them on, of those that keep none of the image's.
    fn set_bitmaps(&mut self, drive: &dyn Drive, all: &[Wanted], read: ReadBits<'_>) -> Result<()> {
        let _ = (drive, all, read);
        Err(Kind::Unsupported.what("images of this format have no bitmaps"))
    }
}

/// Empties a first table, which its file then ends with. Every entry that is empty is right by itself, and nothing leads
/// behind the table then.
pub fn clear(drive: &dyn Drive, table: Place, len: u64) -> Result<()> {
    drive.zero(table, len, false)?;
    drive.flush(table.file)?;
    let end = table.ahead(len).at;
    if end < drive.length(table.file)? {
        drive.set_length(table.file, end)?;
        drive.flush(table.file)?;
    }
    Ok(())
}
