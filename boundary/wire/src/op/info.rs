//! `info`: what an image is, layer by layer.

use super::{FormatName, Rules, Source};
use crate::code::Bytes;
use crate::error::Error;
use crate::fact::Fact;
use crate::io::FileId;
use crate::message;
use alloc::boxed::Box;
use alloc::vec::Vec;

message! {
    /// Describe this image.
    pub struct Request {
        /// The image.
        pub top: Source,
        /// What may be taken for a format.
        pub rules: Rules,
        /// Go on down the chain.
        pub chain: bool,
        /// Also open a qcow2's external data file, as old versions did.
        pub open_data_file: bool,
        /// Tell what qemu-img hides.
        pub extra: bool,
    }
}

message! {
    /// One part of the answer, in the order of the chain, top first.
    pub enum Event {
        /// A layer.
        Image(Box<Image>) = 1,
        /// More snapshots of the layer last told.
        Snapshots(Vec<Snapshot>) = 2,
    }
}

message! {
    /// What one layer is.
    pub struct Image {
        /// Its file.
        pub file: FileId,
        /// Its format.
        pub format: FormatName,
        /// Size of the disk in bytes.
        pub virtual_size: u64,
        /// Unit of allocation, where the format has one.
        pub cluster_size: Option<u64>,
        /// The guest's bytes are encrypted.
        pub encrypted: bool,
        /// It was not closed properly; nothing where the format does not tell.
        pub dirty: Option<bool>,
        /// The layer below.
        pub backing: Option<Backing>,
        /// What only this format has: the fields of "format specific information".
        pub specific: Option<Fact>,
        /// Further files the image consists of, in their order.
        pub children: Vec<Child>,
        /// Alignments that requests should keep.
        pub limits: Limits,
        /// What qemu-img hides, when asked for.
        pub extra: Option<Fact>,
        /// What a careful service wants to know before it trusts the image.
        pub findings: Vec<Finding>,
        /// What should be said on standard error although the image could be read.
        pub warnings: Vec<Error>,
    }
}

impl Image {
    /// A description that says nothing yet but what every image has.
    pub fn plain(file: FileId, format: &str, virtual_size: u64) -> Image {
        Image {
            file,
            format: format.into(),
            virtual_size,
            cluster_size: None,
            encrypted: false,
            dirty: Some(false),
            backing: None,
            specific: None,
            children: Vec::new(),
            limits: Limits { write_zeroes: 0, discard: 0, request: 1 },
            extra: None,
            findings: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

message! {
    /// The layer below an image, as the image names it.
    pub struct Backing {
        /// The name, as it stands in the image.
        pub name: Bytes,
        /// The format that the image claims for it.
        pub format: Option<Bytes>,
    }
}

message! {
    /// A further file of an image.
    pub struct Child {
        /// Its place in the image, such as `extents.0`.
        pub name: Bytes,
        /// The file.
        pub file: FileId,
    }
}

message! {
    /// Alignments; zero where there is none to tell.
    pub struct Limits {
        /// Of writing zeroes.
        pub write_zeroes: u32,
        /// Of discarding.
        pub discard: u32,
        /// Of any request.
        pub request: u32,
    }
}

message! {
    /// An internal snapshot.
    pub struct Snapshot {
        /// Its identifier.
        pub id: Bytes,
        /// Its name.
        pub name: Bytes,
        /// Size of the saved machine state.
        pub vm_state_size: u64,
        /// When it was taken: seconds since 1970.
        pub date_sec: u32,
        /// When it was taken: nanoseconds.
        pub date_nsec: u32,
        /// How long the guest had run: nanoseconds.
        pub vm_clock_nsec: u64,
        /// Instructions the guest had run, if they were counted.
        pub icount: Option<u64>,
    }
}

message! {
    /// One answer to "is this image safe to take from a stranger?".
    pub struct Finding {
        /// What was looked at, such as `backing-file`.
        pub check: Bytes,
        /// Whether it is as it should be.
        pub ok: bool,
        /// What was found.
        pub detail: Fact,
    }
}
