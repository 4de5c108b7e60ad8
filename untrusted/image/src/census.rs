//! The census, the inverse of "where are these bytes?": what every part of an image's file is for.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::ops::Range;
use instar_wire::error::{Error, Kind, Result};
use instar_wire::io::FileId;
pub use instar_wire::op::check::{Clusters, Finding, Weight};

/// Who uses a part of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The image itself: headers, tables, logs.
    Image(&'static str),
    /// One of the blocks of counts, with its number.
    Counts(u64),
    /// The block of the disk with that number.
    Block(u64),
}

/// Somebody's use of a part of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Where the part begins.
    pub at: u64,
    /// How long it is.
    pub len: u64,
    /// Who uses it.
    pub owner: Owner,
    /// Nobody else may.
    pub alone: bool,
    /// So many times.
    pub times: u64,
    /// What whoever refers to it says: that nobody else does, or that somebody does.
    pub sole: Option<bool>,
}

impl Owner {
    /// Its name; `block` is what the format calls a block.
    fn named(self, block: &str) -> String {
        match self {
            Owner::Image(what) => what.into(),
            Owner::Counts(number) => format!("block {number} of counts"),
            Owner::Block(number) => format!("{block} {number}"),
        }
    }
}

impl Claim {
    /// A use that others may share.
    pub fn shared(owner: Owner, at: u64, len: u64) -> Claim {
        Claim { at, len, owner, alone: false, times: 1, sole: None }
    }

    /// A use by one alone.
    pub fn alone(owner: Owner, at: u64, len: u64) -> Claim {
        Claim { alone: true, ..Claim::shared(owner, at, len) }
    }

    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }
}

/// What is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Only what qemu-img sees.
    pub as_qemu: bool,
    /// Its version, as in [`instar_wire::op::Rules`].
    pub version: u32,
}

impl Scope {
    /// Whether that is seen which qemu-img sees from this version on.
    pub fn sees(&self, from: u32) -> bool {
        !self.as_qemu || self.version >= from
    }
}

/// The file that is shared out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// The file.
    pub file: FileId,
    /// Its length.
    pub len: u64,
    /// It is given out in units of this length. With units of a byte, parts begin anywhere, and nobody shares them.
    pub unit: u64,
    /// So far before the file's beginning the first unit begins, where units begin at no multiple of their length.
    pub lead: u64,
    /// What reaches less far than this beyond the end of the file does no harm.
    pub slack: u64,
    /// The most uses of a unit that can be counted.
    pub most: u64,
}

impl Space {
    /// Whether parts begin anywhere.
    pub fn is_free(&self) -> bool {
        self.unit == 1
    }

    /// Where a unit begins.
    pub fn at(&self, unit: u64) -> u64 {
        unit.saturating_mul(self.unit).saturating_sub(self.lead)
    }

    /// The units that so many bytes lie in.
    pub fn units(&self, at: u64, len: u64) -> Range<u64> {
        let (at, unit) = (at.saturating_add(self.lead), self.unit.max(1));
        at / unit..at.saturating_add(len).div_ceil(unit)
    }
}

/// What does not fit together.
#[derive(Clone, Debug)]
pub enum Irregular {
    /// It is not in the file.
    Outside(Claim),
    /// It is used by somebody else as well, who comes first.
    Shared(Claim, u64),
    /// It is used more often than can be counted; this is its first byte.
    Uncountable(u64),
    /// The image keeps the one count of a unit, and the other is true.
    Miscount(Miscount),
    /// The count that the image keeps of this unit cannot be read.
    Uncounted(u64, Error),
    /// Nobody uses the units in a row that this is, of an image that keeps no counts.
    Unused(Unused),
}

/// Two counts of one unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miscount {
    /// The unit's number.
    pub unit: u64,
    /// What the image says.
    pub stored: u64,
    /// How often it is used.
    pub counted: u64,
}

/// Units in a row that nobody uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unused {
    /// Where they begin.
    pub at: u64,
    /// How long they are together, as far as the file goes.
    pub len: u64,
    /// How many they are.
    pub units: u64,
}

