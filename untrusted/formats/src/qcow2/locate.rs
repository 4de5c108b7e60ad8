//! Where the bytes of a qcow2 image are: in clusters, or parts of them, as two levels of tables say.

use super::disk::{L1_OFFSET, L2_ALL, L2_COMPRESSED, L2_COPIED, L2_OFFSET, L2_ZERO, L2_ZEROES_SHIFT, SUBCLUSTERS};
use super::open::{Layout, Table as Root};
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_codec::cipher::Sectors;
use instar_codec::unpack::Codec;
use instar_image::num::{power, split};
use instar_image::sector::SECTOR;
use instar_image::source::Piece;
use instar_image::text::hex;
use instar_image::{Batch, Cursor, Error, Io, Kind, Layer, Place, Result, Source, Table, Unit};

/// How encrypted bytes are read.
#[derive(Clone)]
pub struct Lock {
    /// The cipher with its key.
    pub sectors: Arc<Sectors>,
    /// Vectors count where the bytes lie in their file, and not in the disk.
    pub by_host: bool,
}

/// The map of an image, or of one of its snapshots.
pub struct Map {
    /// Where the file begins that has the tables and the compressed clusters.
    pub tables: Place,
    /// Where the file begins that has all other clusters, if that is another one.
    pub data: Option<Place>,
    /// Size of the disk.
    pub size: u64,
    /// The L1 table.
    pub l1: Root,
    /// Version 2 has no clusters of zeroes.
    pub version: u32,
    /// 2 to this power is the length of a cluster.
    pub cluster_bits: u32,
    /// L2 entries are twice as long and tell of subclusters.
    pub extended: bool,
    /// How clusters are compressed.
    pub codec: Codec,
    /// What encrypted bytes are read with.
    pub lock: Option<Lock>,
    /// Space was set aside without being written to: holes of the file may be told.
    pub sparse: bool,
}

impl Map {
    /// The map that a layout promises, of the L1 table named.
    pub fn new(layout: &Layout, l1: Root, tables: Place, codec: Codec) -> Map {
        Map {
            tables,
            data: None,
            size: layout.disk_size(),
            l1,
            version: layout.version,
            cluster_bits: layout.cluster_bits,
            extended: layout.extended_l2(),
            codec,
            lock: None,
            sparse: false,
        }
    }

    fn cluster_len(&self) -> u64 {
        power(self.cluster_bits)
    }

    /// Bytes that all alike lie at `host`.
    pub fn raw(&self, host: u64, guest: u64) -> Source {
        let place = self.data.unwrap_or(self.tables).ahead(host);
        let tweak = self.lock.as_ref().map(|lock| if lock.by_host { host } else { guest });
        Source::Raw { place, tweak, sparse: self.sparse && self.data.is_none() }
    }

    /// The compressed bytes of a cluster: how many sectors they reach into is told above their offset.
    pub fn unit(&self, word: u64) -> Unit {
        let (at, len) = packed(word, self.cluster_bits);
        Unit { codec: self.codec, place: self.tables.ahead(at), len, size: self.cluster_len(), whole: false }
    }
}

/// Where the bytes of a compressed cluster lie, and how many they are at most.
pub fn packed(word: u64, cluster_bits: u32) -> (u64, u64) {
    let bits = 70u32.saturating_sub(cluster_bits);
    let (offset, rest) = (word & power(bits).saturating_sub(1), word & !(L2_COMPRESSED | L2_COPIED));
    let sectors = rest.checked_shr(bits).unwrap_or(0).saturating_add(1);
    (offset, sectors.saturating_mul(SECTOR).saturating_sub(offset % SECTOR))
}

impl Layer for Map {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        if self.extended { Box::new(Walker::<16>::new(self, io)) } else { Box::new(Walker::<8>::new(self, io)) }
    }

    fn cipher(&self) -> Option<&Sectors> {
        self.lock.as_ref().map(|lock| &*lock.sectors)
    }

    /// To the end of what one L2 table tells of.
    fn reach(&self, at: u64) -> u64 {
        let entry_len = if self.extended { 16 } else { 8 };
        let (_, _, left) = split(at, (self.cluster_len() / entry_len).saturating_mul(self.cluster_len()));
        left
    }
}

