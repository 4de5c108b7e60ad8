//! Reading what a walk has found: the one place where bytes are decrypted, decompressed or made up.

use crate::chain::{Chain, Found};
use crate::file::Io;
use crate::layer::Layer;
use crate::num::{narrow, split, wide};
use crate::source::{Place, Source, Unit};
use crate::stream::Stream;
use crate::walk::Walk;
use alloc::vec::Vec;
use instar_codec::cipher::UNIT as TWEAK_UNIT;
use instar_codec::unpack::{unpack, unpack_all};
use instar_wire::error::{Error, Kind, Result};

/// Compressed bytes that are held at once. Every lane has its own.
const PACKED_MAX: u64 = 8 << 20;
/// Bytes of a unit that are held at once; a longer one is unpacked while it is read.
const UNIT_MAX: u64 = 8 << 20;
/// Where units lie one behind the other, so many bytes are read at once.
const AHEAD: u64 = 512 << 10;

/// Reads along a chain; one for each lane.
pub struct Reader<'c> {
    chain: &'c Chain<'c>,
    io: &'c dyn Io,
    /// The unit last unpacked, and its bytes.
    unit: Option<Unit>,
    bytes: Vec<u8>,
    /// The long unit last read from.
    stream: Option<Stream>,
    /// A piece of a file with compressed bytes, and where it begins.
    packed: Vec<u8>,
    packed_at: Option<Place>,
    /// Where the unit last asked for begins.
    last: Option<Place>,
}

impl Chain<'_> {
    /// Fills `bytes` from the disk's byte `at` on; behind its end are zeroes.
    pub fn read(&self, io: &dyn Io, at: u64, bytes: &mut [u8]) -> Result<()> {
        let end = at.saturating_add(wide(bytes.len())).min(self.size()).max(at);
        let (mut walk, mut reader) = (Walk::new(self, io, at, end), Reader::new(self, io));
        let mut rest = bytes;
        while let Some((len, found)) = walk.peek()? {
            let len = narrow(len).min(rest.len());
            let (now, then) = rest.split_at_mut(len);
            reader.read(&found, now)?;
            walk.advance(wide(len));
            rest = then;
        }
        rest.fill(0);
        Ok(())
    }
}

impl<'c> Reader<'c> {
    /// A reader that has read nothing.
    pub fn new(chain: &'c Chain<'c>, io: &'c dyn Io) -> Self {
        Reader {
            chain,
            io,
            unit: None,
            bytes: Vec::new(),
            stream: None,
            packed: Vec::new(),
            packed_at: None,
            last: None,
        }
    }

    /// Fills `buf` with the first bytes of what was found.
    pub fn read(&mut self, found: &Found, buf: &mut [u8]) -> Result<()> {
        if found.source.is_zero() {
            buf.fill(0);
            return Ok(());
        }
        self.allowed(found)?;
        match found.source {
            Source::Zero { .. } | Source::Beyond { .. } | Source::Hollow { .. } => Ok(()),
            Source::Raw { place, tweak: None, .. } => self.io.read(place.file, place.at, buf),
            Source::Raw { place, tweak: Some(tweak), .. } => self.sealed(self.layer(found, place)?, place, tweak, buf),
            Source::Packed { unit, skip } => self.packed(self.layer(found, unit.place)?, unit, skip, buf),
            Source::Inline { place } => self.layer(found, place)?.inline(self.io, place, buf),
        }
    }

    /// Whether what was found may be read: all layers above were made on those below them.
    pub fn allowed(&self, found: &Found) -> Result<()> {
        self.chain.layers.iter().take(found.depth).try_for_each(|above| above.through())
    }

