//! The bitmaps inside an image.

use instar_formats::qcow2::Qcow2;
use instar_image::bitmap::Bitmap;
use instar_image::{File, Format, Options, Purpose};
use instar_testkit::folder::Folder;
use std::path::Path;

/// The bitmaps of an image, with their bits.
pub fn marks(path: &Path) -> Vec<(Bitmap, Vec<u8>)> {
    let io = Folder::new(path.parent().expect("a folder"));
    let granted = io.open(path.file_name().expect("a name").as_encoded_bytes()).expect("an image");
    let options = Options { purpose: Purpose::Describe, ..Options::default() };
    let Ok(image) = Qcow2.open(File::new(&io, &granted), &options) else { return Vec::new() };
    let size = image.describe(false).expect("what it says").virtual_size;
    let all = image.bitmaps().unwrap_or_default().into_iter().enumerate();
    all.map(|(number, bitmap)| {
        // The bits of a broken one say nothing.
        let mut bits = vec![0; if bitmap.is_broken { 0 } else { bitmap.len(size).min(1 << 20) as usize }];
        image.bits(number, 0, &mut bits).expect("its bits");
        (bitmap, bits)
    })
    .collect()
}
