//! Compression, as formats have it in new images.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use compcol::deflate::EncoderConfig;
use compcol::{Encoder, Status};
use zrip_encode::strategy::level_params_for_size;

/// A compression with what the readers of a format expect of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Deflate without a frame that reaches back no further than 4 KiB: qemu reads qcow and qcow2 with such a window.
    Deflate12,
    /// Deflate in a zlib frame, as streams of VMDK have it.
    Zlib,
    /// Zstandard, one frame.
    Zstd,
}

/// How far back qcow and qcow2 may reach.
const REACH: usize = 4096;
/// As small as what zlib makes at its level 6, in half of the time.
const NARROW_LEVEL: u8 = 5;
/// The same: with all of deflate's window there is more to search, and one level more would cost a quarter of the speed.
const WIDE_LEVEL: u8 = 4;
/// With what follows, as small as what the original library makes at its level 3.
const ZSTD_LEVEL: i32 = 4;
/// Steps become longer after so many bits' worth of bytes without a match: later than the level has it, which costs
/// little time.
const ZSTD_PATIENCE: u32 = 8;
/// Tables of so many bits stay in the processor's caches.
const ZSTD_TABLES_MAX: u32 = 17;

/// A compressor; it can be used again and again.
pub struct Press {
    /// None: nothing is kept from one use to the next.
    deflate: Option<Box<dyn Encoder + Send>>,
}

impl Press {
    /// One for a method.
    pub fn new(method: Method) -> Press {
        let config = EncoderConfig::new();
        let deflate: Option<Box<dyn Encoder + Send>> = match method {
            Method::Deflate12 => {
                let config = config.with_level(NARROW_LEVEL).with_max_distance(REACH);
                Some(Box::new(compcol::deflate::Encoder::with_config(config)))
            }
            Method::Zlib => Some(Box::new(compcol::zlib::Encoder::with_deflate_config(config.with_level(WIDE_LEVEL)))),
            Method::Zstd => None,
        };
        Press { deflate }
    }

    /// The bytes, compressed; none if they become more than `most`.
    pub fn pack(&mut self, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
        match &mut self.deflate {
            Some(encoder) => deflate(&mut **encoder, bytes, most),
            None => zstd(bytes, most),
        }
    }
}

fn deflate(encoder: &mut dyn Encoder, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    encoder.reset();
    let mut out = vec![0; most];
    let (mut made, mut rest) = (0usize, bytes);
    loop {
        let room = out.get_mut(made..)?;
        let step = if rest.is_empty() { encoder.finish(room) } else { encoder.encode(rest, room) };
        let (progress, status) = step.ok()?;
        made = made.checked_add(progress.written)?;
        rest = rest.get(progress.consumed..)?;
        if status == Status::StreamEnd {
            out.truncate(made);
            return Some(out);
        }
        // Nothing taken and nothing given: the room is too small.
        if progress.consumed == 0 && progress.written == 0 {
            return None;
        }
    }
}

fn zstd(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut params = level_params_for_size(ZSTD_LEVEL, bytes.len())?;
    params.search_strength = ZSTD_PATIENCE;
    let tables = bytes.len().max(4).ilog2().saturating_sub(1).min(ZSTD_TABLES_MAX);
    params.hash_log = params.hash_log.min(tables);
    params.chain_log = params.chain_log.min(tables);
    let fits = |packed: &Vec<u8>| packed.len() <= most;
    if let Some(packed) = zrip_encode::compress_with_params(bytes, &params).ok().filter(fits) {
        return Some(packed);
    }
    // It takes a few samples to see whether bytes are random, and does not look for repetitions if these are. Such
    // samples say that letters are not worth a code, not that nothing comes twice.
    params.force_raw_literals = true;
    zrip_encode::compress_with_params(bytes, &params).ok().filter(fits)
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
