//! The verbs' messages: a request in, events out, an outcome last.

pub mod amend;
pub mod bench;
pub mod bitmap;
pub mod check;
pub mod commit;
pub mod compare;
pub mod convert;
pub mod create;
pub mod dd;
pub mod info;
pub mod map;
pub mod measure;
pub mod rebase;
pub mod resize;
pub mod snapshot;

use crate::code::{Bytes, Secret};
use crate::error::Error;
use crate::fact::Fact;
use crate::io::{FileId, Granted};
use crate::message;
use alloc::boxed::Box;
use alloc::vec::Vec;

message! {
    /// What the broker asks of a worker.
    pub enum Request {
        /// Describe an image.
        Info(info::Request) = 1,
        /// Copy images into another.
        Convert(convert::Request) = 2,
        /// Compare two images.
        Compare(compare::Request) = 3,
        /// List snapshots.
        Snapshot(snapshot::Request) = 4,
        /// Measure an image's speed.
        Bench(bench::Request) = 5,
        /// Tell where an image's bytes are.
        Map(map::Request) = 6,
        /// Tell how large an image would be.
        Measure(measure::Request) = 7,
        /// Copy a part of an image.
        Dd(dd::Request) = 8,
        /// Look for errors in an image.
        Check(check::Request) = 9,
        /// Make an image.
        Create(create::Request) = 10,
        /// Give an image another size.
        Resize(resize::Request) = 11,
        /// Have an image stand on another one.
        Rebase(rebase::Request) = 14,
        /// Put what an image has into one below it.
        Commit(commit::Request) = 15,
        /// Give an image other options.
        Amend(amend::Request) = 12,
        /// Change the bitmaps of an image.
        Bitmap(bitmap::Request) = 13,
    }
}

impl Source {
    /// The same, of a file whose length has become another one.
    pub fn as_it_is(&self, len: u64) -> Source {
        Source { file: Granted { len, ..self.file.clone() }, ..self.clone() }
    }

    /// All of a file.
    pub fn whole(file: Granted) -> Source {
        let raw = Part::default();
        Source { file, part: None, raw, key: None, beside: None, below: Below::AsStored }
    }

    /// The files that the user named for it and for what lies below it.
    pub(crate) fn files(&self) -> Vec<&Granted> {
        let mut files: Vec<&Granted> = core::iter::once(&self.file).chain(&self.beside).collect();
        files.extend(self.below.files());
        files
    }
}

impl Below {
    pub(crate) fn files(&self) -> Vec<&Granted> {
        match self {
            Below::AsStored | Below::None => Vec::new(),
            Below::Over(over) => over.below.files(),
            Below::Instead(source) => source.files(),
        }
    }
}

impl Request {
    /// The files granted with the request.
    pub fn files(&self) -> Vec<&Granted> {
        match self {
            Request::Info(request) => request.top.files(),
            Request::Convert(request) => request.files(),
            Request::Compare(request) => [request.left.files(), request.right.files()].concat(),
            Request::Snapshot(request) => request.source.files(),
            Request::Bench(request) => request.source.files(),
            Request::Check(request) => request.top.files(),
            Request::Map(request) => request.top.files(),
            Request::Measure(request) => request.source.iter().flat_map(Source::files).collect(),
            Request::Dd(dd::Request { copy, .. }) => copy.files(),
            Request::Create(request) => request.new.files(),
            Request::Rebase(request) => request.files(),
            Request::Commit(request) => request.files(),
            Request::Resize(request) => request.source.files(),
            Request::Amend(request) => request.source.files(),
            Request::Bitmap(request) => request.files(),
        }
    }
}

message! {
    /// How a verb ended.
    pub enum Outcome {
        /// All events have been sent.
        Done = 0,
        /// It could not be done.
        Failed(Error) = 1,
    }
}

