//! A stream in the making: grains in their order, each table behind its grains, then the directory and the header.

use super::disk::{
    AT_END, FLAG_SECOND_DIRECTORY, GRAIN_MARKER_LEN, Hosted, MARKER_DIRECTORY, MARKER_TABLE, Marker, ZERO_GRAIN,
};
use super::reserve::{footer, full, sector, taken, unpacked};
use super::sparse::{Sparse, forward};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::pack::{Method, Press};
use instar_image::num::split;
use instar_image::sector::SECTOR;
use instar_image::target::{Packer, Packing, Rest, Spot, What};
use instar_image::{Drive, File, FileId, Kind, Place, Result};
use zerocopy::IntoBytes;

/// Where the grains of a stream begin: header and descriptor are before.
pub const GRAINS_AT: u64 = 64 << 10;
/// Bytes that a block of deflate can have which is stored as it is.
const STORED_MAX: usize = 65535;

impl Marker {
    /// Of a part of this kind that fills so many sectors.
    pub fn of(kind: u32, sectors: u64) -> Marker {
        Marker { value: sectors.into(), size: 0.into(), kind: kind.into(), rest: [0; 496] }
    }
}

/// An extent that has no grains yet, and becomes a stream. Its first tables, which are in front of the grains, go.
pub struct Stream {
    file: FileId,
    header: Hosted,
    /// Where the text ends.
    front_at: u64,
    /// Where all ends that tells that there are no grains yet, and the header at that end, if there is one.
    until: u64,
    last: Option<Hosted>,
    /// Where the grains begin.
    grains_at: u64,
    size: u64,
    grain_len: u64,
    zeroable: bool,
    is_over: bool,
    /// Where each table is that has been written, in sectors.
    directory: Vec<u32>,
    /// The table that grains are put into now, and its number.
    table: Vec<u32>,
    number: u64,
    end: u64,
    is_begun: bool,
    /// Somebody relies on what is there until it leads to something else.
    keeps_order: bool,
}

impl Stream {
    /// Of this extent, which is all of the disk.
    pub fn new(file: &File<'_>, sparse: &Sparse, size: u64, is_over: bool) -> Result<Stream> {
        let header: Hosted = file.read_as(0)?;
        let text_end = header.desc_offset.get().saturating_add(header.desc_size.get()).saturating_mul(SECTOR);
        let table_count = usize::try_from(sparse.table_count).unwrap_or(0);
        Ok(Stream {
            file: file.id(),
            header,
            front_at: text_end.max(SECTOR),
            until: sparse.footer_at.unwrap_or(file.len()).next_multiple_of(SECTOR),
            last: sparse.footer_at.map(|_| forward(file, sparse.footer_at)).transpose()?,
            grains_at: 0,
            size,
            grain_len: sparse.grain_sectors.saturating_mul(SECTOR),
            zeroable: sparse.zeroable,
            is_over,
            directory: Vec::new(),
            table: vec![0; table_count],
            number: 0,
            end: GRAINS_AT.max(text_end),
            is_begun: false,
            keeps_order: false,
        })
    }

    fn place(&self, at: u64) -> Place {
        Place { file: self.file, at }
    }

    /// Somebody relies on what is there: grains go behind it.
    pub fn keep_order(&mut self) {
        self.keeps_order = true;
        self.end = self.end.max(self.until);
    }

    /// Where the grain may go that has the byte at `at`; `is_whole`: all of it is written.
    pub fn reserve(&mut self, at: u64, is_whole: bool, what: What, drive: &dyn Drive) -> Result<Option<Spot>> {
        let (grain, ..) = split(at, self.grain_len);
        let (number, index, _) = split(grain, self.table.len() as u64);
        let len = match what {
            What::Packed(len) if is_whole => len.next_multiple_of(SECTOR),
            What::Zeroes if !self.is_over => return Ok(None),
            What::Zeroes if self.zeroable && is_whole => 0,
            _ => return Err(unpacked(self.file)),
        };
        self.begin(drive)?;
        if number != self.number {
            self.turn(number, drive)?;
        }
        let place = self.place(self.end);
        let entry = if len == 0 { ZERO_GRAIN } else { sector(self.end).ok_or_else(|| full(self.file))? };
        let room = self.table.get_mut(usize::try_from(index).unwrap_or(usize::MAX));
        match room.ok_or_else(|| full(self.file))? {
            slot if *slot == 0 => *slot = entry,
            _ => return Err(taken(self.file)),
        }
        self.end = self.end.checked_add(len).ok_or_else(|| full(self.file))?;
        Ok((len > 0).then_some(Spot { place, tweak: None, rest: Rest::There, is_fresh: true }))
    }

    /// All behind the text goes, if nobody relies on it. If somebody does, a header at the end comes to the front before
    /// grains take its place.
    fn begin(&mut self, drive: &dyn Drive) -> Result<()> {
        if core::mem::replace(&mut self.is_begun, true) {
            return Ok(());
        }
        self.grains_at = self.end;
        if !self.keeps_order {
            return drive.set_length(self.file, self.front_at);
        }
        let Some(header) = &self.last else { return Ok(()) };
        drive.write(self.place(0), header.as_bytes())?;
        drive.flush(self.file)
    }

