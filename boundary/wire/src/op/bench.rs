//! `bench`: many requests to an image, to see how long they take.

use super::{Rules, Source, Step};
use crate::message;

message! {
    /// Read from an image, over and over.
    pub struct Request {
        /// The image.
        pub source: Source,
        /// What may be taken for a format.
        pub rules: Rules,
        /// How many requests.
        pub count: u64,
        /// How many at once, at most.
        pub depth: u64,
        /// Where the first one begins.
        pub offset: u64,
        /// Bytes of each.
        pub size: u64,
        /// How much further on the next one begins; behind the end of the disk, at its beginning.
        pub step: u64,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The image is being opened.
        Step(Step) = 0,
        /// It is open; the requests follow.
        Ready = 1,
        /// A request has failed.
        Failed = 2,
    }
}
