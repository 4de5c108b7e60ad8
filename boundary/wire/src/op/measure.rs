//! `measure`: how large an image would be that holds what another one holds, or nothing yet.

use super::convert::Pick;
use super::{Recipe, Rules, Source, Step};
use crate::message;

message! {
    /// Measure an image that is not there.
    pub struct Request {
        /// The image that it would be a copy of.
        pub source: Option<Source>,
        /// What may be taken for a format.
        pub rules: Rules,
        /// The snapshot to read instead of the active state.
        pub snapshot: Option<Pick>,
        /// What would be made; a source has its own say in how large the disk is.
        pub recipe: Recipe,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The images are being opened.
        Step(Step) = 0,
        /// All are open.
        Ready = 1,
        /// The answer.
        Measured(Measured) = 2,
        /// What is where in the image could not be told; the outcome says more.
        Stopped = 3,
    }
}

message! {
    /// What an image takes up.
    pub struct Measured {
        /// Bytes with what it is known to hold.
        pub required: u64,
        /// Bytes if all of the disk were written to.
        pub fully_allocated: u64,
        /// Bytes for its bitmaps, which are not among the others; nothing where there can be none.
        pub bitmaps: Option<u64>,
    }
}
