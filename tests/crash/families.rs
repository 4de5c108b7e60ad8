//! Disks that only stand on disks of their own format: what they stand on is known by an identifier, and named in several
//! places.

use super::chains::{BELOW, sink, stand, sunk};
use super::{TOP, is_whole, look, sound};
use instar_formats::by_name;
use instar_image::{File, Format, Options};
use instar_testkit::crash::{How, MemFiles, Recorder, Trouble, sweep};
use instar_testkit::folder::Folder;
use instar_testkit::images::each;
use instar_testkit::made::options;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::resized::Stack;
use instar_testkit::workshop::Order;
use instar_tests::report::Report;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Format, options of a disk and those of one that stands on another, and the size of all.
const FAMILIES: &[(&str, &str, &str, u64)] = &[
    ("vmdk", "", "", 500_224),
    ("vmdk", "subformat=twoGbMaxExtentSparse", "zeroed_grain=on", 500_224),
    ("vmdk", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", 500_224),
    ("vpc", "block_size=64k", "block_size=64k,force_size=on", 1_044_480),
    ("vpc", "subformat=fixed", "block_size=4096,force_size=on", 1_044_480),
    ("vhdx", "block_size=1M", "block_size=1M", 3 << 20),
];
/// What an image is to stand on has a name that fits where the old one was, or one that does not.
const NAMES: &[&str] = &[
    "new",
    "an image of which one could say a lot more than this name does, which is long enough to need more than one sector of a \
     descriptor, or of whatever it is that a disk has for the name of its parent, as new as it is",
];

/// A disk on another one, and a third one of the same format; what each holds.
fn furnished(family: usize, name: &str, seed: u64, is_alone: bool) -> MemFiles {
    let (format, plain, over, size) = FAMILIES[family];
    let format: &'static dyn Format = by_name(format.as_bytes()).expect("a format");
    let (scratch, kinds) = (Scratch::new("crash families"), [format, format]);
    let folder = Folder::new(scratch.path());
    let list = |name: &str| -> Vec<String> {
        let all = std::fs::read_dir(scratch.path()).expect("a folder");
        let names = all.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let mut parts: Vec<String> = names.filter(|other| other.starts_with(&format!("{name}-"))).collect();
        parts.sort();
        [name.to_owned()].into_iter().chain(parts).collect()
    };
    let load = |names: &[String]| MemFiles::load(scratch.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    for (number, name) in (0..).zip(["below", name]) {
        Order { options: options(plain), ..Order::plain(format, size) }.create(&folder, name).expect("a disk");
        let mut stack = Stack::new(load(&list(name)), &kinds[..1]);
        stack.draw(seed + number, 6);
        stack.files.save(scratch.path());
    }
    let granted = folder.open(b"below").expect("a disk");
    let told = format.open(File::new(&folder, &granted), &Options::default()).and_then(|image| image.describe(true));
    let mut asked = options(over);
    asked.add("backing_file", "below");
    let order = Order { options: asked, below: Some(told.expect("a disk")), ..Order::plain(format, size) };
    order.create(&folder, "top").expect("a disk");
    let [mut top, below, new] = ["top", "below", name].map(list);
    let (head, parts) = (top.remove(0), top);
    let names: Vec<String> = [head, below[0].clone(), new[0].clone()]
        .into_iter()
        .chain(parts)
        .chain(below[1..].to_vec())
        .chain(new[1..].to_vec())
        .collect();
    let mut stack = Stack::new(load(&names), &kinds);
    stack.draw(seed + 7, 6);
    if is_alone {
        // The one that stands on none is the image.
        stack.files.save(scratch.path());
        let mut names = names;
        names.swap(0, 1);
        return load(&names);
    }
    stack.files
}

#[test]
fn disks_read_the_same_whatever_happens_while_they_get_another_parent() {
    let report = Report::new("crash families rebase");
    let jobs: Vec<(usize, usize, Option<usize>, bool)> = (0..FAMILIES.len())
        .flat_map(|family| {
            let plain = FAMILIES[family].1;
            let can_stand = FAMILIES[family].0 != "vpc" && !plain.contains("Flat");
            let all = [(family, 1, None, false), (family, 0, Some(0), false), (family, 1, Some(1), false)];
            all.into_iter().chain(can_stand.then_some((family, 1, Some(1), true)))
        })
        .collect();
    each(&jobs, |_, (family, name, new, is_alone)| {
        let seed = (*family * 10 + *name) as u64;
        let (format, name) = (FAMILIES[*family].0, NAMES[*name]);
        let start = furnished(*family, name, seed, *is_alone);
        let before = look(&start, TOP, format).expect("an image").0;
        let judge = |files: &MemFiles, how: &How| match sound(files, TOP, format, how)? == before {
            true => Ok(()),
            false => Err("the guest reads something else".to_owned()),
        };
        let new = new.map(|_| (format, name));
        let tried = sweep(&start, |drive| stand(drive, &start, format, new, false, true), judge);
        report.tried();
        match tried {
            Ok(_) => {}
            Err(bad) => report.fault(format!("{:?} to {new:?}: {bad:?}", FAMILIES[*family])),
        }
    });
    report.end();
}

#[test]
fn what_disks_have_goes_below_whatever_happens() {
    let report = Report::new("crash families commit");
    let jobs: Vec<usize> = (0..FAMILIES.len()).collect();
    each(&jobs, |_, family| {
        let format = FAMILIES[*family].0;
        let start = furnished(*family, NAMES[0], 50 + *family as u64, false);
        let before = look(&start, TOP, format).expect("an image").0;
        let was = look(&start, BELOW, format).expect("an image").0;
        let judge = |files: &MemFiles, how: &How| sunk(files, how, (format, format), &before, &was);
        let tried = sweep(&start, |drive| sink(drive, &start, format, format, true), judge);
        report.tried();
        if let Err(bad) = tried {
            report.fault(format!("{:?}: {bad:?}", FAMILIES[*family]));
        }
    });
    report.end();
}

/// Nothing is brought into the disk first: every sector is as it was, or as it is without what was below.
#[test]
fn disks_lose_their_parents_sector_by_sector() {
    let report = Report::new("crash families unsafe");
    let jobs: Vec<usize> = (0..FAMILIES.len()).collect();
    each(&jobs, |_, family| {
        let format = FAMILIES[*family].0;
        let start = furnished(*family, NAMES[0], 60 + *family as u64, false);
        let before = look(&start, TOP, format).expect("an image").0;
        let recorder = Recorder::new(&start, Trouble::Never);
        stand(&recorder, &start, format, None, false, false).expect("it stands on nothing");
        let after = look(&recorder.files(), TOP, format).expect("an image").0;
        let judge = |files: &MemFiles, how: &How| {
            let now = sound(files, TOP, format, how)?;
            let sectors = |bytes: &[u8]| bytes.chunks(512).map(<[u8]>::to_vec).collect::<Vec<_>>();
            let (before, after, now) = (sectors(&before), sectors(&after), sectors(&now));
            let is_right = |n: usize| now[n] == after[n] || !is_whole(how) && now[n] == before[n];
            match (0..before.len()).find(|n| !is_right(*n)) {
                None if now.len() == before.len() => Ok(()),
                at => Err(format!("sector {at:?} is neither what it was nor what it is to be")),
            }
        };
        let tried = sweep(&start, |drive| stand(drive, &start, format, None, false, false), judge);
        report.tried();
        match tried {
            Err(bad) => report.fault(format!("{:?}: {bad:?}", FAMILIES[*family])),
            Ok(_) if before == after => report.fault(format!("{:?}: nothing was below", FAMILIES[*family])),
            Ok(_) => {}
        }
    });
    report.end();
}

/// Where something that counts stands in files of a format.
const PLACES: &[(&str, &[std::ops::Range<u64>])] = &[
    ("vmdk", &[0..80, 512..1024, 21 * 512..21 * 512 + 64, 26 * 512..26 * 512 + 64]),
    ("vpc", &[0..96, 512..1536, 1536..1600, 2048..2560]),
    ("vhdx", &[0x1_0000..0x1_0060, 0x3_0000..0x3_0050, 3 << 20..(3 << 20) + 256, 2 << 20..(2 << 20) + 64]),
];

/// Whatever a damaged disk says, there is an answer, and no file becomes longer than there is a reason for.
#[test]
fn damaged_disks_are_changed_or_refused() {
    let jobs: Vec<usize> = (0..FAMILIES.len()).collect();
    let (done, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    each(&jobs, |_, family| {
        let format = FAMILIES[*family].0;
        let start = furnished(*family, NAMES[0], 90 + *family as u64, false);
        let places = PLACES.iter().find(|(name, _)| *name == format).expect("a format").1;
        let mut dice = Dice::new(*family as u64);
        for round in 0..120 {
            let mut files = start.clone();
            for _ in 0..=dice.below(3) {
                let place = &places[dice.below(places.len() as u64) as usize];
                let at = place.start + dice.below(place.end - place.start);
                if at < files.granted(TOP).len {
                    files.poke(TOP, at, &[dice.below(256) as u8 >> dice.below(8)]);
                }
            }
            let recorder = Recorder::new(&files, Trouble::Never);
            let ended = match round % 4 {
                0 => stand(&recorder, &files, format, Some((format, NAMES[0])), false, false),
                1 => stand(&recorder, &files, format, None, false, false),
                2 => stand(&recorder, &files, format, Some((format, NAMES[0])), false, true),
                _ => sink(&recorder, &files, format, format, true),
            };
            if ended.is_ok() { &done } else { &refused }.fetch_add(1, Ordering::Relaxed);
            let grown = recorder.files().granted(TOP).len.saturating_sub(files.granted(TOP).len);
            assert!(grown < 64 << 20, "{format}, round {round}: {grown} bytes more");
        }
    });
    assert!(done.into_inner() > 100 && refused.into_inner() > 20);
}
