//! Images made and written in a folder, by the code that makes them in a cell.

use crate::folder::Folder;
use instar_image::file::Zeroes;
use instar_image::former::Former;
use instar_image::pump::{Carrier, Manner, Pump};
use instar_image::row::Row;
use instar_image::stage::Stage;
use instar_image::target::Facts;
use instar_image::{
    Chain, Drive, Fact, File, FileId, Format, Freed, Granted, Io, Kind, Options, Place, Purpose, Random, Reader,
    Recipe, Result, Role, Secret, Site, Target, Walk, info,
};
use instar_wire::op::Rules;
use rustix::fs::{FallocateFlags, fallocate};
use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// An image to be made in a folder.
pub struct Order<'o> {
    /// Its format.
    pub format: &'o dyn Format,
    /// Size of its disk.
    pub size: u64,
    /// Its options, as the command line makes them.
    pub options: Fact,
    /// The passphrase.
    pub key: Option<Secret>,
    /// What lies below says this of itself.
    pub below: Option<info::Image>,
    /// The name of the second file, if the user names one.
    pub beside: Option<&'o str>,
    /// The qemu-img version whose ways count.
    pub version: u32,
}

impl<'o> Order<'o> {
    /// Without options.
    pub fn plain(format: &'o dyn Format, size: u64) -> Self {
        Order { format, size, options: Fact::fields([]), key: None, below: None, beside: None, version: 0 }
    }

    /// Lays it out in a file of the folder; answers what was opened of it.
    pub fn create(&self, folder: &Folder, name: &str) -> Result<Granted> {
        let granted = folder.make(name.as_bytes())?;
        let beside = self.beside.map(|name| folder.make(name.as_bytes())).transpose()?;
        let site = Site {
            drive: folder,
            file: granted.id,
            beside: beside.map(|granted| granted.id),
            name: name.as_bytes(),
            below: self.below.as_ref(),
            key: self.key.as_ref(),
            rules: &Rules { as_qemu: self.version > 0, version: self.version },
            time: 0,
            random: RefCell::new(Random::new(b"seed")),
        };
        let recipe = Recipe { format: self.format.name().into(), size: self.size, options: self.options.clone() };
        self.format.create(&recipe, &site)?;
        Ok(Granted { len: folder.len(granted.id), ..granted })
    }
}

/// Bytes to be written to an image that is there, from its beginning on.
pub struct Pour<'p> {
    /// The image.
    pub name: &'p str,
    /// The format of the image, and those of what lies below it.
    pub formats: &'p [&'p dyn Format],
    /// The file that has the bytes, as they are.
    pub from: &'p str,
    /// The image has just been made.
    pub is_new: bool,
    /// Its units are to be made shorter.
    pub pack: bool,
    /// The passphrase.
    pub key: Option<Secret>,
}

