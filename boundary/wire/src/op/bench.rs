//! `bench`: many requests to an image, to see how long they take.

use super::{Rules, Source, Step};
use crate::message;

message! {
    /// Read from an image, over and over, or write to it.
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
        /// None but the first reaches beyond the end of the disk.
        pub inside: bool,
        /// They write; otherwise they read.
        pub write: Option<Write>,
    }
}

message! {
    /// How requests write.
    pub struct Write {
        /// What every byte becomes.
        pub pattern: u8,
        /// Everything is made durable whenever so many requests more have been made; 0: only at the end.
        pub interval: u64,
        /// Requests wait for that, and it waits for all of them.
        pub drains: bool,
        /// Everything is made durable after each request.
        pub through: bool,
        /// Nothing is made durable but what has to be for the sake of the image itself.
        pub careless: bool,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The image is being opened.
        Step(Step) = 0,
        /// It is open, and nothing has been changed yet.
        Ready = 1,
        /// A request has failed.
        Failed = 2,
        /// The requests follow.
        Begins = 3,
        /// All of them have been made; everything was made durable so many times on the way.
        Made(u64) = 4,
    }
}
