//! `check -r`, held against the real program: damaged images, what is said of them, and what they are afterwards.

use instar_testkit::oracle::{Oracle, maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{Ran, Run};
use instar_tests::report::{Report, difference};
use std::fs;
use std::path::Path;

/// How images are made that are damaged.
const KINDS: &[&str] = &[
    "compat=1.1",
    "compat=0.10",
    "cluster_size=4k,refcount_bits=1",
    "cluster_size=4k,refcount_bits=64",
    "extended_l2=on,cluster_size=16k",
    "refcount_bits=2,cluster_size=1k",
    "refcount_bits=8,lazy_refcounts=on",
    "cluster_size=512",
];

/// Versions that are asked.
fn asked() -> Vec<&'static Oracle> {
    ["5.2", "10.0.2", "11.1.2"].iter().filter_map(|version| instar_testkit::oracle::version(version)).collect()
}

fn word(bytes: &[u8], at: u64) -> u64 {
    let at = usize::try_from(at).expect("a place");
    bytes.get(at..at + 8).map_or(0, |word| u64::from_be_bytes(word.try_into().expect("eight bytes")))
}

fn put(bytes: &mut [u8], at: u64, word: u64) {
    let at = usize::try_from(at).expect("a place");
    bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
}

/// The bits of an entry that are a place.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;

/// An image with a few clusters in it, and a snapshot perhaps.
fn make(folder: &Path, kind: &str, dice: &mut Dice) -> Vec<u8> {
    let size = if kind.contains("512") { 1 << 20 } else { 8 << 20 };
    let write = |dice: &mut Dice| format!("write -P {} {} 4k", 1 + dice.below(250), dice.below(size >> 12) << 12);
    maker().img().folder(folder).args(["create", "-q", "-f", "qcow2", "-o", kind, "a.q"]).arg(size.to_string()).must();
    let io = |commands: &[String]| {
        let words = commands.iter().flat_map(|command| ["-c", command]);
        maker().io().folder(folder).args(["-f", "qcow2"]).args(words).arg("a.q").must();
    };
    let mut commands: Vec<String> = (0..5).map(|_| write(dice)).collect();
    commands.push(format!("write -z {} 64k", dice.below(size >> 16) << 16));
    io(&commands);
    if !kind.contains("refcount_bits=1") && dice.below(2) == 0 {
        maker().img().folder(folder).args(["snapshot", "-c", "one", "a.q"]).must();
        io(&[write(dice)]);
    }
    fs::read(folder.join("a.q")).expect("an image")
}

/// Damages an image in one place.
fn damage(bytes: &mut [u8], dice: &mut Dice) {
    let len = 1u64 << bytes[23];
    let units = bytes.len() as u64 / len;
    let (l1, counts) = (word(bytes, 40), word(bytes, 48));
    let entries = u64::from(u32::from_be_bytes(bytes[36..40].try_into().expect("four bytes")));
    let step = if bytes[7] == 3 && bytes[79] & 16 != 0 { 16 } else { 8 };
    let tables: Vec<u64> =
        (0..entries).map(|index| word(bytes, l1 + 8 * index) & PLACE).filter(|at| *at != 0).collect();
    let all: Vec<u64> = tables.iter().flat_map(|at| (0..len / step).map(move |index| at + step * index)).collect();
    let all: Vec<u64> = all.into_iter().filter(|at| word(bytes, *at) != 0).collect();
    let block = word(bytes, counts) & !511;
    let any = |dice: &mut Dice, list: &[u64]| list.get(dice.below(list.len().max(1) as u64) as usize).copied();
    match dice.below(9) {
        0..3 => {
            let at = usize::try_from(block + dice.below(len.min(64))).expect("a place");
            let byte = [0, 1, 2, 3, 255, bytes.get(at).map_or(0, |byte| byte ^ 1)][dice.below(6) as usize];
            bytes.iter_mut().skip(at).take(1).for_each(|there| *there = byte);
        }
        3..7 => {
            let Some(at) = any(dice, &all) else { return };
            let was = word(bytes, at);
            let other = any(dice, &all).map_or(0, |at| word(bytes, at));
            let far = was & !PLACE | (dice.below(units + 3) * len);
            let now = [was ^ COPIED, far, was + 512, was | 1, 0, other, (was + 512) | 1][dice.below(7) as usize];
            put(bytes, at, now);
        }
        7 => {
            let at = l1 + 8 * dice.below(entries);
            let was = word(bytes, at);
            put(bytes, at, [was ^ COPIED, 0][dice.below(2) as usize]);
        }
        _ => put(bytes, counts, 0),
    }
}

