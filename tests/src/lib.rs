//! What the tests of the whole have in common: how they say what differs, and what they look for in images.

pub mod marks;
pub mod report;
