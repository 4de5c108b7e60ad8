//! The image formats, one folder each.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use instar_image::Format;

pub mod bochs;
pub mod cloop;
pub mod dmg;
pub mod iso;
pub mod luks;
pub mod parallels;
pub mod qcow;
pub mod qcow2;
pub mod qed;
pub mod raw;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

/// Every format that is recognised by its bytes, in the order in which they are asked.
pub const FORMATS: &[&dyn Format] = &[
    &qcow2::Qcow2,
    &qed::Qed,
    &qcow::Qcow,
    &vmdk::Vmdk,
    &vhdx::Vhdx,
    &vdi::Vdi,
    &parallels::Parallels,
    &luks::Luks,
    &bochs::Bochs,
    &cloop::Cloop,
    &dmg::Dmg,
    &vhd::Vpc,
    &iso::Iso,
];

/// The format of a file that no other claims.
pub const RAW: &dyn Format = &raw::Raw;

/// The format of that name.
pub fn by_name(name: &[u8]) -> Option<&'static dyn Format> {
    FORMATS.iter().chain(&[RAW]).copied().find(|f| f.name().as_bytes() == name)
}
