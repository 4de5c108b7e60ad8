//! `bitmap`: the bitmaps inside an image are added, removed, emptied, merged, and told whether to record.

use crate::cx::Cx;
use crate::open::{Opened, alone};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::bitmap::{Bitmap, Wanted, broken, merge};
use instar_image::{Drive, Edit, Error, Image, Kind, Purpose, Result};
use instar_wire::code::encode;
use instar_wire::op::bitmap::{Action, Event, Request};

/// Bytes of the disk that one bit can stand for: powers of two among these.
const GRANULARITY: core::ops::RangeInclusive<u64> = 512..=2 << 30;
/// Of those, what may be taken from the length of the image's clusters.
const SUITABLE: (u64, u64) = (4096, 65536);

/// Does what is asked of the top layer; what could be done before something is refused stays done.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let step = |step| tell(Event::Step(step));
    let top = alone(cx, &request.source, &request.rules, Purpose::Write, &step)?;
    // An image that must not be changed is refused as one that cannot be opened.
    let edit = top.image.bitmaps().is_some().then(|| top.image.edit()).transpose()?;
    let from = request.from.as_ref().map(|from| alone(cx, from, &request.rules, Purpose::Read, &step)).transpose()?;
    tell(Event::Ready)?;
    let mut desk = Desk::of(&top, from.as_ref(), &request.name.0);
    let mut acts = (0u64..).zip(&request.actions).map(|(number, action)| (number, desk.act(action)));
    let refused = acts.find_map(|(number, done)| Some((number, done.err()?)));
    let is_lost = desk.top.size == 0 && !desk.all.is_empty();
    match edit {
        _ if is_lost => tell(Event::Lost)?,
        Some(edit) if desk.is_changed() => desk.keep(edit, cx.drive)?,
        _ => {}
    }
    match refused {
        Some((number, error)) => {
            tell(Event::Refused(number))?;
            Err(Error { file: error.file.or(Some(top.granted.id)), ..error })
        }
        None if is_lost => Err(Kind::Unsupported.what("a disk of no bytes can have no bitmaps")),
        None => Ok(()),
    }
}

/// An image with bitmaps.
struct Holder<'d> {
    image: &'d dyn Image,
    size: u64,
    bitmaps: Vec<Bitmap>,
}

impl<'d> Holder<'d> {
    fn of(opened: &'d Opened<'_>) -> Holder<'d> {
        let bitmaps = opened.image.bitmaps().unwrap_or_default();
        Holder { image: &*opened.image, size: opened.told.virtual_size, bitmaps }
    }
}

/// The bits of a bitmap as they stand in an image.
#[derive(Clone)]
struct Part {
    /// It is the other image.
    is_other: bool,
    number: usize,
    granularity: u64,
}

/// A bitmap as it is to be.
struct Sheet {
    wanted: Wanted,
    /// If it keeps no bits as they stand there: all whose bits it has.
    parts: Vec<Part>,
}

/// All bitmaps as they are to be.
struct Desk<'d> {
    top: Holder<'d>,
    from: Option<Holder<'d>>,
    /// The bitmap that it is about.
    name: &'d [u8],
    /// What its granularity is if nobody says.
    granularity: u64,
    all: Vec<Sheet>,
}

impl<'d> Desk<'d> {
    fn of(top: &'d Opened<'_>, from: Option<&'d Opened<'_>>, name: &'d [u8]) -> Desk<'d> {
        let (least, most) = SUITABLE;
        let granularity = top.told.cluster_size.unwrap_or(most).clamp(least, most);
        let top = Holder::of(top);
        let sheet = |(number, bitmap): (usize, &Bitmap)| Sheet {
            wanted: Wanted { bitmap: bitmap.clone(), kept: Some(number) },
            parts: Vec::new(),
        };
        let all = top.bitmaps.iter().enumerate().map(sheet).collect();
        Desk { top, from: from.map(Holder::of), name, granularity, all }
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Add(granularity) => self.add(*granularity),
            Action::Remove => {
                let (number, _) = self.find()?;
                self.all.remove(number);
                Ok(())
            }
            Action::RemoveAll => {
                self.all.clear();
                Ok(())
            }
            Action::Clear => {
                let sheet = self.sound()?;
                sheet.wanted.kept = None;
                sheet.parts.clear();
                Ok(())
            }
            Action::Enable => self.sound().map(|sheet| sheet.wanted.bitmap.is_enabled = true),
            Action::Disable => self.sound().map(|sheet| sheet.wanted.bitmap.is_enabled = false),
            Action::Merge(name) => self.merge(&name.0),
        }
    }