/// What is compared: the answer, whether it is in order then, and what it holds.
struct After {
    ran: Ran,
    check: Ran,
    content: Option<Vec<u8>>,
}

fn after(folder: &Path, image: &[u8], format: &str, oracle: &Oracle, run: instar_testkit::run::Run) -> After {
    let name = "image";
    fs::write(folder.join(name), image).expect("an image");
    let ran = run.folder(folder).go();
    let check = oracle.img().folder(folder).args(["check", "-f", format, name]).go();
    let convert = oracle.img().folder(folder).args(["convert", "-f", format, "-O", "raw", name, "content"]).go();
    let content = (convert.code() == Some(0)).then(|| fs::read(folder.join("content")).expect("its content"));
    After { ran, check, content }
}

/// What the real program does with this image no good program does: it gives up where its own structures overlap.
fn gives_up(ran: &Ran) -> bool {
    let said = ran.err();
    ["Marking image as corrupt", "Overlap check failed", "overlap check failed"]
        .iter()
        .any(|words| said.contains(words))
}

fn compare(report: &Report, folder: &Path, image: &[u8], format: &str, about: &str) {
    for (number, oracle) in asked().into_iter().enumerate() {
        if format == "parallels" && oracle.version == "5.2" {
            continue;
        }
        for extent in ["all", "leaks"] {
            let words = ["check", "-f", format, "-r", extent, "image"];
            let want = after(folder, image, format, oracle, oracle.img().args(words));
            let cell = Cell::all()[number % Cell::all().len()];
            let got = after(folder, image, format, oracle, program().quirky(&oracle.version, cell).args(words));
            report.tried();
            if gives_up(&want.ran) {
                report.excuse("the real program gives up where its own structures overlap");
                continue;
            }
            let mut differs = difference("stdout", &want.ran.stdout, &got.ran.stdout);
            differs += &difference("stderr", &want.ran.stderr, &got.ran.stderr);
            if want.ran.end != got.ran.end || want.check.end != got.check.end {
                differs += &format!(
                    "  ends: {:?} {:?}, not {:?} {:?}\n",
                    got.ran.end, got.check.end, want.ran.end, want.check.end
                );
            }
            differs += &difference("check", &want.check.stdout, &got.check.stdout);
            if want.content != got.content {
                differs += "  another content\n";
            }
            if !differs.is_empty() {
                report.fault(format!("{} -r {extent}, {about}\n{differs}", oracle.version));
            }
        }
    }
}

#[test]
fn damaged_images_are_repaired_as_the_real_program_repairs_them() {
    let scratch = Scratch::new("repair");
    let report = Report::new("cmd repair");
    for seed in 0..40u64 {
        let kind = KINDS[(seed % KINDS.len() as u64) as usize];
        let mut dice = Dice::new(seed);
        let mut image = make(scratch.path(), kind, &mut dice);
        for _ in 0..=dice.below(3) {
            damage(&mut image, &mut dice);
        }
        compare(&report, scratch.path(), &image, "qcow2", &format!("seed {seed}, {kind}"));
    }
    report.end();
}

