//! `amend`: an image gets other options of its format.

use super::{Recipe, Rules, Source, Step};
use crate::code::Secret;
use crate::error::Error;
use crate::message;
use alloc::vec::Vec;

message! {
    /// Give this image these options.
    pub struct Request {
        /// The image.
        pub source: Source,
        /// What is wanted, for each format that it may have.
        pub wishes: Vec<Recipe>,
        /// It is done although all that the disk holds may be lost by it.
        pub is_forced: bool,
        /// What a slot for keys is to be opened with.
        pub new_secret: Option<Secret>,
        /// What opens the slots that are meant.
        pub old_secret: Option<Secret>,
        /// What keys are sealed with is drawn from this.
        pub seed: Secret,
        /// What may be taken for a format.
        pub rules: Rules,
        /// It is of interest what it says of itself then.
        pub is_told: bool,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The image is being opened.
        Step(Step) = 0,
        /// It is open, and nothing has been changed yet.
        Ready = 1,
        /// Some of the work has been done.
        Progress(Progress) = 2,
        /// All of it has been done.
        Amended(Amended) = 3,
        /// It is done, but should not be asked for.
        Warning(Error) = 4,
        /// It can be changed, and that begins now.
        Begun = 5,
    }
}

message! {
    /// How far it has come.
    pub struct Progress {
        /// So much has been done.
        pub done: u64,
        /// Of so much.
        pub total: u64,
    }
}

message! {
    /// What has become of an image.
    pub struct Amended {
        /// It is another one than before.
        pub is_changed: bool,
        /// The version of the format that it says it has, if it says any.
        pub compat: Option<crate::code::Bytes>,
        /// Whether its counts may be written late, if it says that.
        pub is_lazy: Option<bool>,
    }
}
