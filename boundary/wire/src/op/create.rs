//! `create`: a new image that holds nothing yet.

use super::{New, Rules, Step};
use crate::message;

message! {
    /// Make this image.
    pub struct Request {
        /// What, and where.
        pub new: New,
        /// Its disk is as long as that of the image that it stands on.
        pub as_below: bool,
        /// Its file reads as zeroes wherever nothing is written.
        pub is_clean: bool,
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
        /// It is there.
        Made(Made) = 2,
    }
}

message! {
    /// What an image is that has just been made.
    pub struct Made {
        /// Bytes of its files that are its own, not the guest's.
        pub written: u64,
        /// What of its disk is given a place as one, in bytes, if it is given any in this way.
        pub unit: Option<u64>,
    }
}