#[test]
fn tables_that_lead_nowhere_are_emptied() {
    let scratch = Scratch::new("repair-qed");
    let folder = scratch.path();
    let report = Report::new("cmd repair qed");
    maker().img().folder(folder).args(["create", "-q", "-f", "qed", "a.q", "16M"]).must();
    let words = ["-f", "qed", "-c", "write -P 7 0 64k", "-c", "write -P 8 1M 128k", "a.q"];
    maker().io().folder(folder).args(words).must();
    let bytes = fs::read(folder.join("a.q")).expect("an image");
    let little = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let l1 = little(40) as usize;
    let l2 = little(l1) as usize;
    let damages: &[&[(usize, u64)]] = &[
        &[(l1, l2 as u64 + 512)],
        &[(l2, 1 << 40)],
        &[(l2, little(l2) + 512)],
        &[(l2, little(l2 + 128))],
        &[(16, 2)],
        &[(16, 2), (l2, 1 << 40)],
        &[(l1 + 8, l2 as u64)],
        &[],
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mut image = bytes.clone();
        damage.iter().for_each(|(at, word)| image[*at..at + 8].copy_from_slice(&word.to_le_bytes()));
        compare(&report, folder, &image, "qed", &format!("damage {number}"));
    }
    report.end();
}

#[test]
fn whoever_changes_an_image_that_was_not_closed_repairs_it_first() {
    let scratch = Scratch::new("repair-dirty");
    let folder = scratch.path();
    let sound = make(folder, "compat=1.1", &mut Dice::new(1));
    fs::write(folder.join("image"), sound).expect("an image");
    maker().img().folder(folder).args(["create", "-q", "-f", "qcow2", "below", "64k"]).must();
    maker().img().folder(folder).args(["rebase", "-u", "-b", "below", "-F", "qcow2", "image"]).must();
    let mut image = fs::read(folder.join("image")).expect("an image");
    let block = word(&image, word(&image, 48)) as usize;
    image[79] |= 1;
    image[block + 2 * 5 + 1] = 7;
    fs::write(folder.join("source.raw"), [7; 4096]).expect("a source");
    let changes: [&[&str]; 3] = [
        &["resize", "-f", "qcow2"],
        &["convert", "-n", "-f", "raw", "-O", "qcow2", "source.raw"],
        &["commit", "-d", "-f", "qcow2"],
    ];
    for (oracle, change) in oracles().iter().flat_map(|oracle| changes.map(|change| (oracle, change))) {
        for name in ["ours", "theirs"] {
            fs::write(folder.join(name), &image).expect("an image");
        }
        let size = (change[0] == "resize").then_some("16M");
        let ask = |run: Run, name: &str| run.folder(folder).args(change).arg(name).args(size.as_slice()).go();
        let want = ask(oracle.img(), "theirs");
        let got = ask(program().quirky(&oracle.version, Cell::all()[0]), "ours");
        let about = format!("{} {change:?}", oracle.version);
        assert_eq!((want.out(), want.err(), want.code()), (got.out(), got.err(), got.code()), "{about}");
        assert_eq!(oracle.img().folder(folder).args(["check", "ours"]).go().code(), Some(0), "{about}");
    }
    // What is marked as corrupt is left to those who ask for a repair.
    image[79] |= 2;
    for oracle in asked() {
        fs::write(folder.join("image"), &image).expect("an image");
        for words in [&["resize", "-f", "qcow2", "image", "16M"][..], &["snapshot", "-c", "one", "image"]] {
            let want = oracle.img().folder(folder).args(words).go();
            let got = program().quirky(&oracle.version, Cell::all()[0]).folder(folder).args(words).go();
            assert_eq!((want.err(), want.code()), (got.err(), got.code()), "{} {words:?}", oracle.version);
        }
    }
    image[79] &= !2;
    for cell in Cell::all() {
        fs::write(folder.join("ours"), &image).expect("an image");
        let ran = program().native(*cell).folder(folder).args(["resize", "ours", "16M"]).go();
        assert!(ran.code() == Some(0) && ran.err().contains("ours: Repairing cluster 5"), "{}", ran.err());
        let ran = program().native(*cell).folder(folder).args(["check", "--output=json", "-r", "all", "ours"]).go();
        assert!(ran.code() == Some(0) && !ran.out().contains("fixed"), "{}", ran.out());
        fs::write(folder.join("ours"), &image).expect("an image");
        let copy = ["convert", "-n", "-f", "raw", "-O", "qcow2", "source.raw", "ours"];
        let ran = program().native(*cell).folder(folder).args(copy).go();
        assert!(ran.code() == Some(0) && ran.err().contains("ours: Repairing cluster 5"), "{}", ran.err());
    }
}

