//! Bitmaps on their way from one image to another.

use alloc::vec::Vec;
use instar_image::bitmap::Bitmap;
use instar_image::{Drive, Image, Kind, Result, Target};
use instar_wire::op::convert::{Bitmaps, Event};

/// The bitmaps of an image that are copied.
pub struct Marks<'i> {
    image: &'i dyn Image,
    /// Each with its number in the image.
    all: Vec<(usize, Bitmap)>,
}

impl<'i> Marks<'i> {
    /// Those that were asked for; what is wrong with others is told.
    pub fn of(image: &'i dyn Image, which: &Bitmaps, tell: &dyn Fn(Event) -> Result<()>) -> Result<Marks<'i>> {
        let lacks = || Kind::Unsupported.what("Source lacks bitmap support");
        let mut all = Vec::new();
        for (number, bitmap) in image.bitmaps().ok_or_else(lacks)?.into_iter().enumerate() {
            if !bitmap.is_broken {
                all.push((number, bitmap));
                continue;
            }
            tell(Event::Broken(bitmap.name.as_slice().into()))?;
            if *which == Bitmaps::All {
                let words = "Cannot copy inconsistent bitmap '{}'";
                return Err(Kind::Unsupported.what(words).arg(bitmap.name.as_slice()));
            }
        }
        Ok(Marks { image, all })
    }

    /// Adds them to another image.
    pub fn copy(&self, target: &mut dyn Target, drive: &dyn Drive) -> Result<()> {
        let new: Vec<Bitmap> = self.all.iter().map(|(_, bitmap)| bitmap.clone()).collect();
        if new.is_empty() {
            return Ok(());
        }
        target.add_bitmaps(drive, &new, &mut |number, at, bytes| match self.all.get(number) {
            Some((own, _)) => self.image.bits(*own, at, bytes),
            None => Ok(()),
        })
    }
}
