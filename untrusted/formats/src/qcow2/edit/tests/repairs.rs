//! Damaged images that are repaired: what they hold, whatever happens meanwhile, and that nothing is wrong with them then.

use super::*;
use instar_image::{Order, Repair, Summary};

/// A way to damage an image.
type Damage = fn(&mut MemFiles, &mut Dice);

fn word(files: &MemFiles, at: u64) -> u64 {
    let bytes = files.bytes(TOP);
    let at = usize::try_from(at).unwrap();
    bytes.get(at..at + 8).map_or(0, |word| u64::from_be_bytes(word.try_into().unwrap()))
}

fn place(word: u64) -> u64 {
    word & 0x00ff_ffff_ffff_fe00
}

/// Where the entries stand that say something, of all L2 tables.
fn entries(files: &MemFiles) -> Vec<u64> {
    let header = files.bytes(TOP);
    let len = 1u64 << header[23];
    let step = if header[79] & 16 != 0 { 16 } else { 8 };
    let l1 = word(files, 40);
    let count = u64::from(u32::from_be_bytes(header[36..40].try_into().unwrap()));
    let tables = (0..count).map(|index| place(word(files, l1 + 8 * index))).filter(|at| *at != 0);
    let all = tables.flat_map(|at| (0..len / step).map(move |index| at + step * index));
    all.filter(|at| word(files, *at) != 0).collect()
}

fn one(files: &MemFiles, dice: &mut Dice) -> u64 {
    let all = entries(files);
    all[usize::try_from(dice.below(all.len() as u64)).unwrap()]
}

/// Counts that are too high or too low, or none where one is needed.
fn counts(files: &mut MemFiles, dice: &mut Dice) {
    let block = place(word(files, word(files, 48)));
    if block == 0 {
        return;
    }
    for _ in 0..4 {
        let at = block + dice.below(64);
        let byte = u8::try_from(dice.below(4)).unwrap();
        files.poke(TOP, at, &[byte]);
    }
}

/// Counts that are too high.
fn leaks(files: &mut MemFiles, dice: &mut Dice) {
    let block = place(word(files, word(files, 48)));
    if block == 0 {
        return;
    }
    for _ in 0..3 {
        let at = block + dice.below(64);
        let bytes = files.bytes(TOP);
        files.poke(TOP, at, &[bytes[usize::try_from(at).unwrap()] | 0x40]);
    }
}

/// Flags that are not true.
fn flags(files: &mut MemFiles, dice: &mut Dice) {
    for at in [one(files, dice), one(files, dice), word(files, 40)] {
        // What is packed has no such flag.
        let is_packed = at != word(files, 40) && word(files, at) & 1 << 62 != 0;
        let flipped = word(files, at) ^ if is_packed { 0 } else { 1 << 63 };
        files.poke(TOP, at, &flipped.to_be_bytes());
    }
}

/// Two parts of the disk in one cluster.
fn shared(files: &mut MemFiles, dice: &mut Dice) {
    let (from, to) = (one(files, dice), one(files, dice));
    let same = word(files, from);
    if (same | word(files, to)) & 1 << 62 == 0 {
        files.poke(TOP, to, &same.to_be_bytes());
    }
}

/// No block of counts.
fn no_block(files: &mut MemFiles, _: &mut Dice) {
    files.poke(TOP, word(files, 48), &[0; 8]);
}

/// A block of counts that is two.
fn twice(files: &mut MemFiles, _: &mut Dice) {
    let table = word(files, 48);
    let first = word(files, table);
    files.poke(TOP, table + 8, &first.to_be_bytes());
}

/// No table of blocks.
fn no_table(files: &mut MemFiles, _: &mut Dice) {
    files.poke(TOP, 56, &[0; 4]);
}

/// A table of snapshots that does not say how large the disk was.
fn incomplete(files: &mut MemFiles, _: &mut Dice) {
    let at = word(files, 64);
    let from = usize::try_from(at).unwrap();
    let bytes = files.bytes(TOP);
    if bytes[4..8] != [0, 0, 0, 3] {
        return;
    }
    files.poke(TOP, at + 36, &[0; 4]);
    files.poke(TOP, at + 40, &bytes[from + 64..from + 68]);
}

const DAMAGES: [(&str, Damage); 8] = [
    ("counts", counts),
    ("leaks", leaks),
    ("flags", flags),
    ("shared", shared),
    ("no block", no_block),
    ("twice", twice),
    ("no table", no_table),
    ("incomplete", incomplete),
];

fn repaired(drive: &dyn Drive, granted: &instar_image::Granted, extent: Repair) -> Result<Summary> {
    let image = opened(drive, granted, Purpose::Repair)?;
    let scope = Scope { as_qemu: true, version: 1000 };
    image.repair(&Order { drive, extent, scope }, &mut |_| Ok(()))
}

