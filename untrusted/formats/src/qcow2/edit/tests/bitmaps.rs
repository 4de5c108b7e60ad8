//! Sets of bitmaps that are changed: the old set or the new one, bit for bit, and the guest's bytes as they were.

use super::*;
use alloc::vec;
use instar_image::bitmap::{Bitmap, Wanted, merge};
use instar_image::target::{Spot, What};

/// A bitmap with its bits.
type Mark = (Bitmap, Vec<u8>);

/// What an image holds, and its bitmaps.
#[derive(PartialEq, Debug)]
struct Marked {
    state: State,
    marks: Vec<Mark>,
}

fn marks(files: &MemFiles) -> Result<Vec<Mark>> {
    let image = opened(files, &files.granted(TOP), Purpose::Read)?;
    let size = image.describe(false)?.virtual_size;
    let all = image.bitmaps().unwrap_or_default().into_iter().enumerate();
    all.map(|(number, bitmap)| {
        let mut bits = vec![0; bitmap.len(size) as usize];
        image.bits(number, 0, &mut bits)?;
        Ok((bitmap, bits))
    })
    .collect()
}

fn marked(files: &MemFiles) -> Result<Marked> {
    Ok(Marked { state: state(files)?, marks: marks(files)? })
}

/// The set with which an image is left: each with the number of the one whose bits it keeps, or its bits.
fn set(start: &MemFiles, all: &[(Bitmap, core::result::Result<usize, Vec<u8>>)], about: &str) -> MemFiles {
    let wanted: Vec<Wanted> =
        all.iter().map(|(bitmap, bits)| Wanted { bitmap: bitmap.clone(), kept: bits.as_ref().ok().copied() }).collect();
    let change = |edit: &mut dyn Edit, drive: &dyn Drive| {
        edit.set_bitmaps(drive, &wanted, &mut |number, at, bytes| {
            let bits = all[number].1.as_ref().expect_err("those that are kept are not asked for");
            let have = bits.get(at as usize..).unwrap_or_default();
            bytes.fill(0);
            bytes.iter_mut().zip(have).for_each(|(to, from)| *to = *from);
            Ok(())
        })
    };
    let before = marks(start).unwrap();
    let whole = survives_as(&marked, start, &change, about);
    let want: Vec<Mark> = all
        .iter()
        .map(|(bitmap, bits)| match bits {
            Ok(number) => (bitmap.clone(), before[*number].1.clone()),
            Err(bits) => (bitmap.clone(), bits.clone()),
        })
        .collect();
    let now = marked(&whole).unwrap();
    assert!(now.state == state(start).unwrap(), "{about}: the guest's bytes");
    assert!(now.marks == want, "{about}: {:?} for {want:?}", now.marks);
    whole
}

fn bitmap(name: &str, granularity: u64) -> Bitmap {
    Bitmap { name: name.into(), granularity, is_enabled: true, is_broken: false }
}

