//! Command lines that real services run, in the surroundings that they run them in.
#![allow(missing_docs)]

mod disks;
mod info;
mod surroundings;
