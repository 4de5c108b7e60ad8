//! Everything that crosses the wall between broker and cell, and nothing else.
//!
//! Two kinds of traffic share one lane. *Calls* ([`io::Call`], [`io::Answer`]) are fixed structures in the lane's page:
//! the worker asks for bytes, names a related file, or hands over a message. *Messages* ([`op`]) are the requests and
//! events of the verbs, written with [`code`] into the lane's data slot. Whoever reads either treats it as hostile.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod boot;
pub mod code;
pub mod error;
pub mod fact;
pub mod io;
pub mod op;
mod tripwire;