#[test]
fn sets_of_bitmaps_survive_every_crash() {
    let scratch = Scratch::new("qcow2-bitmaps");
    let path = scratch.path();
    for (seed, list) in (1u64..).zip(KINDS).filter(|(_, list)| !list.contains("0.10")) {
        let size = cluster(list) * 40 + 512 * (seed % 3);
        furnished(path, "a.q", list, size, seed);
        maker().img().folder(path).args(["snapshot", "-c", "s", "a.q"]).must();
        let none = |bitmap: &Bitmap| (bitmap.clone(), Err(vec![0; bitmap.len(size) as usize]));
        let (x, y) = (bitmap("x", 512), bitmap("y", 4096));
        let step = |files: &MemFiles, name: &str| {
            files.save(path);
            clean(path, list);
            scribble(path, "qcow2", "a.q", size, seed + name.len() as u64, 2);
            MemFiles::load(path, &["a.q"])
        };
        let files = set(&MemFiles::load(path, &["a.q"]), &[none(&x), none(&y)], &format!("{list}, first"));
        let files = step(&files, "guest");
        let all = marks(&files).unwrap();
        assert!(all.iter().all(|(_, bits)| bits.iter().any(|byte| *byte != 0)), "{list}: the guest has been recorded");
        // The finer one into the coarser, and one that records no more.
        let mut merged = all[1].1.clone();
        let read = |at: u64, bytes: &mut [u8]| {
            bytes.copy_from_slice(&all[0].1[at as usize..][..bytes.len()]);
            Ok(())
        };
        merge(size, y.granularity, 0, &mut merged, x.granularity, &read).unwrap();
        let idle = Bitmap { is_enabled: false, ..y.clone() };
        let files = set(&files, &[(x.clone(), Ok(0)), (idle.clone(), Err(merged))], &format!("{list}, merged"));
        let files = step(&files, "a guest");
        let files = set(&files, &[(x.clone(), Ok(0)), (y.clone(), Ok(1))], &format!("{list}, enabled"));
        // All bits set are told in one word.
        let full = Bitmap { granularity: 1 << 16, ..bitmap("a longer name", 0) };
        let ones = size.div_ceil(full.granularity);
        let ones: Vec<u8> = (0..ones.div_ceil(8))
            .map(|byte| (0..8).filter(|bit| byte * 8 + bit < ones).fold(0, |b, bit| b | 1 << bit))
            .collect();
        let files = set(&files, &[none(&x), (y.clone(), Ok(1)), (full, Err(ones))], &format!("{list}, cleared"));
        let files = set(&step(&files, "guests"), &[(y.clone(), Ok(1))], &format!("{list}, fewer"));
        let files = set(&step(&files, "more guests"), &[], &format!("{list}, none"));
        files.save(path);
        clean(path, list);
        // What is given back is what was taken.
        assert_eq!(wrongs(&files).unwrap(), (Vec::new(), 0), "{list}");
    }
}

#[test]
fn limits_are_those_of_qemu_img() {
    let scratch = Scratch::new("qcow2-bitmap-limits");
    let path = scratch.path();
    let refused = |list: &str, size: &str, all: &[Bitmap], new: &Bitmap| {
        create(path, &format!("-f qcow2 -o {list} a.q {size}"));
        let files = MemFiles::load(path, &["a.q"]);
        let image = opened(&files, &files.granted(TOP), Purpose::Read).unwrap();
        let words = image.may_add_bitmap(all, new).map_err(|error| String::from_utf8_lossy(&error.what.0).into_owned());
        words.err().map_or(String::new(), |words| words.rsplit(": ").next().unwrap_or_default().into())
    };
    let v3 = "compat=1.1";
    let long = |len: usize| bitmap(&"n".repeat(len), 65536);
    assert_eq!(refused(v3, "1M", &[], &long(1023)), "");
    assert_eq!(refused(v3, "1M", &[], &long(1024)), "Name length exceeds maximum (1023 characters)");
    assert_eq!(refused("compat=0.10", "1M", &[], &long(3)), "Cannot store dirty bitmaps in qcow2 v2 files");
    let space = "Too much space will be occupied by the bitmap. Use larger granularity";
    assert_eq!(refused(v3, "100T", &[], &bitmap("x", 512)), space);
    assert_eq!(refused(v3, "100T", &[], &bitmap("x", 32768)), "");
    let many: Vec<Bitmap> = (0..65535).map(|number: u32| bitmap(&number.to_string(), 65536)).collect();
    assert_eq!(refused(v3, "1M", &many, &long(3)), "Maximum number of persistent bitmaps is already reached");
    assert_eq!(refused(v3, "1M", &many[1..], &long(3)), "");
    let wide: Vec<Bitmap> = (0..8201).map(|number: u32| bitmap(&format!("{number:01023}"), 65536)).collect();
    assert_eq!(refused(v3, "1M", &wide, &long(3)), "the names of all bitmaps together are too long");
}