message! {
    /// A file the user named, and what the user said about it.
    pub struct Source {
        /// The file, and the format the user named.
        pub file: Granted,
        /// The part of the file that the image is, if it is not all of it.
        pub part: Option<Part>,
        /// Offset and size of a raw image.
        pub raw: Part,
        /// What opens it, if it is encrypted.
        pub key: Option<Secret>,
        /// The file that the user says belongs to it: the header of luks, the data of qcow2.
        pub beside: Option<Granted>,
        /// What lies below it.
        pub below: Below,
    }
}

message! {
    /// What the user says of the image below another.
    pub enum Below {
        /// Nothing: it is what the image above names.
        AsStored = 0,
        /// There is none.
        None = 1,
        /// It is what the image above names, and more is said of it.
        Over(Box<Over>) = 2,
        /// It is this one.
        Instead(Box<Source>) = 3,
    }
}

message! {
    /// What the user says of an image that another one names.
    pub struct Over {
        /// Its format.
        pub format: Option<Bytes>,
        /// Offset and size of a raw image.
        pub raw: Part,
        /// What opens it, if it is encrypted.
        pub key: Option<Secret>,
        /// What lies below it.
        pub below: Below,
    }
}

message! {
    /// How far the opening of images has come.
    pub enum Step {
        /// The next image is being opened.
        Image = 0,
        /// A layer of it has been opened; the one below it is looked for next.
        Layer(Layer) = 1,
        /// Errors of the first one that had to be repaired before it can be changed.
        Found(Vec<check::Finding>) = 2,
    }
}

message! {
    /// A layer of an image.
    pub struct Layer {
        /// Its file.
        pub file: FileId,
        /// Its format.
        pub format: FormatName,
        /// Size of the disk in bytes.
        pub virtual_size: u64,
        /// What should be said although it could be opened.
        pub warnings: Vec<Error>,
    }
}

message! {
    /// A part of a file, as the user described it.
    #[derive(Default)]
    pub struct Part {
        /// Its first byte.
        pub offset: Option<u64>,
        /// Its length.
        pub size: Option<u64>,
    }
}

message! {
    /// An image that the user wants: all that decides how it is laid out.
    pub struct Recipe {
        /// Its format.
        pub format: FormatName,
        /// Size of the disk in bytes.
        pub size: u64,
        /// The options of the format that were given, by their names: texts, numbers and truths.
        pub options: Fact,
    }
}

message! {
    /// An image that is to be made, and where.
    pub struct New {
        /// What.
        pub recipe: Recipe,
        /// Where: promised, and there when it has been told how large the disk is.
        pub file: Granted,
        /// A second file that the user named for it: the data file of qcow2.
        pub beside: Option<Granted>,
        /// The image that it stands on, if it is looked at.
        pub backing: Option<Source>,
        /// What its key is kept under, if it is encrypted.
        pub key: Option<Secret>,
        /// The name of the file, without the directory: its parts are named after it.
        pub name: Bytes,
        /// What identifiers and keys are drawn from.
        pub seed: Secret,
        /// When it is made: seconds since 1970.
        pub time: u64,
    }
}

impl New {
    pub(crate) fn files(&self) -> Vec<&Granted> {
        let mut files: Vec<&Granted> = core::iter::once(&self.file).chain(&self.beside).collect();
        files.extend(self.backing.iter().flat_map(Source::files));
        files
    }
}

impl Recipe {
    /// A number among the options.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.options.get(name)? {
            Fact::Count(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether an option is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.options.get(name) == Some(&Fact::Truth(true))
    }

    /// A text among the options.
    pub fn text(&self, name: &str) -> Option<&[u8]> {
        match self.options.get(name)? {
            Fact::Text(text) => Some(&text.0),
            _ => None,
        }
    }
}

message! {
    /// What may be taken for a format.
    pub struct Rules {
        /// Anything that no format recognises is raw, an ISO 9660 is raw, and a format name in an image is obeyed.
        pub as_qemu: bool,
        /// The qemu-img version whose refusals count: 100 times the major number plus the minor one.
        pub version: u32,
    }
}

/// A format's name, as on the command line.
pub type FormatName = Bytes;
