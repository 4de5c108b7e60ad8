//! The qemu-img grammar: option tables, numbers, key=value lists, JSON names.
pub mod creation;
pub mod getopt;
pub mod help;
pub mod json;
pub mod keyval;
pub mod node;
pub mod number;
pub mod object;
pub mod parse;
pub mod qdict;
pub mod stop;
pub mod table;

mod checks;
mod trace;
mod words;

#[cfg(test)]
mod records;
#[cfg(test)]
mod tests;

pub use self::parse::{Face, Given, Parsed, parse};
pub use self::stop::{Complaint, Note, Stop};
