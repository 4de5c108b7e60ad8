//! An image read by us and by qemu-img: the same bytes, and the same said of where they are.

use crate::build::mutate::Noise;
use crate::content::{content, runs};
use crate::folder::Folder;
use crate::oracle::{Oracle, maker, newest};
use instar_image::layer::Estranged;
use instar_image::{Chain, File, Format, Io, Options, Purpose, Result, Role, Secret, Source};
use std::path::Path;

/// One entry of what `map` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub len: u64,
    /// In which layer.
    pub depth: u64,
    /// Some layer has it.
    pub present: bool,
    /// It reads as zeroes.
    pub zero: bool,
    /// It is data.
    pub data: bool,
    /// It is compressed.
    pub compressed: bool,
    /// Where it is in its file.
    pub offset: Option<u64>,
}

/// The chain of an image and what lies below it, each layer of the format that is named for it, top first.
pub fn chain(folder: &Folder, name: &str, formats: &[&dyn Format], options: &Options) -> Result<Chain<'static>> {
    let mut layers = Vec::new();
    let mut granted = folder.open(name.as_bytes())?;
    for (depth, format) in formats.iter().enumerate() {
        let image = format.open(File::new(folder, &granted), options)?;
        let told = image.describe(false)?;
        let mut layer = image.layer()?;
        if let Some(below) = formats.get(depth + 1) {
            granted = match &told.backing {
                Some(backing) => folder.related(granted.id, Role::Backing, &backing.name.0)?,
                None => image.parent()?.expect("a parent"),
            };
            let told = below.open(File::new(folder, &granted), options)?.describe(false)?;
            if let Err(error) = image.stands_on(&told) {
                layer = Box::new(Estranged { layer, error });
            }
        }
        layers.push(layer);
    }
    Ok(Chain { layers })
}

/// [`agree`] with the version that makes the images and with the newest.
pub fn agreed(folder: &Path, name: &str, formats: &[&dyn Format], seed: u64) {
    agree(maker(), folder, name, formats, seed);
    agree(newest(), folder, name, formats, seed);
}

/// Makes an image with qemu-img; the words are those after `create`, none with a blank in it.
pub fn create(folder: &Path, words: &str) {
    maker().img().folder(folder).args(["create", "-q"]).args(words.split(' ')).must();
}

/// Writes to an image as a guest might, through qemu-io: bytes, zeroes, and what is given up again.
pub fn scribble(folder: &Path, format: &str, name: &str, size: u64, seed: u64, count: usize) {
    let mut noise = Noise::new(seed);
    let mut words: Vec<String> = ["-f", format].map(String::from).to_vec();
    for _ in 0..count {
        let at = noise.below(size / 512) * 512;
        let most = [512, 4096, 65536, 1 << 20, 3 << 20][noise.below(5) as usize];
        let len = (1 + noise.below(most / 512)) * 512;
        let len = len.min(size - at);
        let what = match noise.below(8) {
            0 => "write -z".into(),
            1 => "write -z -u".into(),
            2 => "discard".into(),
            _ => format!("write -P {}", 1 + noise.below(255)),
        };
        words.extend(["-c".into(), format!("{what} {at} {len}")]);
    }
    words.push(name.into());
    maker().io().folder(folder).args(words).must();
}

/// Asserts that the image is read as `oracle` reads it, and that the same is said of where its bytes are.
pub fn agree(oracle: &Oracle, folder: &Path, name: &str, formats: &[&dyn Format], seed: u64) {
    compare(oracle, folder, name, formats, None, &["-f", formats[0].name(), name], seed);
}

/// The same of an image that only opens with a password, which has this name in qemu-img's options.
pub fn agree_sealed(folder: &Path, name: &str, format: &dyn Format, key: (&str, &str), seed: u64) {
    let (option, secret) = key;
    let object = format!("secret,id=key,data={secret}");
    let options = format!("driver={},{option}=key,file.filename={name}", format.name());
    let words = ["--object", &object, "--image-opts", &options];
    compare(maker(), folder, name, &[format], Some(Secret(secret.into())), &words, seed);
}