/// Whoever listens to a census.
pub trait Witness {
    /// Somebody uses a part of the file; whether that is in order.
    fn claim(&mut self, claim: Claim) -> Result<bool>;
    /// The same of several parts that are all like this one and lie at these places: millions of them cost less so.
    fn claims(&mut self, like: Claim, places: &[u64]) -> Result<bool> {
        places.iter().try_fold(true, |is_fine, at| Ok(self.claim(Claim { at: *at, ..like })? && is_fine))
    }
    /// Something is wrong in itself.
    fn find(&mut self, finding: Finding) -> Result<()>;
    /// Something may depend on the counts in a way that only [`Census::review`] sees.
    fn doubt(&mut self);
    /// So many clusters more.
    fn add(&mut self, clusters: Clusters);
}

/// The counts of units that an image keeps.
pub trait Ledger {
    /// The counts of the units from `first` on: of how many they are told, at least one.
    fn read(&mut self, first: u64, counts: &mut [u64]) -> Result<usize>;
}

/// How often a unit is used, as the image says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// So often.
    Count(u64),
    /// That cannot be read.
    Unknown,
    /// That is told another time, when its part of the file is looked at.
    Elsewhere,
}

/// Tells how often a unit is used.
pub type AskStored<'s> = &'s mut dyn FnMut(u64) -> Stored;

/// An image that can be checked. All of this may be asked several times, of parts of the file.
pub trait Census {
    /// The file, and how it is given out.
    fn space(&self) -> Space;
    /// Tells who uses what, and what is wrong in itself.
    fn take(&self, out: &mut dyn Witness) -> Result<()>;
    /// The counts that the image keeps.
    fn ledger(&self) -> Option<Box<dyn Ledger + '_>> {
        None
    }
    /// Looks at what depends on those counts. It is asked only if what was said of a unit, [`Claim::sole`], is not what
    /// they say, or where there was doubt.
    fn review(&self, stored: AskStored<'_>, find: &mut dyn FnMut(Finding) -> Result<()>) -> Result<()> {
        let _ = (stored, find);
        Ok(())
    }
    /// What is to be said of something irregular; nothing if it is in order with this format.
    fn words(&self, irregular: &Irregular) -> Option<Finding>;
    /// Where the part of the file ends that is in use, `last` being the last unit used; zero if that is not told.
    fn end(&self, last: Option<u64>) -> u64 {
        let _ = last;
        0
    }
}

impl Space {
    /// A file of which nothing is claimed: only what is wrong in itself is told.
    pub fn unclaimed(file: FileId, len: u64) -> Space {
        Space { file, len, unit: u64::MAX, lead: 0, slack: 0, most: u64::MAX }
    }

    /// What to say of something irregular in an image without counts; `block` is what its format calls a block.
    pub fn words(&self, irregular: &Irregular, block: &str) -> Option<Finding> {
        let (claim, phrase) = match irregular {
            Irregular::Outside(claim) => (claim, "{} is outside of '{file}': offset {}, {} bytes"),
            Irregular::Shared(claim, _) => (claim, "{} lies in '{file}' where something else is: offset {}, {} bytes"),
            _ => return None,
        };
        let error = Kind::Corrupt.what(phrase).file(self.file).at(claim.at);
        Some(finding(Weight::Corruption, error.arg(claim.owner.named(block)).arg(claim.at).arg(claim.len)))
    }

    /// What to say of space that nobody uses, in a format all of whose file is in use; `block` is what it is lost in.
    pub fn lost(&self, unused: &Unused, block: u64) -> Finding {
        let error =
            Kind::Corrupt.what("nothing uses '{file}' there: offset {}, {} bytes").file(self.file).at(unused.at);
        let count = unused.len.div_ceil(block.max(1));
        Finding { count, ..finding(Weight::Leak, error.arg(unused.at).arg(unused.len)) }
    }
}

/// A finding that counts once.
pub fn finding(weight: Weight, what: Error) -> Finding {
    Finding { weight, count: 1, what }
}
