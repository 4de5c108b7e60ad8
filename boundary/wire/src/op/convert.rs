//! `convert`: what images hold, one after the other, into a new image or over an existing one.

use super::{Rules, Source, Step};
use crate::code::Bytes;
use crate::error::Error;
use crate::io::Granted;
use crate::message;
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
        /// Bytes of each image, from its beginning and after so many of them; for `dd`.
        pub window: Option<Window>,
        /// Where to.
        pub target: Target,
        /// Runs of zeroes of this many bytes are not written; 0: all are.
        pub sparse: u32,
        /// What cannot be read becomes zeroes.
        pub salvage: bool,
        /// Bytes are copied by the file system wherever it can, zeroes or not.
        pub offload: bool,
        /// What is copied is told as it goes.
        pub progress: bool,
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
    /// A part of a disk.
    pub struct Window {
        /// Bytes passed over.
        pub skip: u64,
        /// Bytes taken at most.
        pub count: Option<u64>,
    }
}

message! {
    /// Where to.
    pub struct Target {
        /// The file; promised, and made or opened when [`Event::Ready`] has told how large.
        pub file: Granted,
        /// First byte of it that is written.
        pub at: u64,
        /// It is there already, and large enough.
        pub exists: bool,
        /// Nothing but zeroes is there.
        pub is_zero: bool,
        /// What space is set aside.
        pub preallocation: Preallocation,
    }
}

message! {
    /// How space is set aside.
    pub enum Preallocation {
        /// Not at all.
        Off = 0,
        /// By asking the file system.
        Falloc = 1,
        /// By writing zeroes.
        Full = 2,
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
        /// What is at this offset could not be read, and became zeroes.
        Salvaged(Trouble) = 3,
        /// What is at this offset could not be read or written; the outcome says more.
        Stopped(u64) = 4,
    }
}

message! {
    /// Bytes that could not be read.
    pub struct Trouble {
        /// Where they would have gone.
        pub at: u64,
        /// How many.
        pub len: u64,
        /// Why.
        pub error: Error,
    }
}
