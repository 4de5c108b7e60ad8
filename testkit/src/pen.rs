//! Writing to images through their targets, one unit after the other, without a pump.

use crate::build::mutate::Noise;
use crate::folder::Folder;
use crate::oracle::Oracle;
use instar_image::target::{Rest, What};
use instar_image::{Chain, Drive, File, Format, Found, Granted, Options, Purpose, Reader, Result};
use std::path::Path;

/// Bytes that are written to a disk: all of them the same one, perhaps zero.
#[derive(Clone, Copy, Debug)]
pub struct Stroke {
    /// The first byte.
    pub at: u64,
    /// How many.
    pub len: u64,
    /// What they are.
    pub byte: u8,
}

/// Strokes of many lengths in the order of a disk, none upon another; they begin and end at multiples of `grain`.
pub fn strokes(size: u64, seed: u64, count: usize, grain: u64) -> Vec<Stroke> {
    let mut noise = Noise::new(seed);
    let mut cuts: Vec<u64> = (0..count * 2).map(|_| noise.below(size / grain + 1) * grain).collect();
    for cut in &mut cuts {
        // Whole blocks as well, and what lies near their ends.
        if noise.below(3) == 0 {
            *cut = (*cut & !0xf_ffff) + noise.below(3) * grain;
        }
        *cut = (*cut).min(size);
    }
    cuts.sort_unstable();
    let pairs = cuts.as_chunks::<2>().0.iter().filter(|[at, end]| at < end);
    pairs.map(|[at, end]| Stroke { at: *at, len: end - at, byte: noise.below(6) as u8 * 37 }).collect()
}

/// What a disk holds when they have been written to it.
pub fn drawn(strokes: &[Stroke], mut disk: Vec<u8>) -> Vec<u8> {
    strokes.iter().for_each(|stroke| disk[stroke.at as usize..][..stroke.len as usize].fill(stroke.byte));
    disk
}

/// Writes to an image; what lies below it is `below`.
pub fn draw(
    folder: &Folder,
    name: &str,
    format: &dyn Format,
    options: &Options,
    below: &Chain<'_>,
    strokes: &[Stroke],
) -> Result<()> {
    draw_on(folder, &folder.open_to_write(name.as_bytes())?, format, options, below, strokes)
}

/// The same, wherever the image is.
pub fn draw_on(
    folder: &dyn Drive,
    granted: &Granted,
    format: &dyn Format,
    options: &Options,
    below: &Chain<'_>,
    strokes: &[Stroke],
) -> Result<()> {
    let options = Options { purpose: Purpose::Write, ..options.clone() };
    let image = format.open(File::new(folder, granted), &options)?;
    let own = Chain { layers: vec![image.layer()?] };
    let mut target = image.target()?;
    for stroke in strokes {
        let (mut at, end) = (stroke.at, stroke.at + stroke.len);
        while at < end {
            if let Some((len, spot)) = target.fixed(at) {
                let len = len.min(end - at).min(1 << 20);
                folder.write(spot.place, &vec![stroke.byte; len as usize])?;
                at += len;
                continue;
            }
            let start = at - at % target.unit();
            let until = (start + target.unit()).min(target.size());
            let len = end.min(until) - at;
            let what = if stroke.byte == 0 { What::Zeroes } else { What::Data };
            if let Some(spot) = target.reserve(folder, at, len, what)? {
                let origin = match spot.rest {
                    Rest::There => None,
                    Rest::Zeroes => Some(vec![0; (until - start) as usize]),
                    Rest::Below => Some(crate::content::read(below, folder, start, until - start)?),
                    Rest::Was(source) => {
                        let mut bytes = vec![0; (until - start) as usize];
                        Reader::new(&own, folder).read(&Found { depth: 0, present: true, source }, &mut bytes)?;
                        Some(bytes)
                    }
                };
                let place = |of: u64| instar_image::Place { at: spot.place.at + of - at, ..spot.place };
                let back = instar_image::Place { at: spot.place.at - (at - start), ..spot.place };
                match (&origin, spot.rest) {
                    // Nobody has been there: a promise that is looked into.
                    (Some(_), Rest::Zeroes) => {
                        let have = folder.len(back.file).saturating_sub(back.at).min(until - start);
                        let mut found = vec![0; have as usize];
                        if have > 0 {
                            folder.read(back.file, back.at, &mut found)?;
                        }
                        assert!(found.iter().all(|byte| *byte == 0), "{stroke:?}: fresh space at {back:?} is not zero");
                    }
                    (Some(bytes), _) => folder.write(back, bytes)?,
                    (None, _) => {}
                }
                if stroke.byte != 0 || spot.rest != Rest::Zeroes {
                    folder.write(place(at), &vec![stroke.byte; len as usize])?;
                }
            }
            at += len;
        }
    }
    target.seal(folder)
}

/// Asks an image, sound or not, for places all over its disk, and seals it; answers whether all that could be done.
pub fn prodded(folder: &Folder, name: &str, format: &dyn Format) -> Result<()> {
    let granted = folder.open_to_write(name.as_bytes())?;
    let options = Options { purpose: Purpose::Write, ..Options::default() };
    let mut target = format.open(File::new(folder, &granted), &options)?.target()?;
    let (size, unit) = (target.size(), target.unit().max(1));
    let mut at = 0;
    for step in 0..32u64 {
        let what = if step % 5 == 3 { What::Zeroes } else { What::Data };
        let len = [512, unit, unit / 2][step as usize % 3].min(unit - at % unit).min(size.saturating_sub(at));
        if len == 0 {
            break;
        }
        if target.fixed(at).is_none() {
            target.reserve(folder, at, len, what)?;
        }
        at += len.max(size / 40 / 512 * 512);
    }
    target.seal(folder)
}

/// The bytes of an image as a version of qemu-img reads them.
pub fn read_by(oracle: &Oracle, folder: &Path, format: &str, name: &str) -> Vec<u8> {
    let words = ["convert", "-O", "raw", "-f", format, name, "read.raw"];
    oracle.img().folder(folder).args(words).must();
    std::fs::read(folder.join("read.raw")).expect("the converted image")
}

/// Asserts that versions of qemu-img read these bytes, and find nothing wrong.
pub fn holds(oracles: &[&Oracle], folder: &Path, format: &str, name: &str, bytes: &[u8]) {
    for oracle in oracles {
        let read = read_by(oracle, folder, format, name);
        if read != bytes {
            let differs = read.iter().zip(bytes).position(|(a, b)| a != b);
            panic!("{} of {name}: {differs:?} is the first difference, {} bytes", oracle.version, read.len());
        }
        let ran = oracle.img().folder(folder).args(["check", "-f", format, name]).go();
        // Of formats that it cannot check it says so.
        assert!(matches!(ran.code(), Some(0 | 63)), "{} of {name}: {} {}", oracle.version, ran.out(), ran.err());
    }
}
