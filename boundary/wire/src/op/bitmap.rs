//! `bitmap`: the bitmaps inside an image.

use super::{Rules, Source, Step};
use crate::code::Bytes;
use crate::io::Granted;
use crate::message;
use alloc::vec::Vec;

message! {
    /// Change the bitmap of a name, one action after the other.
    pub struct Request {
        /// The image.
        pub source: Source,
        /// The image whose bitmaps are merged, if it is another.
        pub from: Option<Source>,
        /// The name.
        pub name: Bytes,
        /// What is done.
        pub actions: Vec<Action>,
        /// What may be taken for a format.
        pub rules: Rules,
    }
}

message! {
    /// What is done.
    pub enum Action {
        /// There is one, of so many bytes for each bit; zero: as many as suit the image.
        Add(u64) = 0,
        /// There is none any more.
        Remove = 1,
        /// There is none of any name any more.
        RemoveAll = 2,
        /// It has no bit set.
        Clear = 3,
        /// It records what is written from now on.
        Enable = 4,
        /// It does not.
        Disable = 5,
        /// It has all that the bitmap of this name has as well.
        Merge(Bytes) = 6,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// An image is being opened.
        Step(Step) = 0,
        /// The images are open, and nothing has been changed yet.
        Ready = 1,
        /// What is wrong with the action with this number; those before it have been done.
        Refused(u64) = 2,
        /// The image could keep nothing of what was asked.
        Lost = 3,
    }
}

impl Request {
    /// The files granted with the request.
    pub(crate) fn files(&self) -> Vec<&Granted> {
        let mut files = self.source.files();
        files.extend(self.from.iter().flat_map(Source::files));
        files
    }
}
