//! What an image format is: the questions it answers, over bytes it is handed.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod cache;
pub mod file;
pub mod format;
pub mod num;
pub mod probe;
pub mod sector;
#[cfg(test)]
mod tests;
pub mod text;

pub use file::{File, Io};
pub use format::{Format, Image, Options};
pub use instar_wire::code::{Bytes, Secret};
pub use instar_wire::error::{Error, Kind, Result};
pub use instar_wire::fact::Fact;
pub use instar_wire::io::{FileId, Granted, Related, Role};
pub use instar_wire::op::info;
