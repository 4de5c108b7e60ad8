//! Images made from nothing: those that qemu-img cannot write, and damage to any.

pub mod bochs;
pub mod cloop;
pub mod crowd;
pub mod dmg;
pub mod fragmented;
pub mod luks2;
pub mod mutate;
pub mod partition;
pub mod thin;
pub mod trial;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
