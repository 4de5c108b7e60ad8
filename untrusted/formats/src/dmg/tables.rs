//! The tables of chunks of an Apple disk image, read in pieces out of a property list or a resource fork.

use super::disk::{Block, Chunk, MISH};
use super::open::{Tables, invalid};
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::{File, Result, num};
use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

/// Tables are read in pieces of this length.
const PIECE: u64 = 64 << 10;
/// What encloses a table in a property list.
const OPEN_TAG: &[u8] = b"<data>";
const CLOSE_TAG: &[u8] = b"</data>";

/// Takes the chunks in their order, each with the block it belongs to.
pub type Each<'e> = &'e mut dyn FnMut(&Block, &Chunk) -> Result<()>;

/// Shows `each` every chunk of every table.
pub fn walk(file: &File<'_>, tables: &Tables, each: Each<'_>) -> Result<()> {
    match *tables {
        Tables::Resources { at, len } => resources(file, at, len, each),
        Tables::PropertyList { at, len } => property_list(file, at, len, each),
    }
}

fn pieces(file: &File<'_>, at: u64, len: u64, mut take: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
    let end = num::add(at, len, invalid)?;
    let mut at = at;
    while at < end {
        let piece = num::bounded(end.saturating_sub(at).min(PIECE), PIECE, invalid)?;
        if !take(&file.read_vec(at, piece)?)? {
            break;
        }
        at = at.saturating_add(PIECE);
    }
    Ok(())
}

/// A resource fork: where its data begin, and how many they are; then one table after another, each with its length.
fn resources(file: &File<'_>, fork_at: u64, fork_len: u64, each: Each<'_>) -> Result<()> {
    let word = |at: u64| file.read_as::<U32>(at).map(|word| u64::from(word.get()));
    let data_offset = word(fork_at)?;
    let data_len = word(num::add(fork_at, 8, invalid)?)?;
    if data_offset > fork_len || data_len == 0 || data_len > fork_len.saturating_sub(data_offset) {
        return Err(invalid());
    }
    let mut at = num::add(fork_at, data_offset, invalid)?;
    let end = num::add(at, data_len, invalid)?;
    while at < end {
        let len = word(at)?;
        // qemu-img forgets that the length itself takes four bytes.
        if len == 0 || len > end.saturating_sub(at) {
            return Err(invalid());
        }
        at = num::add(at, 4, invalid)?;
        let mut table = Table::new();
        pieces(file, at, len, |piece| table.feed(piece, each).map(|()| true))?;
        at = num::add(at, len, invalid)?;
    }
    Ok(())
}

/// A property list: every table stands in base64 between two tags. Nothing else of the list is looked at.
fn property_list(file: &File<'_>, at: u64, len: u64, each: Each<'_>) -> Result<()> {
    let mut outside = Tag::new(OPEN_TAG);
    let mut inside: Option<Inside> = None;
    pieces(file, at, len, |piece| {
        for byte in piece {
            if *byte == 0 {
                return Ok(false);
            }
            let ended = match &mut inside {
                Some(table) => table.feed(*byte, each)?,
                None if outside.matches(*byte) => {
                    inside = Some(Inside::new());
                    false
                }
                None => false,
            };
            if ended {
                inside = None;
            }
        }
        Ok(true)
    })?;
    // A table that does not end is no table.
    if inside.is_some() { Err(invalid()) } else { Ok(()) }
}

/// Looks for a tag, byte after byte. The tag's first byte is nowhere else in it.
struct Tag {
    tag: &'static [u8],
    matched: usize,
}

impl Tag {
    fn new(tag: &'static [u8]) -> Self {
        Tag { tag, matched: 0 }
    }

    /// Whether the tag ends with this byte.
    fn matches(&mut self, byte: u8) -> bool {
        if self.tag.get(self.matched) == Some(&byte) {
            self.matched = self.matched.saturating_add(1);
        } else {
            self.matched = usize::from(self.tag.first() == Some(&byte));
        }
        let whole = self.matched == self.tag.len();
        if whole {
            self.matched = 0;
        }
        whole
    }
}

/// A table under way in a property list.
struct Inside {
    end: Tag,
    letters: Base64,
    table: Table,
}

impl Inside {
    fn new() -> Self {
        Inside {
            end: Tag::new(CLOSE_TAG),
            letters: Base64 { word: 0, count: 0, pads: [false; 2] },
            table: Table::new(),
        }
    }

    /// Takes a byte; answers whether the table ended.
    fn feed(&mut self, byte: u8, each: Each<'_>) -> Result<bool> {
        let held = self.end.matched;
        if self.end.matches(byte) {
            return Ok(true);
        }
        if self.end.matched > held {
            return Ok(false);
        }
        // What looked like the end was text after all.
        for letter in CLOSE_TAG.iter().take(held) {
            self.letter(*letter, each)?;
        }
        if self.end.matched == 0 {
            self.letter(byte, each)?;
        }
        Ok(false)
    }

    fn letter(&mut self, letter: u8, each: Each<'_>) -> Result<()> {
        match self.letters.take(letter) {
            Some((bytes, count)) => self.table.feed(bytes.get(..count).unwrap_or(&[]), each),
            None => Ok(()),
        }
    }
}

/// Four letters make three bytes; what is no letter is passed over.
struct Base64 {
    word: u32,
    count: u8,
    pads: [bool; 2],
}

impl Base64 {
    fn take(&mut self, letter: u8) -> Option<([u8; 3], usize)> {
        let value = match letter {
            b'A'..=b'Z' => letter.wrapping_sub(b'A'),
            b'a'..=b'z' => letter.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => letter.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            _ => return None,
        };
        self.word = self.word << 6 | u32::from(value);
        self.count = self.count.wrapping_add(1);
        let [_, last] = self.pads;
        self.pads = [last, letter == b'='];
        if self.count < 4 {
            return None;
        }
        self.count = 0;
        let [_, a, b, c] = self.word.to_be_bytes();
        Some(match self.pads {
            [false, false] => ([a, b, c], 3),
            [false, true] => ([a, b, 0], 2),
            [true, false] => ([a, c, 0], 2),
            [true, true] => ([a, 0, 0], 1),
        })
    }
}

/// A table under way: its head, then chunk after chunk.
struct Table {
    head: Option<Block>,
    bytes: Vec<u8>,
}

impl Table {
    fn new() -> Self {
        Table { head: None, bytes: Vec::new() }
    }

    /// Takes bytes. A table with another signature is passed over; so is the part of a chunk at its end.
    fn feed(&mut self, bytes: &[u8], each: Each<'_>) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        let mut rest = self.bytes.as_slice();
        if self.head.is_none() {
            if rest.len() < size_of::<Block>() {
                return Ok(());
            }
            let (block, after) = Block::read_from_prefix(rest).map_err(|_| invalid())?;
            self.head = Some(block);
            rest = after;
        }
        if let Some(block) = &self.head {
            while let Ok((chunk, after)) = Chunk::read_from_prefix(rest) {
                if &block.signature == MISH {
                    each(block, &chunk)?;
                }
                rest = after;
            }
        }
        let used = self.bytes.len().saturating_sub(rest.len());
        self.bytes.drain(..used);
        Ok(())
    }
}