    /// Writes the table if it has grains, and goes on with another.
    fn turn(&mut self, number: u64, drive: &dyn Drive) -> Result<()> {
        if number < self.number {
            return Err(Kind::Unsupported.what("a stream is written in the order of its grains").file(self.file));
        }
        if self.table.iter().any(|entry| *entry != 0) {
            let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            let at = self.part(MARKER_TABLE, &bytes, bytes.len() as u64, drive)?;
            let known = usize::try_from(self.number).unwrap_or(usize::MAX);
            self.directory.resize(known, 0);
            self.directory.push(sector(at).ok_or_else(|| full(self.file))?);
            self.table.fill(0);
        }
        self.number = number;
        Ok(())
    }

    /// Writes a mark and what belongs to it, which is `len` bytes in whole sectors, perhaps with zeroes at its end;
    /// answers where that begins.
    fn part(&mut self, kind: u32, bytes: &[u8], len: u64, drive: &dyn Drive) -> Result<u64> {
        let len = len.next_multiple_of(SECTOR);
        let mut all = Marker::of(kind, len / SECTOR).as_bytes().to_vec();
        all.extend_from_slice(bytes);
        drive.write(self.place(self.end), &all)?;
        let at = self.end.saturating_add(SECTOR);
        self.end = at.saturating_add(len);
        Ok(at)
    }

    /// Writes all that comes behind the grains, and only then the header that leads there.
    pub fn seal(&mut self, drive: &dyn Drive) -> Result<()> {
        self.begin(drive)?;
        self.turn(self.number, drive)?;
        let tables = self.size.div_ceil(self.grain_len.saturating_mul(self.table.len() as u64).max(1));
        let bytes: Vec<u8> = self.directory.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let at = self.part(MARKER_DIRECTORY, &bytes, tables.saturating_mul(4), drive)?;
        self.header.flags = (self.header.flags.get() & !FLAG_SECOND_DIRECTORY).into();
        self.header.rgd_offset = 0.into();
        self.header.grain_offset = (self.grains_at / SECTOR).into();
        self.header.gd_offset = (at / SECTOR).into();
        footer(drive, self.place(self.end), self.header.clone())?;
        self.header.gd_offset = AT_END.into();
        if !self.keeps_order {
            return drive.write(self.place(0), self.header.as_bytes());
        }
        drive.flush(self.file)?;
        drive.write(self.place(0), self.header.as_bytes())?;
        drive.flush(self.file)?;
        // Nobody looks there any more.
        let len = self.grains_at.saturating_sub(self.front_at);
        if len > 0 { drive.zero(self.place(self.front_at), len, true) } else { Ok(()) }
    }
}

/// How the grains of an extent are packed.
#[derive(Clone, Copy)]
pub struct Packed {
    /// Where the extent begins on the disk.
    pub start: u64,
    /// Bytes of a grain.
    pub len: u64,
    /// In front of each stands where it belongs, and how long it is.
    pub marked: bool,
}

impl Packed {
    /// The grain of zeroes at `at`.
    pub fn zeroes(&self, at: u64) -> Vec<u8> {
        let mut presser = Presser { how: *self, press: Press::new(Method::Zlib) };
        presser.pack(at, &[]).unwrap_or_default()
    }

    /// A packed grain as it is written: marked, and in whole sectors.
    fn framed(&self, at: u64, packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(packed.len().saturating_add(1024));
        if self.marked {
            let size = u32::try_from(packed.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&(at.saturating_sub(self.start) / SECTOR).to_le_bytes());
            out.extend_from_slice(&size.to_le_bytes());
        }
        out.extend_from_slice(packed);
        out.resize(out.len().next_multiple_of(usize::try_from(SECTOR).unwrap_or(1)), 0);
        out
    }
}

const _: () = assert!(GRAIN_MARKER_LEN == 12);

impl Packing for Packed {
    fn unit(&self) -> u64 {
        self.len
    }

    fn packer(&self) -> Box<dyn Packer> {
        Box::new(Presser { how: *self, press: Press::new(Method::Zlib) })
    }
}

struct Presser {
    how: Packed,
    press: Press,
}

impl Packer for Presser {
    /// Always something: an extent has nothing but packed grains, even if they become longer. They are packed whole.
    fn pack(&mut self, at: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut whole = bytes.to_vec();
        whole.resize(usize::try_from(self.how.len).ok()?.max(bytes.len()), 0);
        let packed = self.press.pack(&whole, whole.len()).unwrap_or_else(|| stored(&whole));
        Some(self.how.framed(at, &packed))
    }
}

/// Bytes in a zlib frame, not compressed.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(STORED_MAX).peekable();
    while let Some(block) = blocks.next() {
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    // So many bytes can be summed up before the sums have to be made small.
    for piece in bytes.chunks(5552) {
        for byte in piece {
            a = a.wrapping_add(u32::from(*byte));
            b = b.wrapping_add(a);
        }
        (a, b) = (a % 65521, b % 65521);
    }
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

/// Grains that are not packed, whoever wants it.
pub struct Plain {
    /// Bytes of a grain.
    pub unit: u64,
}

impl Packing for Plain {
    fn unit(&self) -> u64 {
        self.unit
    }

    fn packer(&self) -> Box<dyn Packer> {
        Box::new(Untouched)
    }
}

struct Untouched;

impl Packer for Untouched {
    fn pack(&mut self, _at: u64, _bytes: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
