//! Images made by us and by qemu-img from the same words: the same bytes, or the same refusal.

use crate::folder::Folder;
use crate::oracle::Oracle;
use crate::workshop::Order;
use instar_image::{Error, Fact, Format};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are compared at the front of a file, and at its end.
const FRONT: u64 = 5 << 20;
const END: u64 = 64 << 10;

/// Options whose value is a text even if it looks like something else.
const TEXTS: [&str; 2] = ["hwversion", "toolsversion"];

/// Options as the command line makes them of `name=value,…`: numbers, truths and texts.
pub fn options(words: &str) -> Fact {
    let mut told = Fact::fields([]);
    for (name, value) in words.split(',').filter_map(|word| word.split_once('=')) {
        let digits = value.trim_end_matches(['k', 'M', 'G', 'T']);
        let shift = value.chars().last().and_then(|unit| "kMGT".find(unit)).map_or(0, |index| 10 * (index + 1));
        match (value, digits.parse::<u64>()) {
            _ if TEXTS.contains(&name) => told.add(name, value.as_bytes()),
            ("on", _) => told.add(name, true),
            ("off", _) if name != "preallocation" => told.add(name, false),
            (_, Ok(number)) => told.add(name, number << shift),
            _ => told.add(name, value.as_bytes()),
        }
    }
    told
}

/// What an error says, without the sentence around it.
pub fn said(error: &Error) -> String {
    let mut words = String::from_utf8_lossy(&error.what.0).into_owned();
    for arg in &error.args {
        let arg = match arg {
            Fact::Count(number) => number.to_string(),
            Fact::Signed(number) => number.to_string(),
            Fact::Text(text) => String::from_utf8_lossy(&text.0).into_owned(),
            other => format!("{other:?}"),
        };
        words = words.replacen("{}", &arg, 1);
    }
    words
}

/// Makes `theirs` and `ours`, and asserts that they are the same but for `masked` bytes, those before zero counted from
/// the end, or that both refuse in the same words. Answers whether there is an image.
pub fn alike(
    oracle: &Oracle,
    folder: &Path,
    format: &dyn Format,
    words: &str,
    size: u64,
    masked: &[Range<i64>],
) -> bool {
    let title = format!("{} {words} {size}, {}", format.name(), oracle.version);
    let mut line = vec!["create".into(), "-q".into(), "-f".into(), format.name().to_string()];
    if !words.is_empty() {
        line.extend(["-o".into(), words.to_string()]);
    }
    line.extend(["theirs".into(), size.to_string()]);
    let ran = oracle.img().folder(folder).args(line).go();
    let io = Folder::new(folder);
    let made = Order { options: options(words), ..Order::plain(format, size) }.create(&io, "ours");
    if ran.code() != Some(0) {
        let error = made.err().unwrap_or_else(|| panic!("{title}: they say {}", ran.err()));
        let theirs = ran.err();
        let theirs = theirs.trim_end().strip_prefix("qemu-img: theirs: ").unwrap_or(theirs.trim_end());
        assert_eq!(said(&error), theirs, "{title}");
        return false;
    }
    made.unwrap_or_else(|error| panic!("{title}: {}", said(&error)));
    let (ours, theirs) = (file(folder, "ours"), file(folder, "theirs"));
    let len = theirs.metadata().expect("a file").len();
    assert_eq!(ours.metadata().expect("a file").len(), len, "{title}: length");
    for range in [0..len.min(FRONT), len.saturating_sub(END)..len] {
        let part = |file: &File| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start).expect("bytes");
            for mask in masked {
                let end = if mask.start < 0 { len as i64 } else { 0 };
                for at in mask.start + end..mask.end + end {
                    let at = at - range.start as i64;
                    bytes.get_mut(at as usize).into_iter().for_each(|byte| *byte = 0);
                }
            }
            bytes
        };
        let (ours, theirs) = (part(&ours), part(&theirs));
        if ours != theirs {
            let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
            panic!("{title}: {differs:?} is the first byte that differs, from {} on", range.start);
        }
    }
    true
}

fn file(folder: &Path, name: &str) -> File {
    File::open(folder.join(name)).expect("a file")
}
