//! Images in use: what qemu locks, instar respects, and what instar locks, qemu respects.
//!
//! Both directions go through whole programs. A test of the broker's own lock code (take the lock in this process, ask
//! a real qemu-io) belongs into `library.rs` beside this file once that code can be called from outside its crate.
#![allow(missing_docs)]

mod holder;
mod instar_holds;
mod qemu_holds;
