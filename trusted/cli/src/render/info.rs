//! What `info` shows: the layers of an image, as text or as JSON.

mod facts;
mod human;
#[cfg(test)]
mod tests;

pub use facts::json;
pub use human::human;

use super::escape::Text;
use super::size::Rounding;
use super::snapshot::LocalTime;
use crate::profile::Profile;
use instar_wire::fact::{Fact, Field};
use instar_wire::io::Role;
use instar_wire::op::info::{Image, Snapshot};

/// One image of a chain, with all that is known of it on either side of the wall.
pub struct Layer {
    /// What the worker told.
    pub told: Image,
    /// Its internal snapshots.
    pub snapshots: Vec<Snapshot>,
    /// The name it is shown by.
    pub name: Vec<u8>,
    /// Bytes it occupies on all its files together, where that can be known.
    pub actual: Option<u64>,
    /// The files it consists of, in the order in which they were opened.
    pub nodes: Vec<Node>,
    /// Where the name of its backing file leads, when it has one and that can be known.
    pub backing_path: Option<Vec<u8>>,
    /// What its file demands of memory and requests.
    pub storage: Storage,
    /// What policy says of the files it names; empty unless asked for.
    pub verdicts: Vec<Verdict>,
}

/// A file, or something between a file and an image.
pub struct Node {
    /// Its place: `file`, `extents.0`.
    pub name: Vec<u8>,
    /// The name it is shown by.
    pub display: Vec<u8>,
    /// `file`, `host_device`, `null-co`, `nbd`, `blkdebug`.
    pub driver: Vec<u8>,
    /// Length in bytes; shown as whole sectors unless the truth is wanted.
    pub length: u64,
    /// Bytes it occupies, where that can be known.
    pub actual: Option<u64>,
    /// What lies below it, in the order in which it was opened.
    pub children: Vec<Node>,
    /// Shown as an image is, not as a file.
    pub is_format: bool,
    /// What it demands of memory and requests.
    pub storage: Storage,
}

/// What a file demands of memory and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Alignment of offsets and lengths.
    pub request: u32,
    /// Alignment of memory, at least.
    pub min_mem: u32,
    /// Alignment of memory, better.
    pub opt_mem: u32,
    /// Pieces of memory in one request.
    pub max_iov: u32,
    /// Length of a request, better; zero where any will do.
    pub opt_transfer: u32,
    /// Length of a request, at most; zero where there is no limit.
    pub max_transfer: u32,
}

impl Default for Storage {
    /// A file read through the page cache.
    fn default() -> Storage {
        Storage { request: 1, min_mem: 1, opt_mem: 4096, max_iov: 1024, opt_transfer: 0, max_transfer: 0 }
    }
}

/// What policy says of a file that an image names.
pub struct Verdict {
    /// Why the image names it.
    pub role: Role,
    /// The name, as it stands in the image.
    pub name: Vec<u8>,
    /// Why it may not be opened.
    pub refused: Option<Vec<u8>>,
}

/// How `info` is to be shown.
pub struct Manner<'a> {
    /// The version emulated.
    pub profile: &'a Profile,
    /// Tell, in JSON, how safe the image is to take from a stranger.
    pub native: bool,
    /// Tell alignments.
    pub limits: bool,
    /// Sizes as qemu-img rounds them, or plain truth.
    pub rounding: Rounding,
    /// Bytes as they are, or made safe. JSON ignores it.
    pub text: Text,
    /// The name that stands for a file's number.
    pub display: &'a dyn Fn(u32) -> Vec<u8>,
    /// Local time from seconds since 1970.
    pub local: &'a dyn Fn(i64) -> LocalTime,
}

/// Drivers of protocol nodes that behave as a file does.
const FILES: [&[u8]; 3] = [b"file", b"host_device", b"host_cdrom"];

/// Drivers below an image that tell neither cluster size nor cleanness.
const SILENT: [&[u8]; 2] = [b"null-co", b"null-aio"];

impl Layer {
    /// Whether it was not closed properly, where format and file tell that at all.
    fn dirty(&self, profile: &Profile) -> Option<bool> {
        let silent = match (&self.told.format.0[..], self.nodes.first()) {
            (b"raw", Some(node)) => SILENT.contains(&&node.driver[..]),
            (format, _) => SILENT.contains(&format),
        };
        self.told.dirty.filter(|_| !silent).map(|dirty| dirty && profile.dirty_flag())
    }

    /// What only its format knows, in qemu-img's order and with names for files.
    fn specific(&self, manner: &Manner<'_>) -> Option<Fact> {
        if FILES.contains(&&self.told.format.0[..]) {
            return Some(Fact::fields([]));
        }
        self.told.specific.as_ref().map(|fact| super::json::arranged(&named(fact, manner)))
    }

    fn limits(&self) -> Fact {
        let told = &self.told.limits;
        let request = if told.request == 0 { self.storage.request } else { told.request };
        let mut limits = vec![("write-zeroes-alignment", told.write_zeroes), ("discard-alignment", told.discard)];
        if self.told.format.0 == b"qed" {
            // qed zeroes whole clusters only, as many as a signed number of 32 bits can count.
            let cluster = self.told.cluster_size.and_then(|size| u32::try_from(size).ok()).unwrap_or(1).max(1);
            limits.push(("max-write-zeroes", i32::MAX as u32 / cluster * cluster));
        }
        Storage { request, ..self.storage }.limits(&limits)
    }
}

impl Node {
    fn shown_length(&self, rounding: Rounding) -> u64 {
        match rounding {
            Rounding::AsQemu => self.length.checked_next_multiple_of(512).unwrap_or(self.length),
            Rounding::OneDecimal => self.length,
        }
    }
}

impl Storage {
    fn limits(self, more: &[(&str, u32)]) -> Fact {
        let own = [
            ("request-alignment", self.request),
            ("min-mem-alignment", self.min_mem),
            ("opt-mem-alignment", self.opt_mem),
            ("max-iov", self.max_iov),
            ("opt-transfer", self.opt_transfer),
            ("max-transfer", self.max_transfer),
        ];
        let set = own.iter().chain(more).filter(|(_, value)| *value != 0);
        let fields = set.map(|(name, value)| Field { name: (*name).into(), value: (*value).into() });
        super::json::arranged(&Fact::Fields(fields.collect()))
    }
}

impl Verdict {
    fn role(&self) -> &'static str {
        match self.role {
            Role::Backing => "backing file",
            Role::DataFile => "data file",
            Role::Extent => "extent",
            Role::Parent => "parent",
        }
    }
}

/// The facts with every `{"file": number}` replaced by the file's name, and without what the version does not tell.
fn named(fact: &Fact, manner: &Manner<'_>) -> Fact {
    match fact {
        Fact::List(items) => Fact::List(items.iter().map(|item| named(item, manner)).collect()),
        Fact::Fields(fields) => {
            if let [Field { name, value: Fact::Count(id) }] = &fields[..]
                && name.0 == b"file"
            {
                return u32::try_from(*id).map(manner.display).unwrap_or_default()[..].into();
            }
            let told = fields.iter().filter(|f| f.name.0 != b"detached-header" || manner.profile.detached_header());
            Fact::Fields(told.map(|f| Field { name: f.name.clone(), value: named(&f.value, manner) }).collect())
        }
        plain => plain.clone(),
    }
}