/// An L2 entry. One of eight bytes says the same of all parts of its cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Flags, and where the cluster lies.
    word: u64,
    /// A bit for each subcluster that has bytes, and above these one for each that is zero.
    parts: u64,
}

/// Where an L2 entry stands, and of what.
#[derive(Clone, Copy)]
struct Spot {
    /// Its table.
    table_at: u64,
    /// Its number in the table.
    index: u64,
    /// The cluster it is about.
    guest: u64,
}

/// What lies in a part of a cluster.
#[derive(Clone, Copy)]
enum Part {
    Absent,
    Zero,
    Data,
}

impl Part {
    /// What the lowest of the parts is, and how many of those that follow are the same.
    fn first(parts: u64) -> (Part, u32) {
        let (data, zero) = (parts & L2_ALL, parts >> L2_ZEROES_SHIFT);
        match (data & 1, zero & 1) {
            (0, 0) => (Part::Absent, (data | zero).trailing_zeros()),
            (0, _) => (Part::Zero, zero.trailing_ones()),
            _ => (Part::Data, data.trailing_ones()),
        }
    }
}

/// A walker; its entries have `N` bytes.
struct Walker<'c, const N: usize> {
    map: &'c Map,
    l1: Table<'c, 8>,
    l2: Table<'c, N>,
}

impl<'c, const N: usize> Walker<'c, N> {
    fn new(map: &'c Map, io: &'c dyn Io) -> Self {
        Walker { map, l1: Table::new(io, map.tables.file), l2: Table::new(io, map.tables.file) }
    }

    fn l2_count(&self) -> u64 {
        self.map.cluster_len() / (size_of::<[u8; N]>() as u64)
    }

    /// Where the L2 table with this number lies, if there is one.
    fn l2_at(&mut self, number: u64) -> Result<Option<u64>> {
        let Map { l1, tables, .. } = *self.map;
        if number >= l1.count {
            return Ok(None);
        }
        let entries = self.l1.entries(tables.ahead(l1.at).at, number, l1.count)?;
        let at = entries.first().map_or(0, |entry| u64::from_be_bytes(*entry) & L1_OFFSET);
        if at.is_multiple_of(self.map.cluster_len()) {
            return Ok(Some(at).filter(|at| *at != 0));
        }
        let place = tables.ahead(l1.at.saturating_add(number.saturating_mul(8)));
        let error = Kind::Corrupt.what("L2 table offset {} unaligned (L1 index: {})").file(place.file).at(place.at);
        Err(error.arg(hex(at)).arg(hex(number)))
    }

    /// Adds what one piece of a table, or the absence of a table, has to say.
    fn add(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let map = self.map;
        let cluster_len = map.cluster_len();
        let (cluster, mut skip, _) = split(out.at(), cluster_len);
        let (table, mut index, left) = split(cluster, self.l2_count());
        let Some(table_at) = self.l2_at(table)? else {
            return out.push(left.saturating_mul(cluster_len).saturating_sub(skip), None);
        };
        let entries = self.l2.entries(map.tables.ahead(table_at).at, index, index.saturating_add(left))?;
        let mut entries = entries.iter();
        while let Some(first) = entries.next() {
            let entry = map.entry(first);
            let spot = Spot { table_at, index, guest: out.at().saturating_sub(skip) };
            let like = map.add(entry, spot, skip, &entries, out)?;
            if out.is_done() {
                return Ok(());
            }
            // Those that go on where the first one ends have been told with it.
            let told = usize::try_from(like).unwrap_or(usize::MAX);
            if told > 0 {
                entries.nth(told.saturating_sub(1));
            }
            (index, skip) = (index.saturating_add(like).saturating_add(1), 0);
        }
        Ok(())
    }
}

