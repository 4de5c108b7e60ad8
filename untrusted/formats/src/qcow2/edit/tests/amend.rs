//! Options of images that are there: what the image holds then, whatever happens meanwhile, and what qemu-img makes of it.

use super::*;
use alloc::vec;
use core::cell::RefCell;
use instar_image::edit::{Amended, Amendment};
use instar_image::{Fact, Random, Recipe};
use instar_wire::fact::Field;
use instar_wire::op::Rules;

/// A list of options as a recipe.
pub fn recipe(list: &str) -> Recipe {
    let value = |key: &str, text: &str| match key {
        "size" | "refcount_bits" | "keyslot" | "iter-time" | "encrypt.keyslot" | "encrypt.iter-time" => {
            Fact::Count(text.parse().expect("a number"))
        }
        "lazy_refcounts" | "data_file_raw" => Fact::Truth(text == "on"),
        _ => text.as_bytes().into(),
    };
    let fields = list.split(',').map(|word| {
        let (key, text) = word.split_once('=').expect("a key and a value");
        Field { name: key.into(), value: value(key, text) }
    });
    Recipe { format: "qcow2".into(), size: 0, options: Fact::Fields(fields.collect()) }
}

/// Amends an image in these ways.
pub fn amend(edit: &mut dyn Edit, drive: &dyn Drive, list: &str, rules: Rules) -> Result<Amended> {
    let wish = Amendment {
        recipe: &recipe(list),
        rules: &rules,
        is_forced: false,
        new_secret: None,
        old_secret: None,
        random: RefCell::new(Random::new(b"amend")),
        tell: &|done, total| {
            assert!(done <= total && total > 0, "{done} of {total}");
            Ok(())
        },
    };
    edit.amend(drive, &wish)
}

fn as_qemu(version: u32) -> Rules {
    Rules { as_qemu: true, version }
}

/// The same image, amended, after a look at all that a crash may make of it.
fn amended(start: &MemFiles, list: &str, about: &str) -> MemFiles {
    let about = format!("{about}: {list}");
    let whole = survives(
        start,
        &|edit, drive| {
            let how = amend(edit, drive, list, Rules { as_qemu: false, version: 0 })?;
            assert_eq!(how, Amended::Done, "{list}");
            Ok(())
        },
        &about,
    );
    assert_eq!(state(&whole).unwrap(), state(start).unwrap(), "{about}");
    assert_eq!(wrongs(&whole).unwrap().0, Vec::<String>::new(), "{about}");
    whole
}

/// What the image says of itself.
fn facts(files: &MemFiles, name: &str) -> Option<Fact> {
    let image = opened(files, &files.granted(TOP), instar_image::Purpose::Read).unwrap();
    image.describe(false).unwrap().specific.and_then(|facts| facts.get(name).cloned())
}

/// An image with snapshots, and with clusters that say that they are zeroes, over another.
fn rich(path: &Path, list: &str, seed: u64, is_over: bool) {
    let unit = cluster(list);
    let size = unit * 24;
    let base = if is_over { " -b base.raw -F raw" } else { "" };
    std::fs::write(path.join("base.raw"), vec![0x5a; size as usize]).expect("a base");
    create(path, &format!("-f qcow2 -o {list}{base} a.q {size}"));
    let mut dice = Dice::new(seed);
    for round in 0..3 {
        scribble(path, "qcow2", "a.q", size, seed * 10 + round, 4);
        pack(path, "a.q", list, size, seed * 10 + round);
        if !list.contains("0.10") {
            for _ in 0..4 {
                let at = dice.below(24) * unit;
                let how = if dice.below(2) == 0 { "" } else { "-u " };
                let command = format!("write -z {how}{at} {unit}");
                maker().io().folder(path).args(["-f", "qcow2", "-c", &command, "a.q"]).go();
            }
        }
        if round < 2 && !list.contains("refcount_bits=1,") {
            maker().img().folder(path).args(["snapshot", "-c", &round.to_string(), "a.q"]).must();
        }
    }
}

/// Every width of counts is reached from every other.
#[test]
fn widths_survive_every_crash() {
    let scratch = Scratch::new("qcow2-widths");
    let path = scratch.path();
    for (seed, unit) in (1u64..).zip([512u64, 1024, 4096, 65536]) {
        let list = format!("compat=1.1,cluster_size={unit}");
        rich(path, &list, seed, false);
        let mut files = MemFiles::load(path, &["a.q"]);
        for bits in [64u64, 4, 32, 8, 2, 16] {
            let wish = format!("refcount_bits={bits}");
            // Two snapshots and the disk are too many users for two bits, perhaps.
            let about = format!("{list}, {bits} bits");
            let tried = plainly(&files, &wish, as_qemu(1100));
            if bits == 2 && tried.is_err() {
                continue;
            }
            files = amended(&files, &wish, &about);
            assert_eq!(facts(&files, "refcount-bits"), Some(bits.into()), "{about}");
            files.save(path);
            clean(path, &about);
            assert_eq!(read_by_oracle(path, "a.q"), state(&files).unwrap(), "{about}");
        }
    }
}

/// Amends without looking at what a crash would do.
fn plainly(start: &MemFiles, list: &str, rules: Rules) -> Result<(MemFiles, Amended)> {
    let recorder = instar_testkit::crash::Recorder::new(start, instar_testkit::crash::Trouble::Never);
    let mut how = Amended::Not;
    let how_is = RefCell::new(&mut how);
    changed(&recorder, &start.granted(TOP), &|edit, drive| {
        **how_is.borrow_mut() = amend(edit, drive, list, Rules { as_qemu: rules.as_qemu, version: rules.version })?;
        Ok(())
    })?;
    let (whole, ..) = recorder.end();
    Ok((whole, how))
}

#[test]
fn versions_survive_every_crash() {
    let scratch = Scratch::new("qcow2-versions");
    let path = scratch.path();
    for (seed, (unit, is_over)) in (1u64..).zip([(512, false), (1024, true), (4096, true), (8192, false), (65536, true)]) {
        let list = format!("compat=1.1,cluster_size={unit}");
        rich(path, &list, seed, is_over);
        let names: &[&str] = if is_over { &["a.q", "base.raw"] } else { &["a.q"] };
        let files = MemFiles::load(path, names);
        let older = amended(&files, "compat=0.10", &list);
        assert_eq!(facts(&older, "compat"), Some("0.10".into()));
        older.save(path);
        clean(path, &list);
        let newer = amended(&older, "compat=1.1,lazy_refcounts=on,refcount_bits=8", &list);
        assert_eq!(facts(&newer, "lazy-refcounts"), Some(true.into()));
        newer.save(path);
        clean(path, &list);
        let off = amended(&newer, "lazy_refcounts=off", &list);
        let last = amended(&off, "compat=v2,refcount_bits=16", &list);
        last.save(path);
        clean(path, &list);
    }
}
