//! `compare`: whether two images hold the same content.

use super::{Rules, Source, Step};
use crate::error::Error;
use crate::message;
use alloc::boxed::Box;

message! {
    /// Compare two images.
    pub struct Request {
        /// One of them.
        pub left: Source,
        /// The other.
        pub right: Source,
        /// What may be taken for a format.
        pub rules: Rules,
        /// Their sizes, and what is allocated, must be the same as well.
        pub strict: bool,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The images are being opened.
        Step(Step) = 0,
        /// Both are open; they are so large.
        Ready(Sizes) = 1,
        /// So many bytes more have been compared.
        Done(u64) = 2,
        /// They differ. Of several, the one with the lowest offset counts.
        Differs(Differs) = 3,
        /// Something could not be compared; here, too, the lowest offset counts.
        Stopped(Box<Stopped>) = 4,
    }
}

message! {
    /// Sizes in bytes.
    pub struct Sizes {
        /// Of the one.
        pub left: u64,
        /// Of the other.
        pub right: u64,
    }
}

message! {
    /// A difference.
    pub struct Differs {
        /// Where.
        pub at: u64,
        /// In what is allocated, not in the content.
        pub in_status: bool,
    }
}

message! {
    /// Bytes that could not be compared.
    pub struct Stopped {
        /// Where in the disk.
        pub at: u64,
        /// It is the right image that is at fault.
        pub is_right: bool,
        /// Not even where the bytes lie could be found out.
        pub in_map: bool,
        /// Why.
        pub error: Error,
    }
}