    fn layer(&self, found: &Found, place: Place) -> Result<&'c dyn Layer> {
        let layer = self.chain.layers.get(found.depth).map(|layer| &**layer);
        layer.ok_or_else(|| Kind::Corrupt.what("bytes of no layer").file(place.file).at(place.at))
    }

    /// Decrypts whole sectors, of which the first and the last may only be wanted in part.
    fn sealed(&mut self, layer: &dyn Layer, place: Place, tweak: u64, buf: &mut [u8]) -> Result<()> {
        let wrong = || Kind::Key.what("there is no key for encrypted bytes").file(place.file).at(place.at);
        let cipher = layer.cipher().ok_or_else(wrong)?;
        let sector = u64::try_from(cipher.sector_len()).unwrap_or(u64::MAX);
        let (_, before, _) = split(tweak, sector);
        let len = buf.len() as u64;
        let whole = before.saturating_add(len).next_multiple_of(sector);
        let number = |at: u64| at / (TWEAK_UNIT as u64);
        if before == 0 && whole == len {
            self.padded(place, buf)?;
            cipher.decrypt(number(tweak), buf);
            return Ok(());
        }
        self.unit = None;
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.resize(usize::try_from(whole).unwrap_or(0), 0);
        self.padded(Place { at: place.at.saturating_sub(before), ..place }, &mut bytes)?;
        cipher.decrypt(number(tweak.saturating_sub(before)), &mut bytes);
        give(&bytes, before, buf);
        self.bytes = bytes;
        Ok(())
    }

    /// Reads, with zeroes beyond the end of the file.
    fn padded(&self, place: Place, buf: &mut [u8]) -> Result<()> {
        let have = self.io.len(place.file).saturating_sub(place.at).min(buf.len() as u64);
        let (inside, beyond) = buf.split_at_mut(usize::try_from(have).unwrap_or(buf.len()));
        beyond.fill(0);
        if inside.is_empty() { Ok(()) } else { self.io.read(place.file, place.at, inside) }
    }

    /// Unpacks a unit, unless it is the one unpacked last.
    fn packed(&mut self, layer: &dyn Layer, unit: Unit, skip: u64, buf: &mut [u8]) -> Result<()> {
        if self.unit == Some(unit) {
            give(&self.bytes, skip, buf);
            return Ok(());
        }
        let place = |e: Error| Error { file: Some(unit.place.file), at: Some(unit.place.at), ..e };
        if let Some(stream) = self.stream.take().filter(|stream| stream.leads_to(&unit, skip)) {
            return self.streamed(stream, skip, buf).map_err(place);
        }
        let measured = layer.measured(self.io, unit)?;
        let held = self.io.len(measured.place.file).saturating_sub(measured.place.at).min(measured.len);
        if unit.size > UNIT_MAX || held > PACKED_MAX {
            return self.streamed(Stream::new(unit, &measured, self.io), skip, buf).map_err(place);
        }
        // What is wanted whole need not be kept.
        if skip == 0 && buf.len() as u64 == unit.size {
            return self.unpack(&measured, buf).map_err(place);
        }
        self.unit = None;
        let size = crate::num::bounded(unit.size, UNIT_MAX, || place(too_long()))?;
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.resize(size, 0);
        let done = self.unpack(&measured, &mut bytes);
        self.bytes = bytes;
        done.map_err(place)?;
        self.unit = Some(unit);
        give(&self.bytes, skip, buf);
        Ok(())
    }

    /// Goes on in a long unit; one that turned out to be broken is not gone on with.
    fn streamed(&mut self, mut stream: Stream, skip: u64, buf: &mut [u8]) -> Result<()> {
        stream.read(self.io, skip, buf)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn unpack(&mut self, unit: &Unit, out: &mut [u8]) -> Result<()> {
        let have = self.io.len(unit.place.file).saturating_sub(unit.place.at).min(unit.len);
        let len = crate::num::bounded(have, PACKED_MAX, too_long)?;
        self.load(unit.place, have)?;
        let skip = self.packed_at.map_or(0, |at| unit.place.at.saturating_sub(at.at));
        let rest = usize::try_from(skip).ok().and_then(|skip| self.packed.get(skip..)).unwrap_or_default();
        let packed = rest.get(..len).unwrap_or(rest);
        let done = if unit.whole {
            unpack_all(unit.codec, packed, out).is_ok()
        } else {
            unpack(unit.codec, packed, out).is_ok_and(|made| made == out.len())
        };
        if done { Ok(()) } else { Err(Kind::Broken.what("a compressed part is broken")) }
    }

    /// Has `len` compressed bytes from `place` at hand, and more of them if those before were just asked for as well.
    fn load(&mut self, place: Place, len: u64) -> Result<()> {
        let held = self.packed_at.filter(|held| held.file == place.file && held.at <= place.at);
        let end = held.map_or(0, |held| held.at.saturating_add(self.packed.len() as u64));
        let goes_on = self.last.is_some_and(|last| {
            last.file == place.file && place.at.checked_sub(last.at).is_some_and(|step| step <= AHEAD)
        });
        self.last = Some(place);
        if held.is_some() && place.at.saturating_add(len) <= end {
            return Ok(());
        }
        let ahead = if goes_on { AHEAD } else { 0 };
        let left = self.io.len(place.file).saturating_sub(place.at);
        self.packed_at = None;
        self.packed.clear();
        self.packed.resize(crate::num::bounded(len.max(ahead).min(left), PACKED_MAX, too_long)?, 0);
        if !self.packed.is_empty() {
            self.io.read(place.file, place.at, &mut self.packed)?;
        }
        self.packed_at = Some(place);
        Ok(())
    }
}

fn too_long() -> Error {
    Kind::TooBig.what("a compressed part is too long")
}

/// Copies to `buf` what `bytes` has from `skip` on; there is always enough.
fn give(bytes: &[u8], skip: u64, buf: &mut [u8]) {
    let rest = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..)).unwrap_or_default();
    buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
}