/// Nothing is wrong with an image, and it says so.
fn sound(files: &MemFiles) -> core::result::Result<(), String> {
    let (wrongs, leaks) = wrongs(files).map_err(|error| format!("it cannot be checked: {error:?}"))?;
    let is_marked = files.bytes(TOP)[4..8] == [0, 0, 0, 3] && files.bytes(TOP)[79] & 3 != 0;
    match wrongs.is_empty() && leaks == 0 && !is_marked {
        true => Ok(()),
        false => Err(format!("{leaks} leaks, marked: {is_marked}, {wrongs:?}")),
    }
}

/// Repairs an image, and looks at all that a crash may make of it: it holds the same, and can be repaired.
fn survives_repair(start: &MemFiles, extent: Repair, about: &str) -> MemFiles {
    let granted = start.granted(TOP);
    // Who repairs it can read it, though nobody else may.
    let held = |files: &MemFiles| state_for(files, Purpose::Check);
    let before = held(start).unwrap();
    let recorder = Recorder::new(start, Trouble::Never);
    repaired(&recorder, &granted, extent).unwrap_or_else(|error| panic!("{about}: {error:?}"));
    let (whole, ..) = recorder.end();
    let tried = sweep(
        start,
        |drive| repaired(drive, &granted, extent).map(drop),
        |files, how| {
            let same = |files: &MemFiles| match held(files) {
                Ok(now) if now == before => Ok(()),
                now => Err(format!("{now:?} is not {before:?}")),
            };
            same(files)?;
            if how.is_over() && extent == Repair::All {
                sound(files)?;
            }
            let recorder = Recorder::new(files, Trouble::Never);
            let again = repaired(&recorder, &files.granted(TOP), Repair::All);
            again.map_err(|error| format!("it cannot be repaired: {error:?}"))?;
            let (files, ..) = recorder.end();
            same(&files)?;
            sound(&files)
        },
    );
    tried.unwrap_or_else(|bad| panic!("{about}: {bad:?}"));
    whole
}

/// An image with a snapshot.
fn start(path: &Path, list: &str, seed: u64) -> MemFiles {
    let size = (cluster(list) * 24).max(1 << 16);
    furnished(path, "a.q", list, size, seed);
    maker().img().folder(path).args(["snapshot", "-c", "one", "a.q"]).must();
    scribble(path, "qcow2", "a.q", size, seed + 50, 3);
    MemFiles::load(path, &["a.q"])
}

#[test]
fn repairs_survive_every_crash() {
    let scratch = Scratch::new("qcow2-repairs");
    let path = scratch.path();
    for (seed, list) in (1u64..).zip(KINDS) {
        let start = start(path, list, seed);
        let mut dice = Dice::new(seed);
        for number in 0..4 {
            let mut files = start.clone();
            let mut about = format!("{list}, {number}:");
            for _ in 0..=number % 3 {
                let (name, damage) = DAMAGES[usize::try_from(dice.below(8)).unwrap()];
                about += name;
                about += " ";
                damage(&mut files, &mut dice);
            }
            if number % 2 == 1 && files.bytes(TOP)[4..8] == [0, 0, 0, 3] {
                let bits = files.bytes(TOP)[79] | if dice.below(2) == 0 { 1 } else { 2 };
                files.poke(TOP, 79, &[bits]);
            }
            survives_repair(&files, Repair::All, &about).save(path);
            clean(path, &about);
        }
    }
}

#[test]
fn lost_space_is_freed_whatever_happens() {
    let scratch = Scratch::new("qcow2-freed");
    let path = scratch.path();
    for (seed, list) in (20u64..).zip(["cluster_size=4096", "cluster_size=512,refcount_bits=64"]) {
        let start = start(path, list, seed);
        let mut files = start.clone();
        leaks(&mut files, &mut Dice::new(seed));
        survives_repair(&files, Repair::Leaks, list).save(path);
        clean(path, list);
    }
}

#[test]
fn counts_without_a_place_are_not_made_up_where_only_space_is_to_be_freed() {
    let scratch = Scratch::new("qcow2-not-freed");
    let mut files = start(scratch.path(), "cluster_size=4096", 7);
    no_block(&mut files, &mut Dice::new(1));
    let recorder = Recorder::new(&files, Trouble::Never);
    assert!(repaired(&recorder, &files.granted(TOP), Repair::Leaks).is_err());
    assert_eq!(recorder.end().0.bytes(TOP), files.bytes(TOP));
}

#[test]
fn whoever_is_marked_must_be_repaired() {
    let scratch = Scratch::new("qcow2-marked");
    let mut files = start(scratch.path(), "cluster_size=4096", 8);
    let must = |files: &MemFiles| opened(files, &files.granted(TOP), Purpose::Write).unwrap().must_be_repaired();
    assert!(!must(&files));
    files.poke(TOP, 79, &[1]);
    assert!(must(&files));
    // What is known to be corrupt is not written to by the way.
    files.poke(TOP, 79, &[3]);
    assert!(opened(&files, &files.granted(TOP), Purpose::Write).is_err());
}
