//! `snapshot`: the snapshots inside an image.

use super::info::Snapshot;
use super::{Rules, Source, Step};
use crate::message;
use alloc::vec::Vec;

message! {
    /// List them.
    pub struct Request {
        /// The image.
        pub source: Source,
        /// What may be taken for a format.
        pub rules: Rules,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The image is being opened.
        Step(Step) = 0,
        /// Some more snapshots, in their order.
        Snapshots(Vec<Snapshot>) = 1,
    }
}
