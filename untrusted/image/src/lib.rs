//! What an image format is: the questions it answers, over bytes it is handed.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
