//! What went wrong, as data: a kind that decides, a place that helps, words that are shown.

use crate::code::Bytes;
use crate::fact::Fact;
use crate::io::FileId;
use crate::message;
use alloc::vec::Vec;

message! {
    /// The few kinds of failure that callers tell apart.
    pub enum Kind {
        /// The file is not an image of the expected format.
        NotThisFormat = 1,
        /// The image contradicts its format or itself.
        Corrupt = 2,
        /// The image uses something this program or its format driver refuses to read.
        Unsupported = 3,
        /// A limit on size, count or depth was exceeded.
        TooBig = 4,
        /// The broker could not read, write or find something; `cause` says what.
        Io = 5,
        /// Policy forbids it; `cause` says why.
        Refused = 6,
        /// A passphrase is missing or wrong.
        Key = 7,
        /// No format may be assumed for these bytes.
        Unrecognised = 8,
        /// It is known where bytes lie, but not what they are: what is there cannot be unpacked.
        Broken = 9,
    }
}

message! {
    /// One failure. `what` is a fixed phrase in which each `{}` stands for the next of `args`.
    pub struct Error {
        /// Decides what callers do.
        pub kind: Kind,
        /// The file it concerns.
        pub file: Option<FileId>,
        /// Offset in that file, where one is known.
        pub at: Option<u64>,
        /// The phrase; the sentence around it is the command line's.
        pub what: Bytes,
        /// What the phrase speaks of.
        pub args: Vec<Fact>,
        /// The broker's own note of why, when the failure was its.
        pub cause: Option<u32>,
    }
}

/// Result of everything that runs in a cell.
pub type Result<T> = core::result::Result<T, Error>;

impl Kind {
    /// An error of this kind with its phrase.
    pub fn what(self, phrase: &'static str) -> Error {
        Error { kind: self, file: None, at: None, what: phrase.into(), args: Vec::new(), cause: None }
    }
}

impl Error {
    /// The same, in a file.
    #[must_use]
    pub fn file(mut self, file: FileId) -> Self {
        self.file = Some(file);
        self
    }

    /// The same, at an offset.
    #[must_use]
    pub fn at(mut self, at: u64) -> Self {
        self.at = Some(at);
        self
    }

    /// The same, speaking of one thing more.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<Fact>) -> Self {
        self.args.push(arg.into());
        self
    }
}
