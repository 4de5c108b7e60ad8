//! Images in use: what qemu locks, instar respects, and what instar locks, qemu respects.
//!
//! Both directions go through whole programs. The broker's own lock code is tried in `trusted/broker/tests/lock.rs`.
#![allow(missing_docs)]

mod images;
mod instar_holds;
mod qemu_holds;