/// `words` is what qemu-img is told of the image.
fn compare(
    oracle: &Oracle,
    folder: &Path,
    name: &str,
    formats: &[&dyn Format],
    key: Option<Secret>,
    words: &[&str],
    seed: u64,
) {
    let title = format!("{} of {name}, seed {seed}", oracle.version);
    let io = Folder::new(folder);
    let version = version(oracle);
    let options = Options { as_qemu: true, purpose: Purpose::Read, version, key, ..Options::default() };
    let chain = chain(&io, name, formats, &options).unwrap_or_else(|e| panic!("{title}: {e:?}"));
    let ours = content(&chain, &io, seed).unwrap_or_else(|e| panic!("{title}: {e:?}"));
    let raw = folder.join("twin.raw");
    let ran = oracle.img().folder(folder).args(["convert", "-O", "raw"]).args(words).arg("twin.raw").go();
    assert_eq!(ran.code(), Some(0), "{title}: {}", ran.err());
    let theirs = std::fs::read(raw).expect("the converted image");
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!((differs, ours.len()), (None, theirs.len()), "{title}: first byte that differs, length");
    let ran = oracle.img().folder(folder).args(["map", "--output=json"]).args(words).go();
    assert_eq!(ran.code(), Some(0), "{title}: {}", ran.err());
    let told = map(&chain, &io).expect("a map");
    assert_eq!(told, parse(&ran.out()), "{title}: map");
}

/// A version as formats are told it.
pub fn version(oracle: &Oracle) -> u32 {
    let numbers = crate::oracle::numbers(&oracle.version);
    numbers.iter().take(2).fold(0, |sum, number| sum * 100 + number)
}

/// What `map` would tell.
pub fn map(chain: &Chain<'_>, io: &dyn Io) -> Result<Vec<Told>> {
    let mut out: Vec<Told> = Vec::new();
    let mut add = |next: Told| match out.last_mut() {
        Some(last) if joins(last, &next) => last.len += next.len,
        _ => out.push(next),
    };
    let mut start = 0;
    for (len, found) in runs(chain, io, 1024)? {
        let base = Told {
            start,
            len,
            depth: found.depth as u64,
            present: found.present,
            zero: false,
            data: true,
            compressed: false,
            offset: None,
        };
        let open = chain.layers.get(found.depth).is_none_or(|layer| layer.is_open());
        match found.source {
            _ if !open => add(Told { present: true, ..base }),
            Source::Zero { reserved } => {
                add(Told { zero: true, data: false, offset: reserved.map(|place| place.at), ..base });
            }
            Source::Raw { tweak: Some(_), .. } => add(base),
            Source::Hollow { .. } => panic!("a chain says nothing of the kind"),
            Source::Raw { place, sparse: true, .. } => {
                let mut done = 0;
                while done < len {
                    for hole in io.holes(place.file, place.at + done, len - done)? {
                        let offset = Some(place.at + done);
                        add(Told { start: start + done, len: hole.len, zero: hole.is_hole, offset, ..base });
                        done += hole.len;
                    }
                }
            }
            Source::Raw { place, .. } | Source::Inline { place } => add(Told { offset: Some(place.at), ..base }),
            Source::Beyond { place, sparse } => add(Told { zero: sparse, offset: Some(place.at), ..base }),
            Source::Packed { .. } => add(Told { compressed: true, ..base }),
        }
        start += len;
    }
    Ok(out)
}

/// Whether qemu-img tells both as one: all alike, and the second where the first ends.
fn joins(last: &Told, next: &Told) -> bool {
    let follows = match (last.offset, next.offset) {
        (Some(last_at), Some(at)) => last_at + last.len == at,
        (None, None) => true,
        _ => false,
    };
    let like = |t: &Told| (t.depth, t.present, t.zero, t.data, t.compressed);
    follows && like(last) == like(next)
}

/// What `map --output=json` printed.
fn parse(text: &str) -> Vec<Told> {
    let entry = |line: &str| {
        let field = |name: &str| {
            let rest = line.split_once(&format!("\"{name}\": "))?.1;
            rest.split([',', '}']).next()
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        let truth = |name: &str| field(name) == Some("true");
        Some(Told {
            start: number("start")?,
            len: number("length")?,
            depth: number("depth")?,
            present: truth("present"),
            zero: truth("zero"),
            data: truth("data"),
            compressed: truth("compressed"),
            offset: number("offset"),
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Opens the image as the top of a chain, maps it and reads it, whatever comes of it: damage must only be survived.
/// Disks that are larger than this are read at their beginning only.
pub fn survives(format: &dyn Format, io: &crate::mem::MemIo, most: u64) {
    for as_qemu in [false, true] {
        let options = Options { as_qemu, ..Options::default() };
        let Ok(image) = format.open(File::new(io, &io.top()), &options) else { continue };
        let _ = image.parent();
        let Ok(layer) = image.layer() else { continue };
        let chain = Chain::single(layer);
        let end = chain.size().min(most);
        let mut walk = instar_image::Walk::new(&chain, io, 0, end);
        let mut reader = instar_image::Reader::new(&chain, io);
        let mut buffer = vec![0; 1 << 16];
        let mut at = 0;
        while let Ok(Some((len, found))) = walk.peek() {
            let len = len.min(buffer.len() as u64);
            let _ = reader.read(&found, &mut buffer[..len as usize]);
            walk.advance(len);
            assert!(walk.at() > at, "a walk goes on");
            at = walk.at();
        }
    }
}
