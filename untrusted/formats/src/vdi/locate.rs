//! Where the bytes of a VDI are: in blocks, as its map says.

use super::disk::{BLOCK_LEN, DISCARDED, STATIC};
use super::open::Checked;
use alloc::boxed::Box;
use core::ops::Range;
use instar_image::blocks::{self, Blocks, Root};
use instar_image::{FileId, Layer, Place, Result, Source};

/// The blocks of a VDI.
struct Map {
    file: FileId,
    size: u64,
    root: Root,
    data_at: u64,
    /// All blocks were set aside at once: those that were not written to may still be holes of the file.
    sparse: bool,
}

/// The disk's map.
pub fn layer(file: FileId, checked: &Checked) -> Box<dyn Layer> {
    blocks::layer(Map {
        file,
        size: checked.virtual_size,
        root: Root::Table { at: checked.map_at, count: checked.block_count.into() },
        data_at: checked.data_at,
        sparse: checked.image_type == STATIC,
    })
}

impl Blocks<4> for Map {
    fn range(&self) -> Range<u64> {
        0..self.size
    }

    fn file(&self) -> FileId {
        self.file
    }

    fn block_len(&self) -> u64 {
        BLOCK_LEN.into()
    }

    fn root(&self) -> Root {
        self.root
    }

    fn block(&self, _number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let entry = u32::from_le_bytes(entry);
        if entry >= DISCARDED {
            return Ok(Some(Source::ZERO));
        }
        let at = u64::from(entry).saturating_mul(BLOCK_LEN.into()).saturating_add(self.data_at);
        let place = Place { file: self.file, at };
        Ok(Some(Source::Raw { place, tweak: None, sparse: self.sparse }))
    }
}
