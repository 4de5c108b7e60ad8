//! Command lines that real services run, in the surroundings that they run them in; the instar face, its configuration.
#![allow(missing_docs)]

mod against;
mod amend;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod config;
mod convert;
mod convert_files;
mod copies;
mod corrupt;
mod create;
mod dd;
mod dd_files;
mod described;
mod disks;
mod info;
mod interrupted;
mod lanes;
mod map;
mod material;
mod measure;
mod native;
mod rebase;
mod repair;
mod requests;
mod resize;
mod shared;
mod snapshot;
mod space;
mod surroundings;
