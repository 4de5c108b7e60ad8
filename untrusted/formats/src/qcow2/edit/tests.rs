//! Images that are changed where they stand: what they hold then, whatever happens meanwhile, and what qemu-img makes of it.

mod amend;
mod bitmaps;
mod front;

use super::super::Qcow2;
use alloc::format;
extern crate std;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use instar_image::edit::NewSnapshot;
use instar_image::tally::check_in_windows;
use instar_image::{
    Chain, Drive, Edit, File, FileId, Format, Image, Io, Options, Preallocation, Purpose, Result, Role, Scope,
};
use instar_testkit::content::read;
use instar_testkit::crash::{MemFiles, Recorder, Trouble, sweep};
use instar_testkit::oracle::{Oracle, maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::twin::{create, scribble};
use instar_wire::op::check::Weight;
use std::path::Path;

mod repairs;

const TOP: FileId = FileId(0);

/// What an image holds, and each of its snapshots, by name.
#[derive(PartialEq, Eq, Clone)]
struct State(Vec<(String, Vec<u8>)>);

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, bytes)| (name, bytes.len(), sum(bytes)))).finish()
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

fn opened<'f>(
    files: &'f dyn Io,
    granted: &instar_image::Granted,
    purpose: Purpose,
) -> Result<alloc::boxed::Box<dyn Image + 'f>> {
    Qcow2.open(File::new(files, granted), &Options { purpose, ..Options::default() })
}

fn names(image: &dyn Image) -> Result<Vec<String>> {
    let mut all = Vec::new();
    image.snapshots(&mut |some| {
        all.extend(some.iter().map(|one| String::from_utf8_lossy(&one.name.0).into_owned()));
        Ok(())
    })?;
    Ok(all)
}

fn state(files: &MemFiles) -> Result<State> {
    state_for(files, Purpose::Read)
}

fn state_for(files: &MemFiles, purpose: Purpose) -> Result<State> {
    let image = opened(files, &files.granted(TOP), purpose)?;
    let below = files.related(TOP, Role::Backing, b"base.raw").ok();
    let bytes = |layer| {
        let mut chain = Chain { layers: Vec::from([layer]) };
        let size = chain.size();
        if let Some(below) = &below {
            chain.layers.push(crate::RAW.open(File::new(files, below), &Options::default())?.layer()?);
        }
        read(&chain, files, 0, size)
    };
    let mut all = Vec::from([(String::new(), bytes(image.layer()?)?)]);
    for (number, name) in names(&*image)?.into_iter().enumerate() {
        all.push((name, bytes(image.snapshot(number)?)?));
    }
    Ok(State(all))
}

/// What is wrong with an image but for space that nobody uses.
fn wrongs(files: &MemFiles) -> Result<(Vec<String>, u64)> {
    let image = opened(files, &files.granted(TOP), Purpose::Check)?;
    let (mut wrongs, mut leaks) = (Vec::new(), 0);
    let scope = Scope { as_qemu: true, version: 1000 };
    for census in image.censuses(scope) {
        check_in_windows(&*census, scope, 1 << 20, &mut |finding| {
            match finding.weight {
                Weight::Leak => leaks += finding.count,
                _ => wrongs.push(instar_testkit::made::said(&finding.what)),
            }
            Ok(())
        })?;
    }
    Ok((wrongs, leaks))
}

type Change<'c> = &'c dyn Fn(&mut dyn Edit, &dyn Drive) -> Result<()>;

fn changed(drive: &dyn Drive, granted: &instar_image::Granted, change: Change<'_>) -> Result<()> {
    let image = opened(drive, granted, Purpose::Write)?;
    let mut edit = image.edit()?;
    change(&mut *edit, drive)
}

/// Makes a change, and looks at all that a crash may make of it. The image afterwards.
fn survives(start: &MemFiles, change: Change<'_>, about: &str) -> MemFiles {
    survives_as(&state, start, change, about)
}

