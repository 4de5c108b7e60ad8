//! A format put to the question: what it says of an image, and whether it survives a damaged one.

use super::mutate::storm;
use crate::census::covered;
use crate::mem::MemIo;
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Options, Purpose, Result, Scope, info, tally};
use std::path::Path;

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

/// What a check of file 0 finds by itself, not as qemu-img: a sentence each.
pub fn findings(format: &dyn Format, io: &MemIo) -> Result<Vec<String>> {
    let options = Options { purpose: Purpose::Check, ..Options::default() };
    let image = format.open(File::new(io, &io.top()), &options)?;
    let mut found = Vec::new();
    let scope = Scope { as_qemu: false, version: 0 };
    for census in image.censuses(scope) {
        tally::check(&*census, scope, &mut |finding| {
            let phrase = String::from_utf8_lossy(&finding.what.what.0).into_owned();
            found.push(finding.what.args.iter().fold(phrase, |phrase, arg| phrase.replacen("{}", &word(arg), 1)));
            Ok(())
        })?;
    }
    Ok(found)
}

/// Asserts of an image that a real program made that nothing is wrong in it, and that all its bytes are claimed.
pub fn sound(format: &dyn Format, path: &Path) {
    let io = MemIo::new(std::fs::read(path).expect("an image"));
    assert_eq!(findings(format, &io).expect("a census"), Vec::<String>::new(), "{}", path.display());
    assert!(claimed(format, &io).expect("a map") > 0, "{} has no bytes of its own", path.display());
}

/// [`covered`] of file 0.
pub fn claimed(format: &dyn Format, io: &MemIo) -> Result<usize> {
    let options = Options { purpose: Purpose::Check, ..Options::default() };
    covered(&*format.open(File::new(io, &io.top()), &options)?, io)
}

fn word(fact: &Fact) -> String {
    match fact {
        Fact::Text(text) => String::from_utf8_lossy(&text.0).into_owned(),
        Fact::Count(count) => count.to_string(),
        other => format!("{other:?}"),
    }
}
