//! Opening an Apple disk image: its trailer and its tables of chunks, checked.

use super::disk::{KOLY, Trailer, kind};
use super::tables;
use alloc::format;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::sector::{INVALID, SECTORS_MAX, TOO_LARGE};
use instar_image::{Error, File, Kind, Result};

/// The trailer may end anywhere in the file's last sector: it begins at most this far from the end,
const TAIL_REACH: u64 = 1023;
/// and within the first 512 bytes of the stretch that is looked at.
const TAIL_LEN: usize = 515;
/// The longest property list that is read.
const LIST_MAX: u64 = 16 << 20;
/// Kinds of chunk nobody knows that are named; there may be as many as there are chunks.
const UNKNOWN_MAX: usize = 16;

/// Where the tables of chunks are.
pub enum Tables {
    /// In a resource fork.
    Resources {
        /// Where it begins.
        at: u64,
        /// Its length.
        len: u64,
    },
    /// In a property list.
    PropertyList {
        /// Where it begins.
        at: u64,
        /// Its length, at most 16 MiB.
        len: u64,
    },
}

/// How many chunks there are of each kind.
#[derive(Default)]
pub struct Census {
    /// Zero, raw, ignored, ADC, zlib, bzip2, LZFSE, LZMA.
    pub known: [u64; 8],
    /// Kinds that nobody knows.
    pub unknown: Vec<u32>,
    /// Chunks that are for some part of the disk, of whatever kind.
    pub indexed: u64,
}

/// What an Apple disk image is, checked.
pub struct Checked {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Where the chunks' bytes begin.
    pub data_at: u64,
    /// Where the tables are.
    pub tables: Tables,
    /// Their chunks, counted.
    pub census: Census,
}

/// The names of the kinds in [`Census::known`].
pub const KINDS: [(u32, &str); 8] = [
    (kind::ZERO, "zero"),
    (kind::RAW, "raw"),
    (kind::IGNORE, "ignore"),
    (kind::ADC, "adc"),
    (kind::ZLIB, "zlib"),
    (kind::BZIP2, "bzip2"),
    (kind::LZFSE, "lzfse"),
    (kind::LZMA, "lzma"),
];

/// qemu-img gives no reason for what it refuses here.
pub fn invalid() -> Error {
    Kind::Corrupt.what(INVALID)
}

/// Where the trailer begins, if there is one.
pub fn find_trailer(file: &File<'_>) -> Result<Option<u64>> {
    let len = file.len().next_multiple_of(512);
    let start = len.saturating_sub(TAIL_REACH);
    let mut tail = [0; TAIL_LEN];
    file.read(start, &mut tail)?;
    let found = tail.windows(KOLY.len()).position(|four| four == KOLY);
    Ok(found.map(|place| start.saturating_add(u64::try_from(place).unwrap_or(u64::MAX))))
}

/// Reads and checks trailer and tables.
pub fn open(file: &File<'_>) -> Result<Checked> {
    check(file).map_err(|error| error.file(file.id()))
}

fn check(file: &File<'_>) -> Result<Checked> {
    if file.is_empty() {
        return Err(Kind::NotThisFormat.what("dmg file must be at least 512 bytes long"));
    }
    let Some(end) = find_trailer(file)? else {
        return Err(Kind::NotThisFormat.what("Could not locate UDIF trailer in dmg file"));
    };
    let trailer: Trailer = file.read_as(end)?;
    let data_at = trailer.data_fork_offset.get();
    let resources = (trailer.rsrc_fork_offset.get(), trailer.rsrc_fork_length.get());
    let list = (trailer.xml_offset.get(), trailer.xml_length.get());
    let inside = |(at, len): (u64, u64)| at <= end && len <= end.saturating_sub(at);
    let sectors = trailer.sector_count.get();
    if data_at > end || !inside(resources) || !inside(list) || sectors > i64::MAX as u64 {
        return Err(invalid());
    }
    let tables = match (resources, list) {
        ((at, len), _) if len != 0 => Tables::Resources { at, len },
        (_, (at, len)) if len != 0 && len <= LIST_MAX => Tables::PropertyList { at, len },
        _ => return Err(invalid()),
    };
    let census = count(file, &tables)?;
    if census.known.iter().all(|count| *count == 0) {
        return Err(invalid());
    }
    if sectors > SECTORS_MAX {
        return Err(Kind::TooBig.what(TOO_LARGE));
    }
    Ok(Checked { virtual_size: sectors.saturating_mul(size_of::<Trailer>() as u64), data_at, tables, census })
}

fn count(file: &File<'_>, tables: &Tables) -> Result<Census> {
    let mut census = Census::default();
    tables::walk(file, tables, &mut |_, chunk| {
        let what = chunk.kind.get();
        // A chunk that is kept as it is has the length it says.
        if what == kind::RAW && chunk.length.get().div_ceil(512) != chunk.count.get() {
            return Err(invalid());
        }
        census.indexed = census.indexed.saturating_add(u64::from(is_data(what)));
        let known = KINDS.iter().zip(&mut census.known).find(|((kind, _), _)| *kind == what);
        match known {
            Some((_, count)) => *count = count.saturating_add(1),
            None if !is_data(what) => {}
            None if census.unknown.len() < UNKNOWN_MAX && !census.unknown.contains(&what) => census.unknown.push(what),
            None => {}
        }
        Ok(())
    })?;
    Ok(census)
}

/// Whether a chunk of this kind is for some part of the disk.
pub fn is_data(what: u32) -> bool {
    what != kind::COMMENT && what != kind::END
}

/// What is said of a kind of chunk that nobody knows.
pub fn unknown_kind(what: u32) -> Error {
    Kind::Unsupported
        .what("Image contains chunks of unknown type {}, accessing them will result in I/O errors")
        .arg(format!("{what:x}"))
}
