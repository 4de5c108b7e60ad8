//! Rust text as tokens and comments, without a compiler: the rules also judge a tree that does not build.

mod lex;
mod shape;
#[cfg(test)]
mod tests;

pub use lex::{Comment, Kind};
pub use shape::Source;