#[test]
fn bitmaps_that_are_added_while_others_record_are_there_with_what_was_recorded() {
    let scratch = Scratch::new("qcow2-bitmaps-added");
    let path = scratch.path();
    let kinds = KINDS.iter().filter(|list| !list.contains("0.10")).flat_map(|list| [(list, true), (list, false)]);
    for (seed, (list, writes)) in (1u64..).zip(kinds) {
        let unit = cluster(list);
        let size = unit * 40;
        furnished(path, "a.q", list, size, seed);
        maker().img().folder(path).args(["bitmap", "--add", "-g", "512", "a.q", "old"]).must();
        let start = MemFiles::load(path, &["a.q"]);
        let granted = start.granted(TOP);
        let new = bitmap("new", 1024);
        let bits: Vec<u8> = (0..new.len(size)).map(|n| n as u8).collect();
        let write = |drive: &dyn Drive| {
            let image = opened(drive, &granted, Purpose::Write)?;
            let mut target = image.target()?;
            target.keep_order();
            if writes {
                target.mark(drive, 0, 512)?;
            }
            if let Some(Spot { place, .. }) = if writes { target.reserve(drive, 0, 512, What::Data)? } else { None } {
                drive.write(place, &[7; 512])?;
            }
            target.add_bitmaps(drive, core::slice::from_ref(&new), &mut |_, at, bytes| {
                let have = bits.get(at as usize..).unwrap_or_default();
                bytes.iter_mut().zip(have).for_each(|(to, from)| *to = *from);
                Ok(())
            })?;
            target.seal(drive)
        };
        let tried = sweep(&start, write, |files, how| {
            let all = marks(files).map_err(|error| format!("it does not open: {error:?}"))?;
            let (wrongs, _) = wrongs(files).map_err(|error| format!("it cannot be checked: {error:?}"))?;
            if !wrongs.is_empty() {
                return Err(format!("{wrongs:?}"));
            }
            let is_first = |mark: &Mark| !writes || mark.0.is_broken || mark.1[0] & 1 == 1;
            match &all[..] {
                [old] if !how.is_over() => {
                    // Nothing has been written that it has not recorded, or it says so itself.
                    let first = |files: &MemFiles| state(files).map(|state| state.0[0].1[..512].to_vec());
                    let is_old = first(files) == first(&start);
                    if is_old || is_first(old) { Ok(()) } else { Err("what was written is not recorded".into()) }
                }
                [old, added] if is_first(old) && !old.0.is_broken && *added == (new.clone(), bits.clone()) => Ok(()),
                _ => Err(format!("{:?}", all.iter().map(|mark| &mark.0).collect::<Vec<_>>())),
            }
        });
        let tried = tried.unwrap_or_else(|bad| panic!("{list}: {bad:?}"));
        assert!(tried.states > 2, "{list}: {tried:?}");
    }
}

#[test]
fn bitmaps_that_may_be_wrong_go_with_the_first_change() {
    let scratch = Scratch::new("qcow2-bitmaps-stale");
    let path = scratch.path();
    let img = |words: &str| maker().img().folder(path).args(words.split(' ')).must();
    // A program that does not know them either clears the bit or, with the version of the format, all bits.
    for (list, clears) in [("compat=1.1", true), ("compat=1.1,cluster_size=512", true), ("compat=1.1", false)] {
        furnished(path, "a.q", list, cluster(list) * 40, 1);
        img("bitmap --add -g 512 a.q x");
        if !clears {
            img("amend -f qcow2 -o compat=0.10 a.q");
        }
        let mut files = MemFiles::load(path, &["a.q"]);
        if clears {
            files.poke(TOP, 88, &[0; 8]);
        }
        let is_stale = |files: &MemFiles| {
            let image = opened(files, &files.granted(TOP), Purpose::Read).unwrap();
            !image.describe(true).unwrap().warnings.is_empty()
        };
        assert!(is_stale(&files), "{list}");
        let after = survives(&files, &|edit, drive| edit.take_snapshot(drive, &snapshot("new")), list);
        assert!(!is_stale(&after), "{list}");
        assert!(marks(&after).unwrap().is_empty(), "{list}");
    }
}