#[test]
fn the_second_footer_is_made_like_the_first() {
    let scratch = Scratch::new("repair-vpc");
    let folder = scratch.path();
    maker().img().folder(folder).args(["create", "-q", "-f", "vpc", "a.vpc", "16M"]).must();
    maker().io().folder(folder).args(["-f", "vpc", "-c", "write -P 7 1M 64k", "a.vpc"]).must();
    let sound = fs::read(folder.join("a.vpc")).expect("an image");
    let mut spoilt = sound.clone();
    let end = sound.len();
    spoilt[end - 300] ^= 1;
    let cut = sound[..end - 512].to_vec();
    for cell in Cell::all() {
        for damaged in [&spoilt, &cut] {
            fs::write(folder.join("a.vpc"), damaged).expect("an image");
            let ask =
                |words: &[&str]| program().native(*cell).folder(folder).arg("check").args(words).arg("a.vpc").go();
            assert_eq!(ask(&[]).code(), Some(2));
            let ran = ask(&["-r", "all"]);
            assert_eq!(ran.code(), Some(0), "{}{}", ran.out(), ran.err());
            assert!(fs::read(folder.join("a.vpc")).expect("an image") == sound);
        }
    }
}

#[test]
fn second_grain_tables_are_made_like_the_first() {
    let scratch = Scratch::new("repair-vmdk");
    let folder = scratch.path();
    maker().img().folder(folder).args(["create", "-q", "-f", "vmdk", "a.vmdk", "16M"]).must();
    maker().io().folder(folder).args(["-f", "vmdk", "-c", "write -P 7 1M 640k", "a.vmdk"]).must();
    let sound = fs::read(folder.join("a.vmdk")).expect("an image");
    // The second directory begins behind the descriptor, and leads to the table behind it.
    let (directory, table) = (21 * 512, 22 * 512);
    let mut spoilt = sound.clone();
    spoilt[table + 4 * 20] ^= 1;
    let mut lost = sound.clone();
    lost[directory + 2] = 0xff;
    for cell in Cell::all() {
        for damaged in [&spoilt, &lost] {
            fs::write(folder.join("a.vmdk"), damaged).expect("an image");
            let ask =
                |words: &[&str]| program().native(*cell).folder(folder).arg("check").args(words).arg("a.vmdk").go();
            let ran = ask(&[]);
            assert!(!ran.err().is_empty(), "{}", ran.out());
            let ran = ask(&["-r", "all"]);
            assert_eq!(ran.code(), Some(0), "{}{}", ran.out(), ran.err());
            assert!(ran.err().contains("repaired: grain table 0 of 'a.vmdk'"), "{}", ran.err());
            assert!(ask(&[]).err().is_empty(), "{}", ask(&[]).err());
            let ran = maker().img().folder(folder).args(["check", "a.vmdk"]).go();
            assert_eq!(ran.code(), Some(0), "{}", ran.err());
        }
        // As the real program, nothing is repaired.
        let ran = program().quirky("10.0.2", *cell).folder(folder).args(["check", "-r", "all", "a.vmdk"]).go();
        let theirs = maker().img().folder(folder).args(["check", "-r", "all", "a.vmdk"]).go();
        assert_eq!((ran.code(), ran.err()), (theirs.code(), theirs.err()));
    }
}
