//! `dd`: a part of what an image holds, into a new image or over an existing one. Its events are those of `convert`.

use super::convert;
use crate::message;

message! {
    /// Copy a part of an image.
    pub struct Request {
        /// From where to where.
        pub copy: convert::Request,
        /// The part.
        pub part: Part,
    }
}

message! {
    /// The bytes of a disk between two others.
    pub struct Part {
        /// The first one.
        pub from: u64,
        /// The one behind the last; nothing: the disk's end.
        pub until: Option<u64>,
    }
}
