//! Decompression, by the names that formats give to compressions. What comes out is bounded by what is asked for.

use alloc::boxed::Box;
use alloc::vec::Vec;
use compcol::{Algorithm, Decoder, Status};
use zune_inflate::{DeflateDecoder, DeflateOptions};

/// A compression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// Deflate without a frame, as qcow and qcow2 have it.
    Deflate,
    /// Deflate in a zlib frame.
    Zlib,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
    /// Apple's LZFSE.
    Lzfse,
    /// LZMA2 in an xz frame.
    Lzma,
    /// Apple Data Compression.
    Adc,
}

impl Codec {
    /// Whether the end of the bytes is marked, and what was made is summed there.
    pub fn is_sealed(self) -> bool {
        matches!(self, Codec::Zlib | Codec::Bzip2 | Codec::Lzma)
    }
}

/// The bytes are not what the compression makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// Fills `out` with what `packed` makes; tells how much that was, if it was less.
///
/// Bytes behind the compressed ones are passed over, and so is what would come after `out` is full.
pub fn unpack(codec: Codec, packed: &[u8], out: &mut [u8]) -> Result<usize, Broken> {
    match fast(codec, packed, out.len()) {
        Some(bytes) => {
            out.copy_from_slice(&bytes);
            Ok(out.len())
        }
        None => Unpacker::new(codec).read(out, &mut pieces(packed)),
    }
}

/// Fills `out` with all that `packed` makes: it must be neither less nor, where an end is marked, more.
pub fn unpack_all(codec: Codec, packed: &[u8], out: &mut [u8]) -> Result<(), Broken> {
    if let Some(bytes) = fast(codec, packed, out.len()) {
        out.copy_from_slice(&bytes);
        return Ok(());
    }
    let (mut unpacker, mut more) = (Unpacker::new(codec), pieces(packed));
    let made = unpacker.read(out, &mut more)?;
    if made == out.len() && unpacker.ends(&mut more)? { Ok(()) } else { Err(Broken) }
}

/// The fast ways only take what is whole and of the right length; whatever else there is is taken step by step.
fn fast(codec: Codec, packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let whole = match codec {
        Codec::Deflate | Codec::Zlib => inflate(codec, packed, size),
        Codec::Zstd => frame_len(packed).and_then(|len| zstd(packed.get(..len)?, size)),
        _ => None,
    };
    whole.filter(|bytes| bytes.len() == size)
}

/// Gives bytes piece by piece.
fn pieces(packed: &[u8]) -> impl FnMut(&mut Vec<u8>) -> Result<(), Broken> {
    let mut rest = packed;
    move |room| {
        let (piece, after) = rest.split_at(PIECE.min(rest.len()));
        room.extend_from_slice(piece);
        rest = after;
        Ok(())
    }
}

fn inflate(codec: Codec, packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let options = DeflateOptions::default().set_limit(size).set_size_hint(size);
    let mut decoder = DeflateDecoder::new_with_options(packed, options);
    let made = if codec == Codec::Zlib { decoder.decode_zlib() } else { decoder.decode_deflate() };
    made.ok()
}

fn zstd(frame: &[u8], size: usize) -> Option<Vec<u8>> {
    zrip_decode::decompress_with_limit(frame, size).ok()
}

/// Length of the frame of Zstandard that the bytes begin with.
fn frame_len(packed: &[u8]) -> Option<usize> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let descriptor = *packed.strip_prefix(&MAGIC)?.first()?;
    let single = descriptor & 0x20 != 0;
    let window = usize::from(!single);
    let dictionary = [0usize, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let size = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let mut at = 5usize.saturating_add(window).saturating_add(dictionary).saturating_add(size);
    loop {
        let [low, middle, high] = *packed.get(at..)?.first_chunk::<3>()?;
        let head = u32::from_le_bytes([low, middle, high, 0]);
        let len = usize::try_from(head >> 3).ok()?;
        // A run of one byte only keeps that byte.
        let kept = if head >> 1 & 3 == 1 { 1 } else { len };
        at = at.checked_add(3)?.checked_add(kept)?;
        if head & 1 == 1 {
            break;
        }
    }
    let checksum = if descriptor & 4 != 0 { 4 } else { 0 };
    at.checked_add(checksum).filter(|end| *end <= packed.len())
}

/// A decoder that takes and gives bytes as they come.
fn decoder(codec: Codec) -> Box<dyn Decoder + Send> {
    match codec {
        Codec::Deflate => Box::new(compcol::deflate::Deflate::decoder()),
        Codec::Zlib => Box::new(compcol::zlib::Zlib::decoder()),
        Codec::Zstd => Box::new(compcol::zstd::Zstd::decoder()),
        Codec::Bzip2 => Box::new(compcol::bzip2::Bzip2::decoder()),
        Codec::Lzfse => Box::new(compcol::lzfse::Lzfse::decoder()),
        Codec::Lzma => Box::new(compcol::xz::Xz::decoder()),
        Codec::Adc => Box::new(compcol::adc::Adc::decoder()),
    }
}

/// Compressed bytes that are taken at once.
pub const PIECE: usize = 64 << 10;

/// A decompression under way, for what is too long to be held whole.
pub struct Unpacker {
    decoder: Box<dyn Decoder + Send>,
    /// Compressed bytes at hand, and how many of them have been taken.
    input: Vec<u8>,
    taken: usize,
    /// There are no more.
    is_last: bool,
    /// Everything has been made.
    is_over: bool,
    is_sealed: bool,
}

impl Unpacker {
    /// One that begins at the beginning.
    pub fn new(codec: Codec) -> Unpacker {
        Unpacker {
            decoder: decoder(codec),
            input: Vec::new(),
            taken: 0,
            is_last: false,
            is_over: false,
            is_sealed: codec.is_sealed(),
        }
    }

    /// Fills `out` with the next bytes; tells how many there were, if there were less.
    ///
    /// `more` adds compressed bytes, or none at their end.
    pub fn read<E: From<Broken>>(
        &mut self,
        out: &mut [u8],
        more: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut made = 0usize;
        while made < out.len() && !self.is_over {
            if self.taken >= self.input.len() && !self.is_last {
                self.input.clear();
                self.taken = 0;
                more(&mut self.input)?;
                self.is_last = self.input.is_empty();
            }
            let room = out.get_mut(made..).unwrap_or_default();
            let rest = self.input.get(self.taken..).unwrap_or_default();
            let step = if self.is_last { self.decoder.finish(room) } else { self.decoder.decode(rest, room) };
            let (progress, status) = step.map_err(|_| Broken)?;
            made = made.saturating_add(progress.written);
            self.taken = self.taken.saturating_add(progress.consumed);
            self.is_over = matches!(status, Status::StreamEnd) || (self.is_last && progress.written == 0);
            // Neither taken nor given, although there was something of both: it would go on like this for ever.
            if !self.is_over && progress.written == 0 && progress.consumed == 0 && !rest.is_empty() {
                return Err(Broken.into());
            }
        }
        Ok(made)
    }

    /// Whether all has been made and its sum is right; where no end is marked there is nothing to be seen of that.
    pub fn ends<E: From<Broken>>(&mut self, more: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>) -> Result<bool, E> {
        Ok(!self.is_sealed || self.read(&mut [0], more)? == 0)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
