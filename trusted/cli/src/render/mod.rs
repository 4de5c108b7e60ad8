//! The words that go out: sizes, escapes, JSON, the text of `info`, the sentences of errors.

pub mod check;
pub mod dump;
pub mod escape;
pub mod info;
pub mod json;
pub mod map;
pub mod options;
pub mod progress;
pub mod sentence;
pub mod size;
pub mod snapshot;
pub mod spool;
