//! What an image format is: the questions it answers, over bytes it is handed.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod batch;
pub mod bitmap;
pub mod bits;
pub mod blocks;
pub mod cache;
pub mod census;
pub mod chain;
pub mod counts;
pub mod draft;
pub mod edit;
pub mod file;
pub mod format;
pub mod former;
pub mod grow;
pub mod holes;
pub mod layer;
pub mod measure;
pub mod num;
pub mod parent;
pub mod probe;
pub mod pump;
mod ranges;
pub mod read;
pub mod row;
pub mod sector;
pub mod site;
pub mod source;
pub mod stage;
pub mod straight;
mod stream;
pub mod stretch;
pub mod table;
pub mod tally;
pub mod target;
#[cfg(test)]
mod tests;
pub mod text;
pub mod walk;

pub use batch::Batch;
pub use census::{Census, Scope};
pub use chain::{Chain, Found};
pub use edit::Edit;
pub use file::{Drive, File, Io};
pub use format::{Fixed, Format, Image, Options, Order, Purpose, Repair, Report, Summary};
pub use instar_codec::random::Random;
pub use instar_wire::code::{Bytes, Secret};
pub use instar_wire::error::{Error, Kind, Result};
pub use instar_wire::fact::Fact;
pub use instar_wire::io::{FileId, Freed, Granted, Related, Role};
pub use instar_wire::op::measure::Measured;
pub use instar_wire::op::{Recipe, info};
pub use layer::{Cursor, Layer};
pub use measure::Content;
pub use read::Reader;
pub use site::{Preallocation, Site};
pub use source::{Place, Source, Unit};
pub use table::Table;
pub use target::Target;
pub use walk::Walk;