impl<const N: usize> Cursor for Walker<'_, N> {
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)> {
        let mut one = Batch::new(1);
        one.aim(at, end, 1);
        self.add(&mut one)?;
        let run = one.runs().first().map(|run| (run.len, run.what));
        run.ok_or_else(|| Kind::Corrupt.what("a table without entries").file(self.map.tables.file))
    }

    fn fill(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let from = out.at();
        while !out.is_done() {
            let told = self.add(out);
            if told.is_err() {
                return out.kept(from, told);
            }
        }
        Ok(())
    }
}

impl Map {
    #[inline]
    fn entry<const N: usize>(&self, bytes: &[u8; N]) -> Entry {
        let word = number(bytes.first_chunk());
        if N > 8 {
            return Entry { word, parts: number(bytes.last_chunk()) };
        }
        let parts = if word & L2_COMPRESSED != 0 {
            0
        } else if word & L2_ZERO != 0 {
            L2_ALL << L2_ZEROES_SHIFT
        } else if self.has_host::<N>(word) {
            L2_ALL
        } else {
            0
        };
        Entry { word, parts }
    }

    /// Whether a cluster lies somewhere. At the beginning of the image's own file is the header; of another, a cluster,
    /// but where it could be taken for one that is zero and lies nowhere.
    fn has_host<const N: usize>(&self, word: u64) -> bool {
        let may_be_first = N > 8 || word & L2_ZERO == 0;
        word & L2_OFFSET != 0 || (self.data.is_some() && word & L2_COPIED != 0 && may_be_first)
    }

    /// Adds the cluster without its first `skip` bytes, and those of the `rest` that go on where it ends: how many.
    #[inline]
    fn add<const N: usize>(
        &self,
        entry: Entry,
        spot: Spot,
        skip: u64,
        rest: &core::slice::Iter<'_, [u8; N]>,
        out: &mut Batch<Option<Source>>,
    ) -> Result<u64> {
        let cluster_len = self.cluster_len();
        let host = self.check::<N>(entry, spot)?;
        if entry.word & L2_COMPRESSED != 0 {
            let unit = self.unit(entry.word);
            out.push(cluster_len.saturating_sub(skip), Some(Source::Packed { unit, skip }))?;
            return Ok(0);
        }
        let (part, count) = Part::first(entry.parts);
        if count >= SUBCLUSTERS {
            let want = out.end().saturating_sub(out.at()).checked_shr(self.cluster_bits).unwrap_or(0);
            let like = self.like(entry, host.is_some(), rest, usize::try_from(want).unwrap_or(usize::MAX));
            let len = like.saturating_add(1).saturating_mul(cluster_len).saturating_sub(skip);
            let what = self.source(part, host, spot.guest);
            out.push(len, if skip == 0 { what } else { what.cut(skip) })?;
            return Ok(like);
        }
        self.add_parts(entry.parts, host, spot.guest, skip, out)?;
        Ok(0)
    }

    /// How many entries go on where the one before them ends, of which no more are looked at than `most`.
    #[inline]
    fn like<const N: usize>(
        &self,
        Entry { word, parts }: Entry,
        has_host: bool,
        rest: &core::slice::Iter<'_, [u8; N]>,
        most: usize,
    ) -> u64 {
        // Whether a cluster is shared says nothing here, but that one lies at the beginning of another file.
        let zero = if N > 8 { 0 } else { L2_ZERO };
        let copied = if self.data.is_some() { L2_COPIED } else { 0 };
        let mask = L2_OFFSET | L2_COMPRESSED | zero | copied;
        let step = if has_host { self.cluster_len() } else { 0 };
        let mut want = word & mask;
        let goes_on = |bytes: &&[u8; N]| {
            want = want.wrapping_add(step);
            number(bytes.first_chunk()) & mask == want && (N == 8 || number(bytes.last_chunk()) == parts)
        };
        u64::try_from(rest.clone().take(most).take_while(goes_on).count()).unwrap_or(0)
    }