impl<'p> Pour<'p> {
    /// Into a new image.
    pub fn new(name: &'p str, formats: &'p [&'p dyn Format], from: &'p str) -> Self {
        Pour { name, formats, from, is_new: true, pack: false, key: None }
    }

    /// Into one that may hold something.
    pub fn there(name: &'p str, formats: &'p [&'p dyn Format], from: &'p str) -> Self {
        Pour { is_new: false, ..Pour::new(name, formats, from) }
    }

    /// Writes them as `convert` does on one lane.
    pub fn go(&self, folder: &Folder) -> Result<()> {
        let (mut target, former) = self.open(folder)?;
        let from = folder.open(self.from.as_bytes())?;
        let row = Row { start: Place { file: from.id, at: 0 }, range: 0..from.len };
        let chain = Chain::single(Box::new(row));
        let manner = Manner {
            sparse: 4096,
            is_zero: self.is_new && former.below.layers.is_empty(),
            is_clean: true,
            offload: false,
            by_hand: false,
        };
        let (mut walk, mut reader) = (Walk::new(&chain, folder, 0, 0), Reader::new(&chain, folder));
        let mut carry = |carrier: &mut dyn Carrier, at: u64, end: u64| {
            walk.aim(at, end);
            while let Some((len, found)) = walk.peek()? {
                let at = walk.at();
                walk.advance(carrier.carry(&mut reader, &found, len, at)?);
            }
            carrier.flush()
        };
        if let Some(rows) = rows(&*target) {
            let fixed = |at: u64| {
                let (start, len, place) = rows[rows.partition_point(|(start, ..)| *start <= at) - 1];
                (start + len - at, place.ahead(at - start))
            };
            carry(&mut Pump::new(&fixed, folder, manner), 0, from.len)?;
            return target.seal(folder);
        }
        let piece = Stage::piece_len(target.unit(), folder);
        let facts = Facts::of(&*target, self.pack);
        let mut stage = Stage::new(&facts, Some(&former), folder, manner);
        for at in (0..from.len).step_by(piece as usize) {
            stage.begin(at);
            carry(&mut stage, at, (at + piece).min(from.len))?;
            stage.gathered();
            stage.reserve(&mut *target)?;
            stage.write()?;
        }
        target.seal(folder)
    }

    fn open(&self, folder: &Folder) -> Result<(Box<dyn Target>, Former)> {
        let options = Options { purpose: Purpose::Read, key: self.key.clone(), ..Options::default() };
        let (mut layers, mut target) = (Vec::new(), None);
        let mut granted = folder.open_to_write(self.name.as_bytes())?;
        for (depth, format) in self.formats.iter().enumerate() {
            let image = format.open(File::new(folder, &granted), &options)?;
            if depth == 0 {
                target = Some(image.target()?);
            }
            layers.push(image.layer()?);
            if depth + 1 < self.formats.len() {
                granted = match image.describe(false)?.backing {
                    Some(backing) => folder.related(granted.id, Role::Backing, &backing.name.0)?,
                    None => image.parent()?.expect("a parent"),
                };
            }
        }
        let below = Chain { layers: layers.split_off(1) };
        let own = Chain { layers: if self.is_new { Vec::new() } else { layers } };
        // What is new need not read as anything yet.
        let is_known = !self.is_new || !below.layers.is_empty();
        Ok((target.expect("an image"), Former { own, below, is_known, next: None }))
    }
}

/// The rows in which the bytes of a disk lie, if all have their place.
fn rows(target: &dyn Target) -> Option<Vec<(u64, u64, Place)>> {
    let (mut rows, mut at) = (Vec::new(), 0);
    while at < target.size() {
        let (len, spot) = target.fixed(at)?;
        rows.push((at, len, spot.place));
        at += len;
    }
    Some(rows)
}

impl Folder {
    /// Makes a file.
    pub fn make(&self, name: &[u8]) -> Result<Granted> {
        std::fs::File::create(self.path_of(name)).map_err(|_| Kind::Io.what("cannot be made"))?;
        self.open_to_write(name)
    }

    fn change(&self, place: Place, act: impl FnOnce(&std::fs::File) -> std::io::Result<()>) -> Result<()> {
        act(&self.file(place.file)).map_err(|_| Kind::Io.what("cannot be written").file(place.file).at(place.at))
    }
}

impl Drive for Folder {
    fn slot_len(&self) -> usize {
        256 << 10
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<()> {
        self.change(place, |file| file.write_all_at(bytes, place.at))
    }

    fn copy(&self, from: Place, to: Place, len: u64, _zeroes: Zeroes) -> Result<()> {
        let mut bytes = vec![0; len as usize];
        self.read(from.file, from.at, &mut bytes)?;
        self.write(to, &bytes)
    }

    fn zero(&self, place: Place, len: u64, _give_up: bool) -> Result<()> {
        self.change(place, |file| Ok(fallocate(file, FallocateFlags::ZERO_RANGE, place.at, len)?))
    }

    fn discard(&self, place: Place, len: u64, _freed: Freed) -> Result<bool> {
        let (punch, keep) = (FallocateFlags::PUNCH_HOLE, FallocateFlags::KEEP_SIZE);
        self.change(place, |file| Ok(fallocate(file, punch | keep, place.at, len)?)).map(|()| true)
    }

    fn allocate(&self, place: Place, len: u64) -> Result<()> {
        self.change(place, |file| Ok(fallocate(file, FallocateFlags::KEEP_SIZE, place.at, len)?))
    }

    fn set_length(&self, file: FileId, len: u64) -> Result<()> {
        self.change(Place { file, at: len }, |file| file.set_len(len))
    }

    fn flush(&self, _file: FileId) -> Result<()> {
        Ok(())
    }

    fn length(&self, file: FileId) -> Result<u64> {
        Ok(self.len(file))
    }

    fn part(&self, _from: FileId, name: &[u8]) -> Result<FileId> {
        Ok(self.make(name)?.id)
    }

    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let have = self.len(from.file).saturating_sub(from.at).min(len as u64) as usize;
        self.read(from.file, from.at, &mut bytes[..have])?;
        Ok(self.stage.load(skip, &bytes, granule))
    }

    fn lay(&self, skip: usize, bytes: &[u8]) {
        self.stage.lay(skip, bytes);
    }

    fn take(&self, skip: usize, bytes: &mut [u8]) {
        self.stage.take(skip, bytes);
    }

    fn store(&self, skip: usize, len: usize, to: Place) -> Result<()> {
        self.write(to, &self.stage.bytes(skip, len))
    }

    fn stage_len(&self) -> usize {
        self.stage.len()
    }

    fn pause(&self) -> Result<()> {
        Ok(())
    }

    fn clock(&self) -> Result<u64> {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        Ok(START.elapsed().as_nanos() as u64)
    }
}

/// The bytes of a file.
pub fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).expect("a file")
}