/// The same, of all that a state consists of.
fn survives_as<S: PartialEq + core::fmt::Debug>(
    state: &dyn Fn(&MemFiles) -> Result<S>,
    start: &MemFiles,
    change: Change<'_>,
    about: &str,
) -> MemFiles {
    let granted = start.granted(TOP);
    let before = state(start).unwrap();
    let recorder = Recorder::new(start, Trouble::Never);
    changed(&recorder, &granted, change).unwrap_or_else(|error| panic!("{about}: {error:?}"));
    let (whole, ..) = recorder.end();
    let after = state(&whole).unwrap();
    let (_, former_leaks) = wrongs(start).unwrap();
    let tried = sweep(
        start,
        |drive| changed(drive, &granted, change),
        |files, how| {
            let now = state(files).map_err(|error| format!("it does not open: {error:?}"))?;
            let allowed: &[&S] = if how.is_over() { &[&after] } else { &[&before, &after] };
            if !allowed.contains(&&now) {
                return Err(format!("{now:?} is neither {before:?} nor {after:?}"));
            }
            match wrongs(files).map_err(|error| format!("it cannot be checked: {error:?}"))? {
                (wrongs, _) if !wrongs.is_empty() => Err(format!("{wrongs:?}")),
                (_, leaks) if how.is_over() && leaks > former_leaks => Err(format!("{leaks} leaks")),
                _ => Ok(()),
            }
        },
    );
    let tried = tried.unwrap_or_else(|bad| panic!("{about}: {bad:?}"));
    assert!(tried.states >= 2, "{about}: {tried:?}");
    whole
}

/// An image that qemu-img has made and written to, packed clusters among the others.
fn furnished(path: &Path, name: &str, list: &str, size: u64, seed: u64) {
    create(path, &format!("-f qcow2 -o {list} {name} {size}"));
    scribble(path, "qcow2", name, size, seed, 6);
    pack(path, name, list, size, seed);
}

/// Writes some clusters packed.
fn pack(path: &Path, name: &str, list: &str, size: u64, seed: u64) {
    let cluster = cluster(list);
    let mut dice = Dice::new(seed);
    for _ in 0..3 {
        let at = dice.below(size / cluster) * cluster;
        let command = format!("write -c -P {} {at} {cluster}", 1 + dice.below(200));
        maker().io().folder(path).args(["-f", "qcow2", "-c", &command, name]).go();
    }
}

fn cluster(list: &str) -> u64 {
    let word = list.split(',').find_map(|word| word.strip_prefix("cluster_size="));
    word.map_or(65536, |word| word.parse().expect("a number"))
}

const KINDS: [&str; 8] = [
    "compat=1.1,cluster_size=8192",
    "compat=0.10,cluster_size=512",
    "cluster_size=512,refcount_bits=64",
    "cluster_size=1024,refcount_bits=8",
    "cluster_size=4096,refcount_bits=2",
    "cluster_size=16384,extended_l2=on",
    "cluster_size=4096,refcount_bits=32,lazy_refcounts=off",
    "cluster_size=2048,refcount_bits=4,compression_type=zstd",
];

fn snapshot(name: &str) -> NewSnapshot<'_> {
    NewSnapshot { name: name.as_bytes(), date_sec: 1_700_000_000, date_nsec: 5 }
}

#[test]
fn snapshots_survive_every_crash() {
    let scratch = Scratch::new("qcow2-snapshots");
    let path = scratch.path();
    for (seed, list) in (1u64..).zip(KINDS) {
        let size = (cluster(list) * 24).max(1 << 16) + 512 * seed;
        furnished(path, "a.q", list, size, seed);
        let start = MemFiles::load(path, &["a.q"]);
        let first =
            survives(&start, &|edit, drive| edit.take_snapshot(drive, &snapshot("one")), &format!("{list}, taken"));
        first.save(path);
        clean(path, list);
        scribble(path, "qcow2", "a.q", size, seed + 100, 4);
        pack(path, "a.q", list, size, seed + 100);
        let second = MemFiles::load(path, &["a.q"]);
        let second =
            survives(&second, &|edit, drive| edit.take_snapshot(drive, &snapshot("two")), &format!("{list}, again"));
        second.save(path);
        clean(path, list);
        scribble(path, "qcow2", "a.q", size, seed + 200, 4);
        let third = MemFiles::load(path, &["a.q"]);
        for number in 0..2 {
            let applied =
                survives(&third, &|edit, drive| edit.apply_snapshot(drive, number), &format!("{list}, applied"));
            applied.save(path);
            clean(path, list);
            let gone =
                survives(&applied, &|edit, drive| edit.delete_snapshot(drive, number), &format!("{list}, deleted"));
            gone.save(path);
            clean(path, list);
            let none = survives(&gone, &|edit, drive| edit.delete_snapshot(drive, 0), &format!("{list}, all deleted"));
            none.save(path);
            clean(path, list);
        }
    }
}

