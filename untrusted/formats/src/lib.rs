//! The image formats, one folder each.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
