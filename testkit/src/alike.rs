//! Images made and written by us, held against what qemu-img makes and reads.

use crate::build::mutate::Noise;
use crate::folder::Folder;
use crate::made::{options, said};
use crate::oracle::Oracle;
use crate::place::skipped;
use crate::run::Run;
use crate::workshop::Order;
use instar_image::measure::Input;
use instar_image::target::What;
use instar_image::{Content, File, Format, Options, Purpose, Recipe, info};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An empty image to be made by both.
pub struct Twin<'t> {
    /// The format.
    pub format: &'t dyn Format,
    /// The name of its file.
    pub name: &'t str,
    /// The options, as the command line has them.
    pub list: &'t str,
    /// Size of the disk in bytes.
    pub size: u64,
    /// What lies below, which is in the folder `theirs` and its twin in `ours`.
    pub below: Option<info::Image>,
    /// Further words for qemu-img.
    pub words: &'t [&'t str],
    /// Our key.
    pub key: Option<&'t str>,
}

impl<'t> Twin<'t> {
    /// Without a layer below.
    pub fn of(format: &'t dyn Format, name: &'t str, list: &'t str, size: u64) -> Self {
        Twin { format, name, list, size, below: None, words: &["-u"], key: None }
    }

    /// Has both make it, in the folders `ours` and `theirs`; what one of them refused it with must be what the other
    /// did. Whether it was made.
    pub fn made(&self, folder: &Path, oracle: &Oracle) -> bool {
        let title = format!("{} {} of {} bytes, {}", self.format.name(), self.list, self.size, oracle.version);
        let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
        for folder in [&ours, &theirs] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let size = self.size.to_string();
        let list = if self.list.is_empty() { vec![] } else { vec!["-o", self.list] };
        let words = oracle.img().folder(&theirs).args(["create", "-q", "-f", self.format.name()]).args(list);
        let ran = words.args(self.words).args([self.name, &size]).go();
        let order = Order {
            options: options(self.list),
            below: self.below.clone(),
            key: self.key.map(|key| instar_image::Secret(key.into())),
            version: crate::twin::version(oracle),
            ..Order::plain(self.format, self.size)
        };
        let made = order.create(&Folder::new(&ours), self.name);
        match (ran.code(), &made) {
            (Some(0), Ok(_)) => true,
            (Some(0), Err(error)) => panic!("{title}: made by them, but: {}", said(error)),
            (_, Ok(_)) => panic!("{title}: made, but they say {}", ran.err()),
            (_, Err(error)) => {
                let theirs = ran.err();
                let theirs = theirs
                    .trim_end_matches('\n')
                    .strip_prefix(&format!("qemu-img: {}: ", self.name))
                    .unwrap_or(&theirs);
                assert_eq!(said(error), theirs, "{title}");
                false
            }
        }
    }

    /// The same, and every file must be the same, but for what `mask` takes away.
    pub fn compare(&self, folder: &Path, oracle: &Oracle, mask: &dyn Fn(Vec<u8>) -> Vec<u8>) {
        let title = format!("{} {} of {} bytes, {}", self.format.name(), self.list, self.size, oracle.version);
        for folder in [folder.join("ours"), folder.join("theirs")] {
            _ = std::fs::remove_dir_all(folder);
        }
        if !self.made(folder, oracle) {
            return;
        }
        let files = |folder: &Path| -> Vec<(std::ffi::OsString, Vec<u8>)> {
            let entries = std::fs::read_dir(folder).expect("a folder").flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            let read = |name: &std::ffi::OsString| std::fs::read(folder.join(name)).expect("a file");
            names.into_iter().map(|name| (name.clone(), mask(read(&name)))).collect()
        };
        let (ours, theirs) = (files(&folder.join("ours")), files(&folder.join("theirs")));
        let names = |files: &[(std::ffi::OsString, Vec<u8>)]| -> Vec<std::ffi::OsString> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&ours), names(&theirs), "{title}");
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            let differs = difference(ours, theirs);
            let near = |bytes: &[u8]| {
                let from = differs.unwrap_or(0).min(bytes.len());
                bytes[from..(from + 32).min(bytes.len())].escape_ascii().to_string()
            };
            let title = format!("{title}: {} and {}", near(ours), near(theirs));
            assert_eq!(
                (differs, ours.len()),
                (None, theirs.len()),
                "{title}: {} in {}",
                name.display(),
                folder.display()
            );
        }
    }
}

/// Where bytes differ first.
fn difference(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    let len = ours.len().min(theirs.len());
    if ours[..len] == theirs[..len] {
        return None;
    }
    ours.iter().zip(theirs).position(|(a, b)| a != b)
}

