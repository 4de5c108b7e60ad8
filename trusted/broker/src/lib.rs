//! Opens, locks, resolves and moves bytes for a cell, and interprets none of them.
#![deny(unsafe_code)]

pub mod admit;
pub mod lock;
mod mishap;
pub mod pace;
pub mod plane;
pub mod policy;
pub mod publish;
pub mod resolve;
pub mod serve;
pub mod session;
pub mod spool;
pub mod sys;

pub use serve::{Collapse, run};
pub use session::{Mishap, Session, Spares};
