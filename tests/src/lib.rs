//! What the tests of the whole have in common: how they say what differs.

pub mod report;
