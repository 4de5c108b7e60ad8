//! Everything that crosses the wall between broker and cell, and nothing else.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
