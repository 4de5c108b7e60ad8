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
        warn: &|_| Ok(()),
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
    for (seed, (unit, is_over)) in
        (1u64..).zip([(512, false), (1024, true), (4096, true), (8192, false), (65536, true)])
    {
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

/// All sizes of clusters, both versions, with extensions or without: there and back, as qemu-img sees it.
#[test]
fn every_size_of_clusters_has_both_versions() {
    let scratch = Scratch::new("qcow2-both");
    let path = scratch.path();
    std::fs::write(path.join("base.raw"), vec![0x5a; 1 << 20]).expect("a base");
    for bits in 9..=21u32 {
        let (unit, size) = (1u64 << bits, 3u64 << bits);
        for compat in ["0.10", "1.1"] {
            for base in ["", " -b base.raw -F raw"] {
                let list = format!("compat={compat},cluster_size={unit}");
                create(path, &format!("-f qcow2 -o {list}{base} a.q {size}"));
                let command = format!("write -P 7 {unit} {unit}");
                maker().io().folder(path).args(["-f", "qcow2", "-c", &command, "a.q"]).must();
                let mut files = match base {
                    "" => MemFiles::load(path, &["a.q"]),
                    _ => MemFiles::load(path, &["a.q", "base.raw"]),
                };
                let before = state(&files).unwrap();
                let wishes = match compat {
                    "1.1" => ["compat=0.10", "compat=1.1,refcount_bits=64", "refcount_bits=1,lazy_refcounts=on"],
                    _ => ["compat=1.1", "refcount_bits=8", "compat=0.10,refcount_bits=16"],
                };
                for wish in wishes {
                    let about = format!("{list}{base}, {wish}");
                    let (now, how) = plainly(&files, wish, as_qemu(1100)).unwrap_or_else(|e| panic!("{about}: {e:?}"));
                    assert_eq!(how, Amended::Done, "{about}");
                    assert_eq!(state(&now).unwrap(), before, "{about}");
                    assert_eq!(wrongs(&now).unwrap(), (Vec::new(), 0), "{about}");
                    assert_eq!(backing_of(&now), (!base.is_empty()).then(|| "base.raw".into()), "{about}");
                    let (again, how) = plainly(&now, wish, as_qemu(1100)).unwrap();
                    assert_eq!(how, Amended::Not, "{about}");
                    assert_eq!(again.bytes(TOP), now.bytes(TOP), "{about}");
                    files = now;
                }
                files.save(path);
                clean_for(&oracles()[bits as usize % oracles().len()], path, &list);
                assert_eq!(read_by_oracle(path, "a.q"), before, "{list}{base}");
            }
        }
    }
}

fn backing_of(files: &MemFiles) -> Option<String> {
    let image = opened(files, &files.granted(TOP), Purpose::Read).unwrap();
    let told = image.describe(false).unwrap();
    told.backing.map(|backing| String::from_utf8_lossy(&backing.name.0).into_owned())
}

/// What is packed with Zstandard is packed with Deflate then, what snapshots share as well.
#[test]
fn other_packing_survives_every_crash() {
    let scratch = Scratch::new("qcow2-repack");
    let path = scratch.path();
    for (seed, (unit, more)) in (1u64..).zip([(1024, ""), (4096, ""), (65536, ""), (16384, ",extended_l2=on")]) {
        let list = format!("compat=1.1,cluster_size={unit},compression_type=zstd{more}");
        rich(path, &list, seed, false);
        let start = MemFiles::load(path, &["a.q"]);
        let words = "Cannot downgrade an image with zstd compression type and existing compressed clusters";
        if more.is_empty() {
            assert_eq!(plainly(&start, "compat=0.10", as_qemu(1100)).map(drop).unwrap_err().what.0, words.as_bytes());
        }
        let wish = if more.is_empty() { "compat=0.10,compression_type=zlib" } else { "compression_type=zlib" };
        let whole = amended(&start, wish, &list);
        assert_eq!(facts(&whole, "compression-type"), Some("zlib".into()), "{list}");
        whole.save(path);
        clean(path, &list.replace("zstd", "zlib"));
        assert_eq!(read_by_oracle(path, "a.q"), state(&start).unwrap(), "{list}");
    }
}

/// What is refused is refused in the words of every version, and what is done leaves what its program leaves.
#[test]
fn what_becomes_of_images_is_what_qemu_img_makes_of_them() {
    let scratch = Scratch::new("qcow2-amend-twins");
    let path = scratch.path();
    let kinds =
        ["compat=1.1", "compat=0.10", "compat=1.1,refcount_bits=64,lazy_refcounts=on", "compat=1.1,cluster_size=512"];
    let wishes = [
        "compat=1.1",
        "compat=v2",
        "compat=x",
        "lazy_refcounts=on",
        "lazy_refcounts=off",
        "refcount_bits=8",
        "refcount_bits=3",
        "compat=0.10,refcount_bits=16",
        "compat=1.1,refcount_bits=1",
        "data_file=x",
        "data_file_raw=on",
        "data_file_raw=off",
        "backing_file=x",
        "compat=0.10,lazy_refcounts=on",
        "size=1000",
    ];
    let words = instar_testkit::made::said;
    for (seed, list) in (1u64..).zip(kinds) {
        rich(path, list, seed, false);
        let start = MemFiles::load(path, &["a.q"]);
        for (oracle, wish) in oracles().iter().cycle().skip(seed as usize).zip(wishes) {
            let about = format!("{}, {list}: {wish}", oracle.version);
            let version = if oracle.since("6.1") { 1100 } else { 502 };
            start.save(path);
            let theirs = oracle.img().folder(path).args(["amend", "-f", "qcow2", "-o", wish, "a.q"]).go();
            let made = MemFiles::load(path, &["a.q"]);
            match plainly(&start, wish, as_qemu(version)) {
                Err(error) => {
                    let said = words(&error).replace("\\n", "\n");
                    assert!(theirs.code() != Some(0), "{about}: {said}");
                    assert!(theirs.err().contains(said.lines().next().unwrap()), "{about}: {said}, {}", theirs.err());
                }
                Ok((ours, _)) => {
                    assert_eq!(theirs.code(), Some(0), "{about}: {}", theirs.err());
                    assert_eq!(state(&ours).unwrap(), state(&made).unwrap(), "{about}");
                    for name in ["compat", "refcount-bits", "lazy-refcounts", "compression-type", "corrupt"] {
                        assert_eq!(facts(&ours, name), facts(&made, name), "{about}");
                    }
                    if backing_of(&ours).is_none() {
                        ours.save(path);
                        clean_for(oracle, path, &about);
                    }
                }
            }
        }
    }
}

/// The file beside it has another name then, or none.
#[test]
fn other_names_of_data_files_survive_every_crash() {
    let scratch = Scratch::new("qcow2-apart");
    let path = scratch.path();
    for list in ["data_file=d.raw", "data_file=d.raw,data_file_raw=on"] {
        create(path, &format!("-f qcow2 -o {list} a.q 1M"));
        let start = MemFiles::load(path, &["a.q", "d.raw", "d.raw"]);
        let long = "n".repeat(900);
        for name in ["e", "a.much.longer.name.of.a.file", &long] {
            let mut files = MemFiles::load(path, &["a.q"]);
            for own in ["d.raw", name] {
                files.add(own, &[0; 1 << 20]);
            }
            let whole = amended(&files, &format!("data_file={name}"), list);
            assert_eq!(facts(&whole, "data-file"), Some(name.into()), "{list}");
        }
        drop(start);
        if list.contains("on") {
            let files = MemFiles::load(path, &["a.q", "d.raw"]);
            let whole = amended(&files, "data_file_raw=off", list);
            assert_eq!(facts(&whole, "data-file-raw"), Some(Fact::Truth(false)));
        }
    }
}
