//! The first cluster: names and extensions of many lengths, whatever happens while they change.

use super::super::super::disk::{EXT_BACKING_FORMAT, EXT_FEATURE_NAMES};
use super::super::super::front::Front;
use super::super::super::layout::feature_names;
use super::super::super::open;
use super::*;
use alloc::vec;

/// What an image says of what lies below it: the name, and the format.
type Said = (Option<Vec<u8>>, Option<Vec<u8>>);

fn checked(files: &dyn Io, granted: &instar_image::Granted) -> Result<open::Checked> {
    open::open(&File::new(files, granted), &Options::default())
}

fn said(files: &MemFiles) -> Result<Said> {
    let checked = checked(files, &files.granted(TOP))?;
    Ok((checked.backing, checked.extensions.backing_format))
}

/// Says it, and looks at all that a crash may leave; false if there is no room for it.
fn says(start: &MemFiles, name: &[u8], format: &[u8], extra: Option<&[u8]>, about: &str) -> Option<MemFiles> {
    let granted = start.granted(TOP);
    let change = |drive: &dyn Drive| {
        let file = File::new(drive, &granted);
        let mut front = Front::read(&file, &checked(drive, &granted)?.layout)?;
        front.set_name(name);
        front.set(EXT_BACKING_FORMAT, Some(format).filter(|format| !format.is_empty()));
        front.set(0x1234_5678, extra);
        front.publish(drive)
    };
    let recorder = Recorder::new(start, Trouble::Never);
    let before = said(start).unwrap();
    let some = |bytes: &[u8]| Some(bytes.to_vec()).filter(|bytes| !bytes.is_empty());
    let after = (some(name), some(format));
    if let Err(error) = change(&recorder) {
        assert!(error.what.0.starts_with(b"the header has no room"), "{about}: {error:?}");
        assert_eq!(said(&recorder.end().0).unwrap(), before, "{about}");
        return None;
    }
    let (whole, ..) = recorder.end();
    assert_eq!(said(&whole).unwrap(), after, "{about}");
    // There is no moment for two long names in a short cluster: nobody can do that at once.
    let layout = checked(start, &granted).unwrap().layout;
    let names = before.0.as_ref().map_or(0, Vec::len) + name.len();
    if names > 0 && wide_of(names) + 1024 > layout.cluster_len && layout.cluster_len < 4096 {
        return Some(whole);
    }
    let swept = sweep(
        start,
        |drive| change(drive),
        |files, how| {
            let now = said(files).map_err(|error| format!("it does not open: {error:?}"))?;
            let is_known = now == after || !how.is_over() && now == before;
            if is_known { Ok(()) } else { Err(format!("{now:?} is neither {before:?} nor {after:?}")) }
        },
    );
    swept.unwrap_or_else(|bad| panic!("{about}: {bad:?}"));
    Some(whole)
}

fn wide_of(len: usize) -> u64 {
    len as u64
}

#[test]
fn names_and_extensions_survive_every_crash() {
    let scratch = Scratch::new("qcow2-front");
    let path = scratch.path();
    let lens = [0usize, 1, 7, 60, 200, 300, 399, 400, 450, 511, 512, 513, 700, 1000, 1022, 1023];
    let mut done = 0;
    for bits in 9..=21u32 {
        for compat in ["0.10", "1.1"] {
            let list = format!("compat={compat},cluster_size={}", 1u64 << bits);
            create(path, &format!("-f qcow2 -o {list} a.q 1M"));
            let mut files = MemFiles::load(path, &["a.q"]);
            let mut dice = Dice::new(u64::from(bits));
            for step in 0..24 {
                let name = vec![b'a' + step as u8; lens[dice.below(lens.len() as u64) as usize]];
                let format: &[u8] = if name.is_empty() || dice.below(3) == 0 { b"" } else { b"qcow2" };
                let extra = vec![b'x'; dice.below(120) as usize];
                let extra = Some(&extra[..]).filter(|extra| extra.len() > 40);
                let about = format!("{list}, step {step}: {} bytes, {extra:?}", name.len());
                if let Some(whole) = says(&files, &name, format, extra, &about) {
                    files = whole;
                    done += 1;
                }
            }
        }
    }
    assert!(done > 13 * 2 * 12, "{done}");
}

/// The longest name becomes another, and the names of features are there.
#[test]
fn the_longest_names_change() {
    let scratch = Scratch::new("qcow2-long");
    let path = scratch.path();
    for bits in 11..=21u32 {
        create(path, &format!("-f qcow2 -o cluster_size={} a.q 1M", 1u64 << bits));
        let start = MemFiles::load(path, &["a.q"]);
        let granted = start.granted(TOP);
        let recorder = Recorder::new(&start, Trouble::Never);
        let mut front = Front::read(&File::new(&start, &granted), &checked(&start, &granted).unwrap().layout).unwrap();
        front.set(EXT_FEATURE_NAMES, Some(&feature_names()));
        front.publish(&recorder).unwrap();
        let mut files = recorder.end().0;
        for (name, format) in [(b'x', "raw"), (b'y', "qcow2"), (b'z', "")] {
            let about = format!("2^{bits}: {}", char::from(name));
            files = says(&files, &[name; 1023], format.as_bytes(), None, &about).expect("room");
        }
        files.save(path);
        let told = maker().img().folder(path).args(["info", "-U", "--output=json", "a.q"]).must().out();
        assert!(told.contains(&"z".repeat(1023)), "{told}");
    }
}
