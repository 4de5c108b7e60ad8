//! Images made from nothing: those that qemu-img cannot write, and damage to any.

pub mod bochs;
pub mod cloop;
pub mod dmg;
pub mod mutate;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
pub mod luks2;
pub mod partition;
