//! Where the bytes of a VDI are: in blocks, as its map says.

use super::disk::{BLOCK_LEN, DISCARDED, STATIC};
use super::open::Checked;
use alloc::boxed::Box;
use instar_image::blocks::{self, Blocks, Grid, Root};
use instar_image::{FileId, Layer, Place, Result, Source};

/// The blocks of a VDI.
pub struct Map {
    /// How they are numbered.
    pub grid: Grid,
    /// Where they begin.
    pub data_at: u64,
    /// All blocks were set aside at once: those that were not written to may still be holes of the file.
    sparse: bool,
}

/// The disk's map.
pub fn layer(file: FileId, checked: &Checked) -> Box<dyn Layer> {
    blocks::layer(map(file, checked))
}

/// The same, for those who write.
pub fn map(file: FileId, checked: &Checked) -> Map {
    Map {
        grid: Grid {
            file,
            range: 0..checked.virtual_size,
            block_len: BLOCK_LEN.into(),
            root: Root::Table { at: checked.map_at, count: checked.block_count.into() },
        },
        data_at: checked.data_at,
        sparse: checked.image_type == STATIC,
    }
}

impl Blocks<4> for Map {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn block(&self, _number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let entry = u32::from_le_bytes(entry);
        if entry >= DISCARDED {
            return Ok(Some(Source::ZERO));
        }
        let at = u64::from(entry).saturating_mul(BLOCK_LEN.into()).saturating_add(self.data_at);
        let place = Place { file: self.grid.file, at };
        Ok(Some(Source::Raw { place, tweak: None, sparse: self.sparse }))
    }
}
