//! `snapshot`: the snapshots inside an image.

use super::info::Snapshot;
use super::{Rules, Source, Step};
use crate::code::Bytes;
use crate::message;
use alloc::vec::Vec;

message! {
    /// List them, or change something about them.
    pub struct Request {
        /// The image.
        pub source: Source,
        /// What is wanted.
        pub action: Action,
        /// What may be taken for a format.
        pub rules: Rules,
    }
}

message! {
    /// What is wanted.
    pub enum Action {
        /// That they are told.
        List = 0,
        /// One more.
        Take(Taken) = 1,
        /// What the disk held at one of them: that with this identifier, or else this name.
        Apply(Bytes) = 2,
        /// One less: the first with this name.
        Delete(Bytes) = 3,
    }
}

message! {
    /// A snapshot to be taken.
    pub struct Taken {
        /// What it is called.
        pub name: Bytes,
        /// When it is taken: seconds since 1970.
        pub date_sec: u32,
        /// And nanoseconds.
        pub date_nsec: u32,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The image is being opened.
        Step(Step) = 0,
        /// Some more snapshots, in their order.
        Snapshots(Vec<Snapshot>) = 1,
        /// The image is open, and nothing has been changed yet.
        Ready = 2,
    }
}
