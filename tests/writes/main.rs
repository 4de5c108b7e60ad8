//! Writing: what is made or copied holds what it should, in every format and with every option, however many lanes work
//! on it; and whatever goes wrong on the way leaves the user's files as they were.
#![allow(missing_docs)]

mod ahead;
mod broken;
mod clashes;
mod devices;
mod formats;
mod judge;
mod lanes;
mod matrix;
mod options;
mod overlays;
mod readers;
mod records;
mod sizes;
mod standing;
