//! `convert`: what images hold, one after the other, into a new image or over an existing one.

use super::{New, Rules, Source, Step};
use crate::code::Bytes;
use crate::error::Error;
use crate::io::Granted;
use crate::message;
use alloc::boxed::Box;
use alloc::vec::Vec;

message! {
    /// Copy these images.
    pub struct Request {
        /// The images, in their order.
        pub sources: Vec<Source>,
        /// What may be taken for a format.
        pub rules: Rules,
        /// The snapshot to read instead of the active state.
        pub snapshot: Option<Pick>,
        /// What of each image is meant.
        pub share: Share,
        /// Where to.
        pub target: Target,
        /// Runs of zeroes of this many bytes are not written; 0: all are.
        pub sparse: u32,
        /// What cannot be read becomes zeroes.
        pub salvage: bool,
        /// Bytes are copied by the file system wherever it can, zeroes or not.
        pub offload: bool,
        /// Bitmaps are copied as well.
        pub bitmaps: Bitmaps,
        /// What is told as it goes.
        pub progress: Progress,
    }
}

message! {
    /// What of an image is meant.
    pub enum Share {
        /// All of it.
        Whole = 0,
        /// Only what so many of its topmost layers have: what lies below is in the target already.
        Above(u64) = 1,
        /// Only what its topmost layer does not have, as far as the target does not read as that.
        Below = 2,
    }
}

message! {
    /// A snapshot, as the user named it.
    pub enum Pick {
        /// By its identifier, or else by its name.
        Either(Bytes) = 0,
        /// By its identifier, its name, or both.
        Both(Named) = 1,
    }
}

message! {
    /// What is known of a snapshot.
    pub struct Named {
        /// Its identifier.
        pub id: Option<Bytes>,
        /// Its name.
        pub name: Option<Bytes>,
    }
}

message! {
    /// Where to.
    pub struct Target {
        /// The image.
        pub goal: Goal,
        /// First byte of its disk that is written.
        pub at: u64,
        /// How long its disk shall be; if that is not said, as long as what is copied needs.
        pub len: Option<u64>,
        /// Nothing but zeroes is there.
        pub is_zero: bool,
        /// Space of its file that nothing was written to reads as zeroes.
        pub is_clean: bool,
        /// Units are written in fewer bytes than they have.
        pub compress: bool,
    }
}

message! {
    /// An image that is written to.
    pub enum Goal {
        /// A new one, made when [`Event::Ready`] has told how large.
        New(Box<New>) = 1,
        /// One that is there, opened to be written to; its file is there when [`Event::Ready`] has been told.
        There(Box<Source>) = 2,
        /// A file that takes whatever comes, from here on.
        Stream(Stream) = 3,
    }
}

message! {
    /// A file that takes whatever comes.
    pub struct Stream {
        /// The file.
        pub file: Granted,
        /// First byte of it that is written.
        pub at: u64,
    }
}

impl Request {
    /// The files granted with the request.
    pub fn files(&self) -> Vec<&Granted> {
        let goal = match &self.target.goal {
            Goal::New(new) => new.files(),
            Goal::There(source) => source.files(),
            Goal::Stream(stream) => Vec::from([&stream.file]),
        };
        self.sources.iter().flat_map(Source::files).chain(goal).collect()
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The images are being opened.
        Step(Step) = 0,
        /// All are open, and together so many bytes long: the target may be made.
        Ready(u64) = 1,
        /// So many bytes more have been dealt with.
        Done(u64) = 2,
        /// These bytes could not be read, and became zeroes.
        Salvaged(Trouble) = 3,
        /// These bytes could not be read or written.
        Stopped(Trouble) = 4,
        /// Among all that is to be copied, so many bytes are not zeroes as far as the images tell.
        Work(u64) = 5,
        /// There is no such snapshot; the outcome says more.
        Unpicked = 6,
        /// The target could not be given its length or its space; the outcome says more.
        Unmade = 7,
        /// What was to be copied begins beyond the end of the image.
        Beyond = 8,
        /// The first place of all of which the images do not tell what is there, whatever else went wrong.
        Unmapped(Trouble) = 9,
        /// The image to be written to could not be opened; the outcome says more.
        Unopened = 10,
        /// A bitmap is broken; it is passed over, or the outcome says more.
        Broken(Bytes) = 11,
        /// So much of what was to be copied was not there already, and was written.
        Written(Written) = 12,
        /// An image that had so many units of its own has none any more.
        Emptied(u64) = 13,
    }
}

message! {
    /// What had to be written.
    pub struct Written {
        /// Bytes of the disk.
        pub bytes: u64,
        /// What of the target's disk gets its place as one.
        pub unit: u64,
    }
}

message! {
    /// Which bitmaps are copied.
    pub enum Bitmaps {
        /// None.
        None = 0,
        /// All; a broken one is an error.
        All = 1,
        /// All but the broken ones.
        Sound = 2,
    }
}

message! {
    /// What is counted on the way.
    pub enum Progress {
        /// The bytes of the disk that have been passed.
        Passed = 0,
        /// Those of them that had to be moved, of which [`Event::Work`] tells beforehand.
        Moved = 1,
    }
}

message! {
    /// Bytes with which something went wrong.
    pub struct Trouble {
        /// Where they are in their own image.
        pub at: u64,
        /// Where they are among all that is copied.
        pub to: u64,
        /// How many.
        pub len: u64,
        /// Their image does not tell what is there.
        pub in_map: bool,
        /// Why.
        pub error: Error,
    }
}