/// All versions find nothing wrong with the image.
fn clean(path: &Path, about: &str) {
    oracles().iter().for_each(|oracle| clean_for(oracle, path, about));
}

/// One finds nothing wrong with it.
fn clean_for(oracle: &Oracle, path: &Path, about: &str) {
    if about.contains("zstd") && !oracle.since("6.0") {
        return;
    }
    let ran = oracle.img().folder(path).args(["check", "-f", "qcow2", "a.q"]).go();
    assert_eq!(ran.code(), Some(0), "{about}, {}: {}{}", oracle.version, ran.out(), ran.err());
}

/// The same state, as qemu-img reads it.
fn read_by_oracle(path: &Path, name: &str) -> State {
    let raw = |words: &[&str]| {
        maker()
            .img()
            .folder(path)
            .args(["convert", "-f", "qcow2", "-O", "raw"])
            .args(words)
            .args([name, "read.raw"])
            .must();
        std::fs::read(path.join("read.raw")).expect("its content")
    };
    let files = MemFiles::load(path, &[name]);
    let image = opened(&files, &files.granted(TOP), Purpose::Read).unwrap();
    let mut all = Vec::from([(String::new(), raw(&["-q"]))]);
    for name in names(&*image).unwrap() {
        let bytes = raw(&["-l", &format!("snapshot.name={name}")]);
        all.push((name, bytes));
    }
    State(all)
}

#[test]
fn snapshots_are_those_of_qemu_img() {
    let scratch = Scratch::new("qcow2-twins");
    let path = scratch.path();
    for (seed, list) in (1u64..).zip(KINDS.iter().cycle()).take(8) {
        let size = cluster(list) * 50;
        furnished(path, "ours.q", list, size, seed);
        let copy = || std::fs::copy(path.join("ours.q"), path.join("theirs.q")).expect("a copy");
        copy();
        let mut dice = Dice::new(seed);
        for step in 0..6u64 {
            let count = names(&*opened_at(path, "ours.q")).unwrap().len();
            let ours = MemFiles::load(path, &["ours.q"]);
            let number = dice.below(count.max(1) as u64) as usize;
            let tag = format!("s{step}");
            let name = names(&*opened_at(path, "ours.q")).unwrap().get(number).cloned().unwrap_or_default();
            let recorder = Recorder::new(&ours, Trouble::Never);
            let granted = ours.granted(TOP);
            let (done, words) = match dice.below(4) {
                1 if count > 0 => {
                    (changed(&recorder, &granted, &|edit, drive| edit.apply_snapshot(drive, number)), ["-a", &name])
                }
                2 if count > 0 => {
                    (changed(&recorder, &granted, &|edit, drive| edit.delete_snapshot(drive, number)), ["-d", &name])
                }
                _ => (
                    changed(&recorder, &granted, &|edit, drive| edit.take_snapshot(drive, &snapshot(&tag))),
                    ["-c", &tag[..]],
                ),
            };
            let about = format!("{list}, seed {seed}, step {step}: {words:?}");
            let theirs = maker().img().folder(path).args(["snapshot"]).args(words).arg("theirs.q").go();
            assert_eq!(done.is_ok(), theirs.code() == Some(0), "{about}: {done:?}, {}", theirs.err());
            if done.is_err() {
                break;
            }
            let (whole, ..) = recorder.end();
            whole.save(path);
            assert_eq!(read_by_oracle(path, "ours.q"), read_by_oracle(path, "theirs.q"), "{about}");
            assert_eq!(state(&MemFiles::load(path, &["theirs.q"])).unwrap(), state(&whole).unwrap(), "{about}");
            let ran = maker().img().folder(path).args(["check", "-f", "qcow2", "ours.q"]).go();
            assert_eq!(ran.code(), Some(0), "{about}: {}{}", ran.out(), ran.err());
            // A guest writes on, over what either has done.
            for name in ["ours.q", "theirs.q"] {
                scribble(path, "qcow2", name, size, seed * 100 + step, 3);
            }
        }
    }
}

