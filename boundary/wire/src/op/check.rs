//! `check`: what is wrong in an image.

use super::{Rules, Source, Step};
use crate::error::Error;
use crate::message;
use alloc::vec::Vec;

message! {
    /// Look for errors in this image.
    pub struct Request {
        /// The image.
        pub top: Source,
        /// What may be taken for a format.
        pub rules: Rules,
        /// Look into the images below it as well.
        pub chain: bool,
        /// What is to be repaired of the image; never of those below it.
        pub repair: Repair,
    }
}

message! {
    /// What is to be repaired.
    #[derive(Copy)]
    pub enum Repair {
        /// Nothing.
        None = 0,
        /// Space that is lost.
        Leaks = 1,
        /// Everything that can be.
        All = 2,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The images are being opened.
        Step(Step) = 0,
        /// All are open.
        Ready = 1,
        /// Errors of the layer that is being looked into.
        Findings(Vec<Finding>) = 2,
        /// That was all of this layer; the one below it may follow.
        Summary(Summary) = 3,
        /// There is nothing in a layer of this format that could be checked.
        Unchecked = 4,
        /// So much of this layer has been repaired; it is looked into once more.
        Repaired(Fixed) = 5,
    }
}

message! {
    /// What a finding counts as.
    pub enum Weight {
        /// Data are or will be damaged.
        Corruption = 0,
        /// Space is lost, and nothing else.
        Leak = 1,
        /// Something could not be looked at.
        Failure = 2,
        /// Nothing; it is said all the same.
        Note = 3,
        /// Data were or would have been damaged, and that has been repaired.
        Mended = 4,
        /// Space was lost, and is free again.
        Freed = 5,
    }
}

message! {
    /// Something that is wrong.
    pub struct Finding {
        /// What it counts as.
        pub weight: Weight,
        /// For how many it counts.
        pub count: u64,
        /// What it is; without a phrase, it counts and is not told.
        pub what: Error,
    }
}

message! {
    /// What was found in a layer.
    pub struct Summary {
        /// Findings of that weight.
        pub corruptions: u64,
        /// Findings of that weight.
        pub leaks: u64,
        /// Findings of that weight.
        pub failures: u64,
        /// Units whose count is not the one that the image keeps of them.
        pub miscounts: u64,
        /// Where the part of the file ends that is in use; zero if that is not told.
        pub end: u64,
        /// Clusters of the disk, as far as they are told.
        pub clusters: Clusters,
        /// What has been repaired, and is not among the above.
        pub fixed: Fixed,
    }
}

message! {
    /// What has been repaired.
    #[derive(Copy, Default)]
    pub struct Fixed {
        /// Findings of that weight.
        pub corruptions: u64,
        /// Findings of that weight.
        pub leaks: u64,
    }
}

impl Fixed {
    /// Nothing has been.
    pub const NONE: Fixed = Fixed { corruptions: 0, leaks: 0 };

    /// Whether anything has been.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.corruptions != 0 || self.leaks != 0
    }
}

message! {
    /// Clusters of a disk; all are zero if they are not counted.
    pub struct Clusters {
        /// All there could be.
        pub total: u64,
        /// Those that have space.
        pub allocated: u64,
        /// Of those, the ones that do not follow the one before them.
        pub fragmented: u64,
        /// Of those, the compressed ones.
        pub compressed: u64,
    }
}

impl Clusters {
    /// None are counted.
    pub const NONE: Clusters = Clusters { total: 0, allocated: 0, fragmented: 0, compressed: 0 };
}

impl Summary {
    /// Nothing was found.
    pub const NONE: Summary = Summary {
        corruptions: 0,
        leaks: 0,
        failures: 0,
        miscounts: 0,
        end: 0,
        clusters: Clusters::NONE,
        fixed: Fixed::NONE,
    };

    /// What was found in this file of an image and in another.
    #[must_use]
    pub fn and(&self, other: Summary) -> Summary {
        let (a, b) = (&self.clusters, &other.clusters);
        let clusters = Clusters {
            total: a.total.saturating_add(b.total),
            allocated: a.allocated.saturating_add(b.allocated),
            fragmented: a.fragmented.saturating_add(b.fragmented),
            compressed: a.compressed.saturating_add(b.compressed),
        };
        Summary {
            corruptions: self.corruptions.saturating_add(other.corruptions),
            leaks: self.leaks.saturating_add(other.leaks),
            failures: self.failures.saturating_add(other.failures),
            miscounts: self.miscounts.saturating_add(other.miscounts),
            end: self.end.max(other.end),
            clusters,
            fixed: Fixed {
                corruptions: self.fixed.corruptions.saturating_add(other.fixed.corruptions),
                leaks: self.fixed.leaks.saturating_add(other.fixed.leaks),
            },
        }
    }
}
