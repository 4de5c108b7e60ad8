//! instar beside the real qemu-img: the same questions, the same answers, byte for byte.
#![allow(missing_docs)]

mod baselines;
mod deliberate;
mod digest;
mod live;
mod normal;
mod options;
