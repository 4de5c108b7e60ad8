//! The verbs, as they run inside a cell.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
