//! What a guest reads.

use instar_image::{Chain, Io, Reader, Result, Walk};

/// The bytes of a disk from `at` on.
pub fn content(chain: &Chain<'_>, io: &dyn Io, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut walk = Walk::new(chain, io, at, at + len);
    let mut reader = Reader::new(chain, io);
    let mut out = Vec::new();
    while let Some((len, found)) = walk.peek()? {
        let from = out.len();
        out.resize(from + len as usize, 0);
        reader.read(&found, &mut out[from..])?;
        walk.advance(len);
    }
    Ok(out)
}