/// A raw disk with bytes that can be packed, others that cannot, and none in between.
pub fn scatter(folder: &Path, name: &str, size: u64, seed: u64, count: u64) {
    let mut noise = Noise::new(seed);
    let file = std::fs::File::create(folder.join(name)).expect("a file");
    file.set_len(size).expect("a length");
    for _ in 0..count {
        let at = noise.below(size.max(512) / 512) * 512;
        let most = [512, 4096, 65536, 300_000, 1 << 20][noise.below(5) as usize];
        let len = (1 + noise.below(most)).next_multiple_of(512).min(size.saturating_sub(at));
        let kind = noise.below(3);
        let mut word = [0; 8];
        let mut byte = |index: u64, noise: &mut Noise| match kind {
            0 => {
                if index.is_multiple_of(8) {
                    word = noise.next().to_le_bytes();
                }
                word[(index % 8) as usize]
            }
            1 => (index / 100) as u8,
            _ => b"all work and no play "[(index % 21) as usize],
        };
        let bytes: Vec<u8> = (0..len).map(|index| byte(index, &mut noise)).collect();
        file.write_all_at(&bytes, at).expect("bytes");
    }
    // The last bytes count as well.
    if size > 0 {
        file.write_all_at(&[seed as u8 | 1], size - 1).expect("a byte");
    }
}

/// How large we say an image becomes that holds what is in the raw file.
pub fn measured(format: &dyn Format, list: &str, folder: &Path, raw: &str) -> u64 {
    let bytes = crate::workshop::bytes(folder, raw);
    let zeroes = vec![0; 4096];
    let is_data = |piece: &[u8]| piece.chunks(4096).any(|part| part != &zeroes[..part.len()]);
    let count = |len: u64| Ok(bytes.chunks(len as usize).filter(|piece| is_data(piece)).count() as u64);
    let content = Content { input: Some(Input { bitmaps: None, count: &count }) };
    let recipe = Recipe { format: format.name().into(), size: bytes.len() as u64, options: options(list) };
    format.measure(&recipe, &content).expect("a size").required
}

/// Bytes of a file.
pub fn len(folder: &Path, name: &str) -> u64 {
    folder.join(name).metadata().expect("a file").len()
}

/// Asserts that qemu-img reads from an image, named by these words, what the raw file holds.
pub fn holds(oracle: &Oracle, folder: &Path, words: &[&str], raw: &str) {
    let ran = oracle.img().folder(folder).args(["convert", "-O", "raw"]).args(words).arg("alike.raw").go();
    assert_eq!(ran.code(), Some(0), "{} of {words:?}: {}", oracle.version, ran.err());
    let (ours, theirs) = (crate::workshop::bytes(folder, raw), crate::workshop::bytes(folder, "alike.raw"));
    let differs = difference(&ours, &theirs);
    assert_eq!((differs, ours.len()), (None, theirs.len()), "{} of {words:?}", oracle.version);
}

/// Asserts that `check` finds nothing.
pub fn clean(oracle: &Oracle, folder: &Path, format: &str, name: &str) {
    let ran = oracle.img().folder(folder).args(["check", "-f", format, name]).go();
    assert_eq!(ran.code(), Some(0), "{}: {}{}", oracle.version, ran.out(), ran.err());
}

/// Opens an image to be written to and writes to it here and there, whatever comes of it: damage must only be survived.
/// Whether it could be sealed.
pub fn weathers(format: &dyn Format, folder: &Folder, name: &str) -> bool {
    let options = Options { purpose: Purpose::Read, ..Options::default() };
    let Ok(granted) = folder.open_to_write(name.as_bytes()) else { return false };
    let Ok(image) = format.open(File::new(folder, &granted), &options) else { return false };
    let Ok(mut target) = image.target() else { return false };
    let (unit, size) = (target.unit(), target.size());
    assert!(unit > 0, "a unit");
    for (number, what) in
        [What::Data, What::Zeroes, What::Packed(700), What::Data, What::Zeroes].into_iter().enumerate()
    {
        let at = size / 5 * number as u64 / unit * unit;
        if at < size {
            _ = target.fixed(at);
            _ = target.reserve(folder, at, unit.min(size - at), what);
        }
    }
    target.seal(folder).is_ok()
}

/// What reads an image with a library of others: that library's name, the image and the raw file.
const ELSEWHERE: &str = "\
import importlib, sys
module, name, raw = sys.argv[1:]
library = importlib.import_module(module)
if module == 'pyvmdk':
    image = library.handle()
    image.open(name)
    image.open_extent_data_files()
else:
    image = library.file()
    image.open(name)
with open(raw, 'rb') as file:
    size = file.seek(0, 2)
    assert image.get_media_size() == size, (image.get_media_size(), size)
    for at in range(0, size, 1 << 20):
        file.seek(at)
        image.seek_offset(at, 0)
        ours = file.read(1 << 20)
        theirs = image.read_buffer(len(ours))
        while len(theirs) < len(ours):
            more = image.read_buffer(len(ours) - len(theirs))
            assert more, at
            theirs += more
        assert ours == theirs, at
";

/// Asserts that the library of others reads what the raw file holds, if it is at hand.
pub fn holds_elsewhere(library: &str, folder: &Path, name: &str, raw: &str) {
    let python = || Run::new("/usr/bin/python3").folder(folder).arg("-c");
    let found =
        Path::new("/usr/bin/python3").exists() && python().arg(format!("import {library}")).go().code() == Some(0);
    if !found {
        return skipped(&format!("no {library}: {name} is not read by a second reader"));
    }
    let ran = python().args([ELSEWHERE, library, name, raw]).go();
    assert_eq!(ran.code(), Some(0), "{library} of {name}: {}", ran.err());
}
