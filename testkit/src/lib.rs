//! What tests share: files in memory, image builders, the qemu-img runner.

pub mod build;
pub mod mem;
