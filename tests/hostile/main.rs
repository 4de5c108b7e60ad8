//! Files that mean harm, or were harmed: instar says one line and goes on living.
#![allow(missing_docs)]

mod bombs;
mod chains;
mod changes;
mod fields;
mod inside;
mod names;
mod odd;
mod outside;
mod overlay;
mod references;
mod sane;
mod seeds;
mod trial;
mod verbs;
