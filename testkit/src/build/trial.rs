//! A format put to the question: what it says of an image, and whether it survives a damaged one.

use super::mutate::storm;
use crate::mem::MemIo;
use instar_image::probe::Claim;
use instar_image::{File, Format, Options, Result, info};

/// Opens file 0 and describes it, with everything there is to tell.
pub fn describe(format: &dyn Format, io: &MemIo) -> Result<info::Image> {
    format.open(File::new(io, &io.top()), &Options::default())?.describe(true)
}

/// What the format says of the bytes; for a refusal, its phrase.
pub fn told(format: &dyn Format, bytes: Vec<u8>) -> core::result::Result<info::Image, String> {
    describe(format, &MemIo::new(bytes)).map_err(|error| String::from_utf8_lossy(&error.what.0).into_owned())
}

/// The phrase with which the format refuses the bytes.
pub fn refusal(format: &dyn Format, bytes: Vec<u8>) -> String {
    match told(format, bytes) {
        Ok(_) => "opened".into(),
        Err(phrase) => phrase,
    }
}

/// What the format claims of the bytes.
pub fn claim(format: &dyn Format, bytes: Vec<u8>) -> Result<Claim> {
    let io = MemIo::new(bytes);
    format.probe(&File::new(&io, &io.top()))
}

/// Shows the format every damage to the first `header` bytes; answers how many images it still opened.
pub fn survived(format: &dyn Format, image: &[u8], header: usize) -> usize {
    let mut opened = 0;
    storm(image, header, |bytes| {
        let io = MemIo::new(bytes);
        let _ = format.probe(&File::new(&io, &io.top()));
        opened += usize::from(describe(format, &io).is_ok());
    });
    opened
}
