//! What was in a target, and what lies below it: if it is new, whatever is the same there need not be written.

use crate::chain::Chain;
use crate::file::Io;
use crate::num::{narrow, wide};
use crate::read::Reader;
use crate::walk::Walk;
use alloc::vec;
use alloc::vec::Vec;
use instar_wire::error::Result;

/// Bytes that are compared at once.
const STEP: u64 = 64 << 10;

/// What was in a target before anything was written.
pub struct Former {
    /// The image itself; no layer if it is a new one.
    pub own: Chain<'static>,
    /// What lies below it.
    pub below: Chain<'static>,
}

impl Former {
    /// Whether nothing was in it, and all can be read through it that lies below.
    pub fn is_new(&self) -> bool {
        self.own.layers.is_empty() && !self.below.layers.is_empty()
    }

    /// Fills `bytes` with what lies below the disk's byte `at`, and with zeroes where nothing does.
    pub fn read_below(&self, io: &dyn Io, at: u64, bytes: &mut [u8]) -> Result<()> {
        let mut walk = Walk::new(&self.below, io, at, at.saturating_add(wide(bytes.len())));
        let mut reader = Reader::new(&self.below, io);
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

/// A lane's look at the layers below.
pub struct Below<'c> {
    walk: Walk<'c>,
    reader: Reader<'c>,
    theirs: Vec<u8>,
    ours: Vec<u8>,
}

impl<'c> Below<'c> {
    /// A look at these layers.
    pub fn new(chain: &'c Chain<'static>, io: &'c dyn Io) -> Self {
        Below {
            walk: Walk::new(chain, io, 0, 0),
            reader: Reader::new(chain, io),
            theirs: vec![0; narrow(STEP)],
            ours: vec![0; narrow(STEP)],
        }
    }

    /// Whether `len` bytes from `at` on are what `take` gives, which is asked for its bytes from a byte of the disk on; if
    /// it is nothing, whether they are zeroes.
    pub fn has(&mut self, at: u64, len: u64, mut take: Option<&mut dyn FnMut(u64, &mut [u8])>) -> Result<bool> {
        self.walk.aim(at, at.saturating_add(len));
        loop {
            let at = self.walk.at();
            let Some((len, found)) = self.walk.peek()? else { return Ok(true) };
            let is_zero = found.source.is_zero();
            let len = if is_zero && take.is_none() { len } else { len.min(STEP) };
            if !is_zero || take.is_some() {
                let ours = self.ours.get_mut(..narrow(len)).unwrap_or_default();
                let theirs = self.theirs.get_mut(..narrow(len)).unwrap_or_default();
                match &mut take {
                    Some(take) => take(at, ours),
                    None => ours.fill(0),
                }
                self.reader.read(&found, theirs)?;
                if ours != theirs {
                    return Ok(false);
                }
            }
            self.walk.advance(len);
        }
    }
}
