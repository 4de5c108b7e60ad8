//! What can go wrong with a file, kept as a note until somebody words it.

use crate::lock::Conflict;
use crate::policy::Refusal;
use instar_wire::io::FileId;
use rustix::io::Errno;

/// What went wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// The name, as a user would know it.
    pub name: Vec<u8>,
    /// The file whose image named it, if an image did.
    pub named_by: Option<FileId>,
    /// What happened.
    pub why: Why,
}

/// What can go wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The operating system's word.
    System(Errno),
    /// Not a file that can hold an image.
    NotRegular,
    /// Not a device, although the user says so.
    NotDevice,
    /// Somebody else uses what stands there.
    InUse(Conflict),
    /// It is one of the files that are read.
    Source,
    /// Policy's word.
    Refused(Refusal),
    /// The word of whoever interpreted the name.
    Said(Vec<u8>),
    /// Its length cannot be told.
    NoLength(Errno),
    /// More files than one command may open.
    TooMany,
}
