//! Where bytes of a qcow image may go: into new clusters at the end of its file.

use super::disk::COMPRESSED;
use super::locate::Map;
use super::open::Checked;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use instar_codec::cipher::Sectors;
use instar_codec::pack::{Method, Press};
use instar_image::blocks::{Blocks, Grid};
use instar_image::grow::{Frame, Grow, Growing};
use instar_image::num::power;
use instar_image::target::{Packer, Packing, Spot, What};
use instar_image::{Drive, File, Kind, Result, Source, Target};

/// The image, open to be written to.
pub fn target(file: &File<'_>, checked: &Checked, sectors: Option<Arc<Sectors>>) -> Result<Box<dyn Target>> {
    let is_plain = sectors.is_none();
    let map = Map::new(file, checked, sectors);
    let tables = Tables { map, table_len: checked.l2_count.saturating_mul(8), is_over: checked.backing.is_some() };
    let cluster = usize::try_from(checked.cluster_len).unwrap_or(0);
    let growing = Growing::new(tables, file.place(file.len()).at);
    Ok(Box::new(Clusters { growing, cluster: is_plain.then_some(cluster) }))
}

/// The tables, as they are changed.
struct Tables {
    map: Map,
    table_len: u64,
    is_over: bool,
}

impl Tables {
    /// What stands in a table for a place in the file.
    fn word(&self, at: u64) -> u64 {
        at.saturating_sub(self.map.start.at)
    }
}

impl Blocks<8> for Tables {
    fn grid(&self) -> &Grid {
        self.map.grid()
    }

    fn table(&self, entry: [u8; 8]) -> Result<Option<u64>> {
        self.map.table(entry)
    }

    fn cipher(&self) -> Option<&Sectors> {
        self.map.cipher()
    }

    fn block(&self, number: u64, entry: [u8; 8]) -> Result<Option<Source>> {
        self.map.block(number, entry)
    }
}

impl Grow<8> for Tables {
    fn frame(&self) -> Frame {
        let len = self.map.grid().block_len;
        Frame { align: len, base: self.map.start.at, head: 0, len }
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 8]> {
        Ok(self.word(at).to_be_bytes())
    }

    fn table_len(&self) -> u64 {
        self.table_len
    }

    fn lead(&self, at: u64) -> [u8; 8] {
        self.word(at).to_be_bytes()
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn sealer(&self) -> Option<Arc<Sectors>> {
        self.map.sectors.clone()
    }

    fn packed_frame(&self, len: u64, _was: Option<&Source>) -> Result<Frame> {
        Ok(Frame { align: 1, base: self.map.start.at, head: 0, len })
    }

    fn packed_entry(&self, _number: u64, at: u64, len: u64) -> Result<[u8; 8]> {
        // The place and the length share the bits below the mark.
        let bits = 63u32.saturating_sub(self.map.cluster_bits);
        let at = self.word(at);
        if at >= power(bits) || len >= power(self.map.cluster_bits) {
            return Err(Kind::TooBig.what("the file is too long for packed clusters"));
        }
        Ok((COMPRESSED | len.checked_shl(bits).unwrap_or(0) | at).to_be_bytes())
    }

    fn finish(&mut self, drive: &dyn Drive, end: u64, _added: u64) -> Result<()> {
        drive.set_length(self.map.grid().file, end)
    }
}

/// The image as it grows; with the length of its clusters if they can be packed.
struct Clusters {
    growing: Growing<Tables, 8>,
    cluster: Option<usize>,
}

impl Target for Clusters {
    fn size(&self) -> u64 {
        self.growing.size()
    }

    fn unit(&self) -> u64 {
        self.growing.unit()
    }

    fn reserve(&mut self, drive: &dyn Drive, at: u64, len: u64, what: What) -> Result<Option<Spot>> {
        self.growing.reserve(drive, at, len, what)
    }

    fn keep_order(&mut self) {
        self.growing.keep_order();
    }

    fn waiting(&self) -> usize {
        self.growing.waiting()
    }

    fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        self.growing.settle(drive)
    }

    fn seal(&mut self, drive: &dyn Drive) -> Result<()> {
        self.growing.seal(drive)
    }

    fn cipher(&self) -> Option<Arc<Sectors>> {
        self.growing.cipher()
    }

    fn packing(&self) -> Option<Box<dyn Packing>> {
        self.cluster.map(|len| Box::new(Deflating { len }) as Box<dyn Packing>)
    }
}

/// How clusters of this length are packed.
struct Deflating {
    len: usize,
}

impl Packing for Deflating {
    fn unit(&self) -> u64 {
        u64::try_from(self.len).unwrap_or(u64::MAX)
    }

    fn packer(&self) -> Box<dyn Packer> {
        Box::new(Deflater { len: self.len, press: Press::new(Method::Deflate12) })
    }
}

struct Deflater {
    len: usize,
    press: Press,
}

impl Packer for Deflater {
    /// A cluster is always packed whole, even if the disk ends in it.
    fn pack(&mut self, _at: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let most = self.len.saturating_sub(1);
        if bytes.len() >= self.len {
            return self.press.pack(bytes, most);
        }
        let mut whole = bytes.to_vec();
        whole.resize(self.len, 0);
        self.press.pack(&whole, most)
    }
}