    /// The bitmap that it is about, and its number.
    fn find(&mut self) -> Result<(usize, &mut Sheet)> {
        let missing = missing(self.name);
        let mut all = self.all.iter_mut().enumerate();
        all.find(|(_, sheet)| sheet.wanted.bitmap.name == self.name).ok_or(missing)
    }

    /// The same, which must not be broken.
    fn sound(&mut self) -> Result<&mut Sheet> {
        let (_, sheet) = self.find()?;
        refuse_broken(&sheet.wanted.bitmap)?;
        Ok(sheet)
    }

    fn add(&mut self, granularity: u64) -> Result<()> {
        if self.name.is_empty() {
            return Err(Kind::Unsupported.what("Bitmap name cannot be empty"));
        }
        let granularity = if granularity == 0 { self.granularity } else { granularity };
        if !granularity.is_power_of_two() || !GRANULARITY.contains(&granularity) {
            return Err(Kind::Unsupported.what("Granularity must be power of 2 and at least 512"));
        }
        let bitmap = Bitmap { name: self.name.to_vec(), granularity, is_enabled: true, is_broken: false };
        let known: Vec<Bitmap> = self.all.iter().map(|sheet| sheet.wanted.bitmap.clone()).collect();
        self.top.image.may_add_bitmap(&known, &bitmap)?;
        self.all.push(Sheet { wanted: Wanted { bitmap, kept: None }, parts: Vec::new() });
        Ok(())
    }

    /// It gets the bits of another one as well.
    fn merge(&mut self, name: &[u8]) -> Result<()> {
        let (own, size) = (self.find()?.0, self.top.size);
        let found = match &self.from {
            Some(from) => {
                let number = from.bitmaps.iter().position(|bitmap| bitmap.name == name);
                number.and_then(|number| Some((from.bitmaps.get(number)?.clone(), Some(number), from.size)))
            }
            None => {
                let sheet = self.all.iter().find(|sheet| sheet.wanted.bitmap.name == name);
                sheet.map(|sheet| (sheet.wanted.bitmap.clone(), sheet.wanted.kept, size))
            }
        };
        let (bitmap, number, other) = found.ok_or_else(|| missing(name))?;
        refuse_broken(&self.sound()?.wanted.bitmap)?;
        refuse_broken(&bitmap)?;
        if other != size {
            let words =
                "Bitmaps are of different sizes (destination size is {}, source size is {}) and can't be merged";
            return Err(Kind::Unsupported.what(words).arg(size).arg(other));
        }
        let is_other = self.from.is_some();
        let (Some(sheet), false) = (self.all.get_mut(own), !is_other && name == self.name) else { return Ok(()) };
        if let Some(number) = sheet.wanted.kept.take() {
            sheet.parts.push(Part { is_other: false, number, granularity: sheet.wanted.bitmap.granularity });
        }
        let Some(number) = number else { return Ok(()) };
        let is_new = sheet.parts.iter().all(|part| part.is_other != is_other || part.number != number);
        if is_new {
            sheet.parts.push(Part { is_other, number, granularity: bitmap.granularity });
        }
        Ok(())
    }

    /// Whether anything is to be other than it is.
    fn is_changed(&self) -> bool {
        let is_same = |(number, (sheet, old)): (usize, (&Sheet, &Bitmap))| {
            sheet.wanted.kept == Some(number) && sheet.wanted.bitmap == *old
        };
        self.all.len() != self.top.bitmaps.len() || !self.all.iter().zip(&self.top.bitmaps).enumerate().all(is_same)
    }

    /// Has the image have them.
    fn keep(&self, mut edit: Box<dyn Edit + '_>, drive: &dyn Drive) -> Result<()> {
        let wanted: Vec<Wanted> = self.all.iter().map(|sheet| sheet.wanted.clone()).collect();
        edit.set_bitmaps(drive, &wanted, &mut |number, at, bytes| self.read(number, at, bytes))
    }

    /// The bits of a bitmap that keeps none as they are.
    fn read(&self, number: usize, at: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        let Some(Sheet { wanted, parts }) = self.all.get(number) else { return Ok(()) };
        for part in parts {
            let holder = if part.is_other { self.from.as_ref() } else { Some(&self.top) };
            let Some(Holder { image, size, .. }) = holder else { continue };
            let read = |at: u64, bytes: &mut [u8]| image.bits(part.number, at, bytes);
            merge(*size, wanted.bitmap.granularity, at, bytes, part.granularity, &read)?;
        }
        Ok(())
    }
}

fn missing(name: &[u8]) -> Error {
    Kind::Unsupported.what("Dirty bitmap '{}' not found").arg(name)
}

/// Of bits that mean nothing, nothing can be made but nothing.
fn refuse_broken(bitmap: &Bitmap) -> Result<()> {
    if bitmap.is_broken { Err(broken(&bitmap.name)) } else { Ok(()) }
}
