//! What a chain holds, read in every manner that must come to the same.

use instar_image::{Chain, Found, Io, Reader, Result, Source, Walk};

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

/// All runs of a chain, asked for in batches of `room`.
pub fn runs(chain: &Chain<'_>, io: &dyn Io, room: usize) -> Result<Vec<(u64, Found)>> {
    let mut walk = Walk::with_room(chain, io, 0, chain.size(), room);
    let mut runs: Vec<(u64, Found)> = Vec::new();
    while let Some((len, found)) = walk.peek()? {
        match runs.last_mut() {
            Some(last) if instar_image::source::Piece::joins(&last.1, last.0, &found) => last.0 += len,
            _ => runs.push((len, found)),
        }
        walk.advance(len);
    }
    Ok(runs)
}

/// The bytes of `at..at + len`.
pub fn read(chain: &Chain<'_>, io: &dyn Io, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut walk = Walk::new(chain, io, at, at + len);
    let mut reader = Reader::new(chain, io);
    let mut out = Vec::new();
    while let Some((len, found)) = walk.peek()? {
        let len = len.min(PIECE);
        let from = out.len();
        out.resize(from + len as usize, 0);
        reader.read(&found, &mut out[from..])?;
        walk.advance(len);
    }
    Ok(out)
}

/// All bytes of a chain, after making sure of what every format promises: batches of any room tell the same, sources
/// lie inside their files, and a range read alone is what it is in the whole.
pub fn content(chain: &Chain<'_>, io: &dyn Io, seed: u64) -> Result<Vec<u8>> {
    let told = runs(chain, io, 1024)?;
    assert_eq!(told, runs(chain, io, 1)?, "batches of one run");
    assert_eq!(told.iter().map(|(len, _)| len).sum::<u64>(), chain.size(), "runs cover the disk");
    for (len, found) in &told {
        // Of encrypted bytes, what is not there reads as what zeroes decrypt to.
        if let Source::Raw { place, tweak: None, .. } = found.source {
            assert!(place.at + len <= io.len(place.file), "{found:?} of {len} lies inside its file");
        }
    }
    let whole = read(chain, io, 0, chain.size())?;
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below.max(1)
    };
    for _ in 0..16 {
        let at = random(chain.size());
        let len = random((chain.size() - at).min(1 << 18)).max(u64::from(chain.size() > 0));
        let piece = read(chain, io, at, len)?;
        assert_eq!(piece, whole[at as usize..(at + len) as usize], "{len} bytes from {at}, seed {seed}");
    }
    Ok(whole)
}
