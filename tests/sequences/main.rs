//! Many changes one after the other: what becomes of an image is what the real program makes of it, step by step; and a
//! program that is killed in the middle of one leaves the old image or the new one.
#![allow(missing_docs)]

mod deliberate;
mod equal;
mod furniture;
mod killed;
mod look;
mod start;
mod step;