fn opened_at(path: &Path, name: &str) -> alloc::boxed::Box<dyn Image> {
    let files: &'static MemFiles = alloc::boxed::Box::leak(alloc::boxed::Box::new(MemFiles::load(path, &[name])));
    opened(files, &files.granted(TOP), Purpose::Read).unwrap()
}

#[test]
fn what_is_given_back_is_used_again() {
    let scratch = Scratch::new("qcow2-reuse");
    let path = scratch.path();
    furnished(path, "a.q", "cluster_size=4096", 4 << 20, 5);
    let mut files = MemFiles::load(path, &["a.q"]);
    let mut lens = Vec::new();
    for turn in 0..20 {
        for change in [
            &(|edit: &mut dyn Edit, drive: &dyn Drive| edit.take_snapshot(drive, &snapshot(&turn.to_string())))
                as Change<'_>,
            &|edit, drive| edit.delete_snapshot(drive, 0),
        ] {
            let recorder = Recorder::new(&files, Trouble::Never);
            changed(&recorder, &files.granted(TOP), change).unwrap();
            files = recorder.end().0;
        }
        lens.push(files.len(TOP));
    }
    assert_eq!(lens[2], lens[19], "{lens:?}");
    assert_eq!(wrongs(&files).unwrap(), (Vec::new(), 0));
}

/// Another size.
fn resized(start: &MemFiles, size: u64, space: Preallocation, about: &str) -> MemFiles {
    let none = Chain { layers: Vec::new() };
    let resize = |edit: &mut dyn Edit, drive: &dyn Drive| {
        edit.resize(drive, size, space, &none).map(|now| assert_eq!(now, size))
    };
    let whole = survives(start, &resize, about);
    let (before, after) = (state(start).unwrap(), state(&whole).unwrap());
    let mut wanted = before.clone();
    wanted.0[0].1.resize(size as usize, 0);
    // Snapshots are told with the size of the disk.
    for (wanted, (_, now)) in wanted.0.iter_mut().zip(&after.0).skip(1) {
        let len = wanted.1.len().min(now.len());
        assert!(wanted.1[..len] == now[..len], "{about}: a snapshot");
        wanted.1 = now.clone();
    }
    assert_eq!(after, wanted, "{about}");
    whole
}

#[test]
fn other_sizes_survive_every_crash() {
    let scratch = Scratch::new("qcow2-resize");
    let path = scratch.path();
    for (seed, list) in (1u64..).zip(KINDS) {
        let unit = cluster(list);
        let size = unit * 20 + 512 * (seed % 3);
        furnished(path, "a.q", list, size, seed);
        if list.contains("1.1") || !list.contains("compat") {
            for (name, granularity) in [("x", 512), ("y", 65536)] {
                let words = ["bitmap", "--add", "-g", &granularity.to_string(), "a.q", name].map(String::from);
                maker().img().folder(path).args(words).must();
            }
            scribble(path, "qcow2", "a.q", size, seed + 7, 3);
            maker().img().folder(path).args(["snapshot", "-c", "s", "a.q"]).must();
            scribble(path, "qcow2", "a.q", size, seed + 8, 3);
        }
        let mut files = MemFiles::load(path, &["a.q"]);
        let mut dice = Dice::new(seed);
        let reach = unit / if list.contains("extended") { 16 } else { 8 } * unit;
        for step in 0..8 {
            let last = state(&files).unwrap().0[0].1.len() as u64;
            let most = (reach * 2).min(4 << 20);
            let size =
                if step % 2 == 0 { last + 512 * dice.below(most / 512) } else { 512 * (1 + dice.below(last / 512)) };
            let spaces = [Preallocation::Off, Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full];
            let space = if size > last { spaces[dice.below(4) as usize] } else { Preallocation::Off };
            let about = format!("{list}, step {step}: {last} to {size}, {space:?}");
            if size == last {
                continue;
            }
            files = resized(&files, size, space, &about);
            files.save(path);
            clean(path, list);
            let scribbled = size.clamp(512, 1 << 20);
            scribble(path, "qcow2", "a.q", scribbled, seed * 10 + step, 2);
            files = MemFiles::load(path, &["a.q"]);
        }
    }
}