    /// Adds the parts of a cluster that are not all alike, without the first `skip` bytes.
    fn add_parts(
        &self,
        parts: u64,
        host: Option<u64>,
        guest: u64,
        skip: u64,
        out: &mut Batch<Option<Source>>,
    ) -> Result<()> {
        let (cluster_len, part_bits) = (self.cluster_len(), self.cluster_bits.saturating_sub(SUBCLUSTERS.ilog2()));
        let mut from = skip;
        while from < cluster_len && !out.is_done() {
            let number = u32::try_from(from.checked_shr(part_bits).unwrap_or(0)).unwrap_or(0).min(SUBCLUSTERS);
            let data = (parts & L2_ALL) >> number;
            let zero = parts >> L2_ZEROES_SHIFT >> number;
            let (part, count) = Part::first(data | zero << L2_ZEROES_SHIFT);
            let last = u64::from(number.saturating_add(count).min(SUBCLUSTERS));
            let end = last.checked_shl(part_bits).unwrap_or(cluster_len);
            out.push(end.saturating_sub(from), self.source(part, host, guest).cut(from))?;
            from = end;
        }
        Ok(())
    }

    #[inline]
    fn source(&self, part: Part, host: Option<u64>, guest: u64) -> Option<Source> {
        // Of encrypted clusters it is not told where they lie.
        let told = host.filter(|_| self.lock.is_none()).map(|host| self.data.unwrap_or(self.tables).ahead(host));
        match (part, host) {
            (Part::Absent, _) => told.map(|place| Source::Hollow { place }),
            (Part::Data, Some(host)) => Some(self.raw(host, guest)),
            (Part::Zero | Part::Data, _) => Some(Source::Zero { reserved: told }),
        }
    }

    /// Where the cluster lies; what no image may say is refused when somebody comes by it, and not before.
    #[inline]
    fn check<const N: usize>(&self, Entry { word, parts }: Entry, spot: Spot) -> Result<Option<u64>> {
        let wrong = |phrase: &'static str| self.wrong::<N>(spot, phrase);
        let indices = |error: Error| error.arg(hex(spot.table_at)).arg(hex(spot.index));
        if word & L2_COMPRESSED != 0 {
            if self.data.is_none() {
                return Ok(None);
            }
            let phrase =
                "Compressed cluster entry found in image with external data file (L2 offset: {}, L2 index: {})";
            return Err(indices(wrong(phrase)));
        }
        if self.version == 2 && word & L2_ZERO != 0 {
            let phrase = "Zero cluster entry found in pre-v3 image (L2 offset: {}, L2 index: {})";
            return Err(indices(wrong(phrase)));
        }
        let has_host = self.has_host::<N>(word);
        let data = parts & L2_ALL;
        if data & (parts >> L2_ZEROES_SHIFT) != 0 || (data != 0 && !has_host) {
            return Err(indices(wrong("Invalid cluster entry found (L2 offset: {}, L2 index: {})")));
        }
        let host = word & L2_OFFSET;
        // A mask, as division would cost more than all the rest.
        if host & self.cluster_len().saturating_sub(1) != 0 {
            let phrase = "Cluster allocation offset {} unaligned (L2 offset: {}, L2 index: {})";
            return Err(indices(wrong(phrase).arg(hex(host))));
        }
        if has_host && self.data.is_some() && host != spot.guest {
            let phrase =
                "External data file host cluster offset {} does not match guest cluster offset: {}, L2 index: {}";
            return Err(wrong(phrase).arg(hex(host)).arg(hex(spot.guest)).arg(hex(spot.index)));
        }
        Ok(has_host.then_some(host))
    }

    #[cold]
    fn wrong<const N: usize>(&self, spot: Spot, phrase: &'static str) -> Error {
        let skip = spot.index.saturating_mul(size_of::<[u8; N]>() as u64);
        let place = self.tables.ahead(spot.table_at).ahead(skip);
        Kind::Corrupt.what(phrase).file(place.file).at(place.at)
    }
}

/// Eight bytes as a number.
pub fn number(bytes: Option<&[u8; 8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
