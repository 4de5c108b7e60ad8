//! Where bytes come from: the answer that every format gives, as plain data.

use instar_codec::unpack::Codec;
use instar_wire::io::FileId;

/// A byte of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// The offset.
    pub at: u64,
}

impl Place {
    /// The byte `n` bytes further on.
    #[must_use]
    pub fn ahead(self, n: u64) -> Place {
        Place { at: self.at.saturating_add(n), ..self }
    }
}

/// Bytes that are compressed as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unit {
    /// How they are compressed.
    pub codec: Codec,
    /// Where the compressed bytes begin.
    pub place: Place,
    /// How many compressed bytes there are at most.
    pub len: u64,
    /// How many bytes they make.
    pub size: u64,
    /// They make no more than that; if the compression marks its end it must be there, and its sum right.
    pub whole: bool,
}

/// How the bytes of a run come about. Plain data: it can be printed, compared, cut and handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// They are zeroes.
    Zero {
        /// Space that the image keeps for them all the same.
        reserved: Option<Place>,
    },
    /// They lie in a file as they are, or encrypted.
    Raw {
        /// Where.
        place: Place,
        /// If they are encrypted: the byte that initialisation vectors count the first of them as.
        tweak: Option<u64>,
        /// Holes of the file may be told as such: the format has set space aside without writing to it.
        sparse: bool,
    },
    /// They should lie in a file that ends before: zeroes.
    Beyond {
        /// Where.
        place: Place,
        /// As of [`Source::Raw`]: what is not there may be told as a hole.
        sparse: bool,
    },
    /// They are part of what a compressed unit makes.
    Packed {
        /// The unit.
        unit: Unit,
        /// Bytes of it before the run.
        skip: u64,
    },
    /// The layer below has them, although this one keeps space for them. Only a layer says so, never a chain.
    Hollow {
        /// Where they would lie.
        place: Place,
    },
    /// They only exist once a log has been replayed; the layer has them.
    Inline {
        /// Where they would lie.
        place: Place,
    },
}

impl Source {
    /// Zeroes without space of their own.
    pub const ZERO: Source = Source::Zero { reserved: None };

    /// Bytes in a file as they are.
    pub fn raw(place: Place) -> Source {
        Source::Raw { place, tweak: None, sparse: false }
    }

    /// Whether the bytes are zeroes without being looked at.
    pub fn is_zero(&self) -> bool {
        matches!(self, Source::Zero { .. } | Source::Beyond { .. } | Source::Hollow { .. })
    }
}

/// What can be said of a run: neighbours may be one, and a run can be cut at its front.
pub trait Piece: Copy {
    /// Whether `next` goes on where `len` bytes of `self` end, in the same manner.
    fn joins(&self, len: u64, next: &Self) -> bool;
    /// What remains without the first `n` bytes.
    #[must_use]
    fn cut(self, n: u64) -> Self;
}

impl Piece for Source {
    fn joins(&self, len: u64, next: &Self) -> bool {
        match (*self, *next) {
            (Source::Zero { reserved: None }, Source::Zero { reserved: None }) => true,
            // Two halves of one unit are one run; two units never are.
            (Source::Packed { unit: a, skip }, Source::Packed { unit: b, skip: next }) => {
                a == b && skip.checked_add(len) == Some(next)
            }
            (Source::Zero { reserved: None } | Source::Packed { .. }, _) => false,
            (here, next) => here.cut(len) == next,
        }
    }

    fn cut(self, n: u64) -> Self {
        match self {
            Source::Zero { reserved } => Source::Zero { reserved: reserved.map(|place| place.ahead(n)) },
            Source::Raw { place, tweak, sparse } => {
                Source::Raw { place: place.ahead(n), tweak: tweak.map(|at| at.saturating_add(n)), sparse }
            }
            Source::Beyond { place, sparse } => Source::Beyond { place: place.ahead(n), sparse },
            Source::Packed { unit, skip } => Source::Packed { unit, skip: skip.saturating_add(n) },
            Source::Hollow { place } => Source::Hollow { place: place.ahead(n) },
            Source::Inline { place } => Source::Inline { place: place.ahead(n) },
        }
    }
}

/// A layer's answer; nothing means "not here, ask the layer below".
impl Piece for Option<Source> {
    fn joins(&self, len: u64, next: &Self) -> bool {
        match (self, next) {
            (None, None) => true,
            (Some(here), Some(next)) => here.joins(len, next),
            _ => false,
        }
    }

    fn cut(self, n: u64) -> Self {
        self.map(|source| source.cut(n))
    }
}
