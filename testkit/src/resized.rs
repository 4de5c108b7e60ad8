//! Images that are made longer and shorter, in memory, through every crash.

use crate::build::mutate::Noise;
use crate::content::read;
use crate::crash::{Bad, How, MemFiles, Recorder, Spoil, Spoiled, Tried, Trouble, sweep};
use crate::pen::{Stroke, draw_on, drawn, strokes};
use instar_image::tally::check;
use instar_image::{
    Chain, Drive, Error, File, FileId, Format, Granted, Image, Io, Options, Preallocation, Purpose, Role, Scope,
};
use std::cell::Cell;
use std::ops::Range;

/// An image in memory, and those below it, top first: their formats.
#[derive(Clone)]
pub struct Stack<'f> {
    /// All files; the first one is the image.
    pub files: MemFiles,
    /// The formats, from the top down.
    pub formats: &'f [&'f dyn Format],
    /// How the image is opened.
    pub options: Options,
    /// What is new may read as anything.
    pub is_noisy: bool,
    /// On its way it may have sizes in between.
    pub has_steps: bool,
}

/// The first file.
const TOP: FileId = FileId(0);

impl<'f> Stack<'f> {
    /// Of these files.
    pub fn new(files: MemFiles, formats: &'f [&'f dyn Format]) -> Self {
        Stack { files, formats, options: Options::default(), is_noisy: false, has_steps: false }
    }

    fn open<'a>(&self, io: &'a dyn Io, purpose: Purpose) -> Result<Vec<Box<dyn Image + 'a>>, Error> {
        let mut images: Vec<Box<dyn Image + 'a>> = Vec::new();
        let mut granted =
            Granted { id: TOP, len: io.len(TOP), allocated: 0, writable: true, pinned: None, suggested: None };
        for (depth, format) in self.formats.iter().enumerate() {
            let purpose = if depth == 0 { purpose } else { Purpose::Read };
            let image = format.open(File::new(io, &granted), &Options { purpose, ..self.options.clone() })?;
            if depth + 1 < self.formats.len() {
                granted = match image.describe(false)?.backing {
                    Some(backing) => io.related(granted.id, Role::Backing, &backing.name.0)?,
                    None => image.parent()?.expect("a parent"),
                };
            }
            images.push(image);
        }
        Ok(images)
    }

    /// What the guest reads.
    pub fn content(&self) -> Result<Vec<u8>, Error> {
        self.content_of(&self.files)
    }

    fn content_of(&self, files: &MemFiles) -> Result<Vec<u8>, Error> {
        let layers = self.open(files, Purpose::Read)?.iter().map(|image| image.layer()).collect::<Result<_, _>>()?;
        let chain = Chain { layers };
        read(&chain, files, 0, chain.size())
    }

    /// Resizes it; answers the size it has then.
    pub fn resize_on(&self, drive: &dyn Drive, size: u64, space: Preallocation) -> Result<u64, Error> {
        let images = self.open(drive, Purpose::Write)?;
        let layers = images[1..].iter().map(|image| image.layer()).collect::<Result<_, _>>()?;
        let below = Chain { layers };
        images[0].edit()?.resize(drive, size, space, &below)
    }

    /// Resizes it, and keeps what becomes of it.
    pub fn resize(&mut self, size: u64, space: Preallocation) -> Result<u64, Error> {
        let recorder = Recorder::new(&self.files, Trouble::Never);
        let size = self.resize_on(&recorder, size, space)?;
        self.files = recorder.files().settled(self.files.count());
        Ok(size)
    }

    /// Size of its disk.
    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.open(&self.files, Purpose::Describe)?[0].describe(false)?.virtual_size)
    }

    /// A part of what the guest reads.
    pub fn bytes(&self, at: u64, len: u64) -> Result<Vec<u8>, Error> {
        let images = self.open(&self.files, Purpose::Read)?;
        let layers = images.iter().map(|image| image.layer()).collect::<Result<_, _>>()?;
        read(&Chain { layers }, &self.files, at, len)
    }

    /// Fills sectors with bytes.
    pub fn draw_at(&mut self, sectors: &[(u64, u8)]) {
        let mut strokes: Vec<Stroke> =
            sectors.iter().map(|(at, byte)| Stroke { at: *at, len: 512, byte: *byte }).collect();
        strokes.sort_by_key(|stroke| stroke.at);
        self.stroke(&strokes);
    }

    /// Writes to it; answers what it holds then.
    pub fn draw(&mut self, seed: u64, count: usize) -> Vec<u8> {
        let disk = self.content().expect("content");
        let strokes = strokes(disk.len() as u64, seed, count, 512);
        self.stroke(&strokes);
        drawn(&strokes, disk)
    }

    fn stroke(&mut self, strokes: &[Stroke]) {
        let recorder = Recorder::new(&self.files, Trouble::Never);
        let images = self.open(&recorder, Purpose::Read).expect("an image");
        let layers = images[1..].iter().map(|image| image.layer().expect("a layer")).collect();
        let granted = recorder.files().granted(TOP);
        let below = Chain { layers };
        draw_on(&recorder, &granted, self.formats[0], &self.options, &below, strokes).expect("it can be written");
        drop(images);
        self.files = recorder.files();
    }

    /// What is wrong with it, but for space that is lost.
    pub fn check(&self, files: &MemFiles) -> Result<(), String> {
        let images = self.open(files, Purpose::Check).map_err(|error| format!("{error:?}"))?;
        let scope = Scope { as_qemu: false, version: 0 };
        for census in images[0].censuses(scope) {
            let mut words = String::new();
            let summary = check(&*census, scope, &mut |finding| {
                words += &format!("\n{finding:?}");
                Ok(())
            });
            let summary = summary.map_err(|error| format!("it cannot be checked: {error:?}"))?;
            if summary.corruptions + summary.failures > 0 {
                return Err(format!("errors are found: {words}"));
            }
        }
        Ok(())
    }

    /// Whether these files have one of two sizes, and the bytes of before.
    fn judge(&self, files: &MemFiles, is_over: bool, before: &[u8], size: usize) -> Result<(), String> {
        let now = self.content_of(files).map_err(|error| format!("it cannot be read: {error:?}"))?;
        let is_between = self.has_steps && (size..before.len()).contains(&now.len());
        if now.len() != size && (is_over || !(is_between || now.len() == before.len())) {
            return Err(format!("it has {} bytes, and should have {} or {size}", now.len(), before.len()));
        }
        let both = now.len().min(before.len());
        // Slices are compared faster than bytes.
        if now[..both] != before[..both] {
            let differs = (0..both).find(|at| now[*at] != before[*at]).expect("a difference");
            return Err(format!("byte {differs:#x} of {both:#x} is {}, and was {}", now[differs], before[differs]));
        }
        if !self.is_noisy && now[both..] != vec![0; now.len() - both] {
            let at = (both..now.len()).find(|at| now[*at] != 0).expect("a byte");
            return Err(format!("the new byte {at:#x} is {}", now[at]));
        }
        self.check(files)
    }

    /// Resizes it through every crash; keeps what becomes of it when there is none.
    pub fn crash(&mut self, size: u64, space: Preallocation) -> Result<Tried, Bad> {
        self.crash_with(size, space, &|drive, resize| resize(drive))
    }

    /// The same where something stands between it and its files.
    pub fn crash_with(&mut self, size: u64, space: Preallocation, between: Between<'_>) -> Result<Tried, Bad> {
        let before = self.content().expect("content");
        let mut after = self.clone();
        let size_then = after.resize(size, space).unwrap_or_else(|error| panic!("to {size}: {error:?}"));
        let run = |drive: &dyn Drive| between(drive, &|drive| self.resize_on(drive, size, space).map(drop));
        let judge = |files: &MemFiles, how: &How| {
            let files = match how.is_over() {
                true => files.clone().settled(self.files.count()),
                false => files.clone(),
            };
            self.judge(&files, how.is_over(), &before, size_then as usize)
        };
        let tried = sweep(&self.files, run, judge)?;
        self.files = after.files;
        Ok(tried)
    }

    /// Resizes it with every flush left out in its turn, and every write too late; answers how many of these errors
    /// are seen, and which are not.
    pub fn spoiled(&self, size: u64) -> (usize, Vec<Spoil>) {
        let (mut seen, mut unseen) = (0, Vec::new());
        for spoil in [Spoil::Flush, Spoil::Late] {
            for number in 0..40 {
                let spoil = spoil(number);
                let is_done = Cell::new(false);
                let tried = self.clone().crash_with(size, Preallocation::Off, &|drive, resize| {
                    let spoiled = Spoiled::new(drive, spoil);
                    let ended = resize(&spoiled);
                    is_done.set(is_done.get() | spoiled.is_done());
                    ended.and_then(|()| spoiled.end())
                });
                match (is_done.get(), tried) {
                    (false, _) => break,
                    (true, Err(_)) => seen += 1,
                    (true, Ok(_)) => unseen.push(spoil),
                }
            }
        }
        (seen, unseen)
    }

    /// Sizes up and down, each through every crash, with something written in between.
    pub fn crash_through(&mut self, seed: u64, sizes: &[u64]) -> Tried {
        let mut all = Tried::default();
        for (round, size) in (0..).zip(sizes) {
            self.draw(seed * 100 + round, 4);
            let tried = self.crash(*size, Preallocation::Off);
            let tried = tried.unwrap_or_else(|bad| panic!("seed {seed}, round {round}, to {size}: {bad:?}"));
            all.states += tried.states;
            all.failures += tried.failures;
            all.epochs += tried.epochs;
        }
        all
    }

    /// Resizes it with bytes of those places changed; answers how often that can be done. No answer is wrong, but one
    /// has to come.
    pub fn damaged(&self, seed: u64, rounds: u64, places: &[Range<u64>], most: u64) -> usize {
        let mut noise = Noise::new(seed);
        let mut done = 0;
        for _ in 0..rounds {
            let mut disk = self.clone();
            for _ in 0..=noise.below(3) {
                let place = &places[noise.below(places.len() as u64) as usize];
                let byte = noise.next() as u8 >> noise.below(8);
                disk.files.poke(TOP, place.start + noise.below(place.end - place.start), &[byte]);
            }
            if noise.below(4) == 0 {
                disk.files.cut(TOP, noise.below(disk.files.len(TOP)));
            }
            let size = (noise.below(most / 512) + 1) * 512;
            done += usize::from(disk.resize(size, Preallocation::Off).is_ok());
        }
        done
    }

    /// Random sizes and strokes without crashes, held against what the disk should hold.
    pub fn wander(&mut self, seed: u64, rounds: u64, most: u64) {
        let mut noise = Noise::new(seed);
        let mut model = self.content().expect("content");
        for round in 0..rounds {
            let size = (noise.below(most / 512) + 1) * 512;
            let size = self.resize(size, Preallocation::Off).unwrap_or_else(|e| panic!("seed {seed} {round}: {e:?}"));
            model.resize(size as usize, 0);
            let found = self.content().unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e:?}"));
            assert!(found == model, "seed {seed}, round {round}, to {size}");
            self.check(&self.files).unwrap_or_else(|why| panic!("seed {seed}, round {round}, to {size}: {why}"));
            model = self.draw(seed * 1000 + round, noise.below(5) as usize);
        }
    }
}

/// Random sizes up to a largest one.
pub fn sizes(seed: u64, count: usize, most: u64) -> Vec<u64> {
    let mut noise = Noise::new(seed);
    (0..count).map(|_| (noise.below(most / 512) + 1) * 512).collect()
}

/// What stands between a change and its files: it is given both.
pub type Between<'b> = &'b dyn Fn(&dyn Drive, &dyn Fn(&dyn Drive) -> Result<(), Error>) -> Result<(), Error>;
