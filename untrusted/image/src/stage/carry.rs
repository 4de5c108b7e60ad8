//! How a piece is gathered.

use super::{Hold, Stage};
use crate::chain::Found;
use crate::num::{narrow, wide};
use crate::pump::{Carrier, is_zero};
use crate::read::Reader;
use crate::source::Source;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_wire::error::Result;

impl Carrier for Stage<'_> {
    fn carry(&mut self, reader: &mut Reader<'_>, found: &Found, len: u64, at: u64) -> Result<u64> {
        let skip = self.skip(at);
        let room = wide(self.drive.stage_len().saturating_sub(skip));
        let granule = self.granule();
        let len = len.min(room);
        let mut zero = match found.source {
            source if source.is_zero() => {
                self.add(at, len, Hold::Zero);
                return Ok(len);
            }
            Source::Raw { place, tweak: None, .. } => {
                reader.allowed(found)?;
                let marks = self.drive.load(place, skip, narrow(len), granule.trailing_zeros())?;
                self.loaded.push((skip, narrow(len), place));
                let mut marks = marks.into_iter().flat_map(|byte| (0..8u8).map(move |bit| byte >> bit & 1 == 1));
                Box::new(move |_: usize| marks.next().unwrap_or(false)) as Box<dyn FnMut(usize) -> bool>
            }
            _ => {
                let mut bytes = core::mem::take(&mut self.buffer);
                bytes.clear();
                bytes.resize(narrow(len), 0);
                let read = reader.read(found, &mut bytes);
                if read.is_ok() {
                    self.drive.lay(skip, &bytes);
                }
                let size = usize::try_from(granule).unwrap_or(usize::MAX);
                let marks: Vec<bool> = bytes.chunks(size).map(is_zero).collect();
                self.buffer = bytes;
                read?;
                Box::new(move |index: usize| marks.get(index).copied().unwrap_or(false))
            }
        };
        let (mut done, mut index) = (0u64, 0usize);
        while done < len {
            let step = u64::from(granule).min(len.saturating_sub(done));
            let hold = if zero(index) { Hold::Zero } else { Hold::Data };
            self.add(at.saturating_add(done), step, hold);
            (done, index) = (done.saturating_add(step), index.saturating_add(1));
        }
        Ok(len)
    }

    fn blank(&mut self, at: u64, len: u64) -> Result<()> {
        self.add(at, len, Hold::Zero);
        Ok(())
    }

    fn pass(&mut self, at: u64, len: u64) {
        self.add(at, len, Hold::Pass);
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
