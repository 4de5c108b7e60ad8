//! `resize`: an image gets longer or shorter where it stands.

use super::{Rules, Source, Step};
use crate::message;

message! {
    /// Give this image another size.
    pub struct Request {
        /// The image.
        pub source: Source,
        /// The size it gets.
        pub amount: Amount,
        /// How space is set aside for what is new.
        pub space: Space,
        /// What may be taken for a format.
        pub rules: Rules,
    }
}

message! {
    /// A size, or how far it is from the present one, in bytes.
    pub enum Amount {
        /// This one.
        Whole(u64) = 0,
        /// So much more.
        More(u64) = 1,
        /// So much less.
        Less(u64) = 2,
    }
}

message! {
    /// How space is set aside.
    pub enum Space {
        /// Not at all.
        Off = 0,
        /// In the tables of the image.
        Metadata = 1,
        /// By asking the file system.
        Falloc = 2,
        /// By writing zeroes.
        Full = 3,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The image is being opened.
        Step(Step) = 0,
        /// It is open, and nothing has been changed yet.
        Ready(Sizes) = 1,
        /// It has another size now, which may be rounded.
        Resized(u64) = 2,
    }
}

message! {
    /// What is about to become of an image.
    pub struct Sizes {
        /// Its size as it is.
        pub old: u64,
        /// The size it is to get; none if there can be no such size.
        pub new: Option<u64>,
    }
}

impl Amount {
    /// The size that is meant of a disk of this size; none if no disk can have it.
    pub fn of(&self, old: u64) -> Option<u64> {
        let new = match *self {
            Amount::Whole(size) => Some(size),
            Amount::More(more) => old.checked_add(more),
            Amount::Less(less) => old.checked_sub(less),
        };
        new.filter(|size| (1..=i64::MAX.unsigned_abs()).contains(size))
    }
}
