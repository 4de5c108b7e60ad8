//! `create`: a new image that holds nothing yet.

use super::{New, Rules, Step};
use crate::message;

message! {
    /// Make this image.
    pub struct Request {
        /// What, and where.
        pub new: New,
        /// What may be taken for a format.
        pub rules: Rules,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// What lies below it is being opened.
        Step(Step) = 0,
        /// All that is below is open, and the disk is so many bytes long: the file may be made.
        Ready(u64) = 1,
        /// It is there: bytes of its files that are its own, not the guest's.
        Made(u64) = 2,
    }
}
