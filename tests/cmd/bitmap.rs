//! `bitmap`: what is said and what becomes of the image, held against every version of the real program.

use crate::against::differences;
use instar_formats::qcow2::open::open;
use instar_image::bitmap::Bitmap;
use instar_image::{File, Options};
use instar_testkit::folder::Folder;
use instar_testkit::images::each;
use instar_testkit::oracle::{Oracle, maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Ran, Run};
use instar_testkit::twin::scribble;
use instar_tests::marks::marks;
use instar_tests::report::Report;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is asked of `a.q`, which has `x` and `y`, and the broken `z`; `b.q` is its like, `fine.q` too, and `big.q` has a
/// larger disk; all have `x`.
const LINES: &[&str] = &[
    "--add a.q new",
    "--add --disable a.q new",
    "--add -g 512 a.q new",
    "--add -g 2G a.q new",
    "--add -g 4G a.q new",
    "--add -g 0 a.q new",
    "--add -g 100 a.q x",
    "--add -g 3k a.q new",
    "--add a.q x",
    "--add a.q z",
    "--add --add a.q new",
    "--add --remove a.q new",
    "--add --remove --remove a.q new",
    "--remove a.q x",
    "--remove a.q z",
    "--remove --add -g 4k a.q x",
    "--remove a.q nosuch",
    "--remove --merge y a.q x",
    "--clear a.q x",
    "--clear a.q z",
    "--clear a.q nosuch",
    "--disable a.q x",
    "--disable --disable --enable --clear a.q y",
    "--enable a.q z",
    "--disable --clear a.q z",
    "--disable --merge nosuch a.q x",
    "--disable --merge z a.q x",
    "--merge y a.q x",
    "--merge x a.q y",
    "--merge x a.q x",
    "--merge x a.q z",
    "--merge nosuch a.q z",
    "--merge nosuch a.q nosuch",
    "--clear --merge x a.q x",
    "--add --merge x --merge y a.q new",
    "--add -g 1M --merge x --merge y --disable a.q new",
    "--remove-all a.q",
    "--remove-all --add a.q new",
    "--add --remove-all a.q new",
    "--clear --remove-all a.q z",
    "--remove-all --merge y a.q x",
    "--remove-all -f raw plain.raw",
    "--remove-all old.q",
    "--merge x -b b.q a.q x",
    "--merge x -b b.q -F qcow2 a.q y",
    "--merge x --merge y --merge x -b fine.q a.q y",
    "--merge x -b big.q a.q x",
    "--merge x -b a.q big.q x",
    "--merge z -b b.q a.q x",
    "--merge z -b big.q a.q x",
    "--merge nosuch -b b.q a.q x",
    "--merge x -b a.q a.q x",
    "--merge x -b nosuch a.q x",
    "--merge x -b b.q nosuch x",
    "--merge x -b b.q -F vmdk a.q x",
    "--merge x -b b.q -F nosuch a.q x",
    "--merge x -b plain.raw -F raw a.q x",
    "--merge x -b a.q -F raw a.q x",
    "--merge x -b old.q a.q x",
    "--merge x -b over.q a.q x",
    "--image-opts --merge x -b b.q driver=qcow2,file.filename=a.q x",
    "--image-opts --merge x -b driver=qcow2,file.filename=b.q driver=qcow2,file.filename=a.q x",
    "--image-opts --add driver=qcow2,read-only=on,file.filename=a.q new",
    "--add over.q new",
    "--add old.q new",
    "--remove old.q new",
    "--add -g 1 old.q new",
    "--add taken.q new",
    "--add outside.q new",
    "--add huge.q new",
    "--add -g 512 huge.q new",
    "--add empty.q new",
    "--add --remove empty.q new",
    "--add --add empty.q new",
    "--add -f raw plain.raw new",
    "--add plain.raw new",
    "--remove -f raw plain.raw new",
    "--add disk.vmdk new",
    "--merge x disk.vmdk new",
    "--add corrupt.q new",
    "--remove corrupt.q new",
    "--add dirty.q new",
    "--add sealed.q new",
    "--add --object secret,id=s,data=x --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=sealed.q new",
    "--merge x -b sealed.q a.q x",
    "--add -f vmdk a.q new",
    "--add nosuch new",
    "--add a.q nönäme",
];

fn img(folder: &Path, words: &str) {
    maker().img().folder(folder).args(words.split(' ')).must();
}

/// Says of a bitmap that it was not kept properly.
fn spoil(path: &Path, name: &str) {
    let io = Folder::new(path.parent().expect("a folder"));
    let granted = io.open(path.file_name().expect("a name").as_encoded_bytes()).expect("an image");
    let checked = open(&File::new(&io, &granted), &Options::default()).expect("an image");
    let bitmap = checked.bitmaps.iter().find(|bitmap| bitmap.name == name.as_bytes()).expect("the bitmap");
    let flags = if bitmap.auto { 3u32 } else { 1 };
    let file = fs::File::options().write(true).open(path).expect("an image");
    file.write_all_at(&flags.to_be_bytes(), bitmap.at + 12).expect("a write");
}

fn make(folder: &Path) {
    for (name, size, options) in [
        ("a.q", "3M", "cluster_size=4k"),
        ("b.q", "3M", "cluster_size=64k"),
        ("fine.q", "3M", "cluster_size=512"),
        ("big.q", "4M", "cluster_size=64k"),
    ] {
        img(folder, &format!("create -q -f qcow2 -o {options} {name} {size}"));
        img(folder, &format!("bitmap --add -g {} {name} x", if name == "fine.q" { "512" } else { "64k" }));
        img(folder, &format!("bitmap --add -g 4k {name} y"));
        img(folder, &format!("bitmap --add --disable {name} z"));
        scribble(folder, "qcow2", name, 3 << 20, name.len() as u64, 3);
        spoil(&folder.join(name), "z");
    }
    img(folder, "create -q -f qcow2 -o compat=0.10 old.q 1M");
    img(folder, "create -q -f qcow2 -u -b missing.raw -F raw over.q 3M");
    img(folder, "bitmap --add over.q x");
    img(folder, "create -q -f qcow2 taken.q 1M");
    img(folder, "snapshot -c s taken.q");
    img(folder, "create -q -f qcow2 -o data_file=outside.data outside.q 1M");
    img(folder, "create -q -f qcow2 huge.q 100T");
    img(folder, "create -q -f qcow2 empty.q 0");
    img(folder, "create -q -f raw plain.raw 1M");
    img(folder, "create -q -f vmdk disk.vmdk 1M");
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    img(folder, &format!("create -q --object secret,id=s,data=x -f qcow2 -o {luks} sealed.q 1M"));
    for (name, bits) in [("corrupt.q", 2), ("dirty.q", 1)] {
        img(folder, &format!("create -q -f qcow2 {name} 1M"));
        img(folder, &format!("bitmap --add {name} x"));
        let file = fs::File::options().write(true).open(folder.join(name)).expect("an image");
        file.write_all_at(&[bits], 79).expect("a write");
    }
}

/// The digits of a node's name are drawn.
fn drawn(answer: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    let mark = b"'#block1";
    let plain = b" to #block1";
    for at in 0..answer.len() {
        let rest = &answer[at..];
        let len = [&mark[..], plain].iter().find(|mark| rest.starts_with(mark)).map(|mark| mark.len());
        if let Some(len) = len {
            answer[at + len..].iter_mut().take(2).for_each(|digit| *digit = b'N');
        }
    }
    answer
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the images").flatten() {
        Run::new("cp").args(["--sparse=always"]).arg(entry.path()).arg(to).must();
    }
}

/// Whether both images have the same bitmaps, and ours is sound if theirs is.
fn compare(ours: &Path, theirs: &Path, name: &str) -> String {
    let (mine, other) = (marks(&ours.join(name)), marks(&theirs.join(name)));
    let mut out = String::new();
    if mine != other {
        let told = |all: &[(Bitmap, Vec<u8>)]| {
            let sum = |bits: &[u8]| bits.iter().map(|byte| byte.count_ones()).sum::<u32>();
            all.iter().map(|(bitmap, bits)| format!("\n    {bitmap:?} {} set", sum(bits))).collect::<String>()
        };
        out += &format!("  bitmaps of {name}: {}\n  not {}\n", told(&mine), told(&other));
    }
    let check = |folder: &Path| maker().img().folder(folder).args(["check", "-q", name]).go().code();
    let (mine, other) = (check(ours), check(theirs));
    if mine != other {
        out += &format!("  check of {name}: {mine:?}, not {other:?}\n");
    }
    out
}

/// Where each of the two works.
fn twins(scratch: &Scratch, name: &str) -> (PathBuf, PathBuf) {
    (scratch.folder(&format!("{name}-ours")), scratch.folder(&format!("{name}-theirs")))
}

#[test]
fn every_answer_is_the_real_programs_and_so_is_every_bitmap() {
    let scratch = Scratch::new("bitmap");
    let source = scratch.folder("source");
    make(&source);
    let report = Report::new("cmd bitmap");
    let all: Vec<(usize, &&str, &Oracle)> =
        LINES.iter().enumerate().flat_map(|(n, line)| oracles().iter().map(move |oracle| (n, line, oracle))).collect();
    each(&all, |_, (number, line, oracle)| {
        let words: Vec<&str> = line.split(' ').collect();
        let (ours, theirs) = twins(&scratch, &format!("{number}-{}", oracle.version));
        [&ours, &theirs].iter().for_each(|folder| copy(&source, folder));
        let cell = Cell::all()[(number + oracle.version.len()) % Cell::all().len()];
        let want = oracle.img().folder(&theirs).arg("bitmap").args(&words).go();
        let got = program().quirky(&oracle.version, cell).folder(&ours).arg("bitmap").args(&words).go();
        report.tried();
        let mut differs = differences(&want, &got, drawn);
        for name in ["a.q", "big.q", "over.q", "taken.q", "outside.q", "huge.q", "empty.q", "dirty.q", "corrupt.q"] {
            if line.contains(name) {
                differs += &compare(&ours, &theirs, name);
            }
        }
        if !differs.is_empty() {
            report.fault(format!("{} bitmap {line}\n{differs}", oracle.version));
        }
        [ours, theirs].iter().for_each(|folder| _ = fs::remove_dir_all(folder));
    });
    report.end();
}

/// One command line, drawn.
fn line(dice: &mut Dice) -> Vec<String> {
    let name = |dice: &mut Dice| dice.one(&["x", "y", "z", "v", "w"]).to_owned();
    let own = name(dice);
    let mut words: Vec<String> = Vec::new();
    let mut adds = false;
    let mut merges = false;
    for _ in 0..1 + dice.below(4) {
        let action =
            dice.one(&["--add", "--add", "--remove", "--clear", "--enable", "--disable", "--merge", "--merge"]);
        words.push(action.into());
        adds |= action == "--add";
        if action == "--merge" {
            merges = true;
            words.push(name(dice));
        }
    }
    if adds && dice.once_in(2) {
        words.extend(["-g".into(), (512u64 << dice.below(10)).to_string()]);
    }
    if merges && dice.once_in(3) {
        words.extend(["-b".into(), "b.q".into()]);
    }
    words.extend(["a.q".into(), own]);
    words
}

#[test]
fn many_actions_in_a_row_leave_what_the_real_program_leaves() {
    let scratch = Scratch::new("bitmap rows");
    let report = Report::new("cmd bitmap rows");
    let some = |oracle: &&Oracle| ["5.2", "10.0.2", "11.1.2"].contains(&&oracle.version[..]);
    let all: Vec<(u64, &Oracle)> =
        (1..=12).flat_map(|seed| oracles().iter().filter(some).map(move |oracle| (seed, oracle))).collect();
    each(&all, |_, (seed, oracle)| {
        let mut dice = Dice::new(*seed);
        let (ours, theirs) = twins(&scratch, &format!("{seed}-{}", oracle.version));
        let clusters = ["512", "1k", "4k", "64k", "2M"];
        let size = 512 * (1 + dice.below(8 << 10));
        let unit = dice.one(&clusters);
        img(&ours, &format!("create -q -f qcow2 -o cluster_size={unit} a.q {size}"));
        img(&ours, &format!("create -q -f qcow2 -o cluster_size={} b.q {size}", dice.one(&clusters)));
        for (name, granularity) in [("x", 512), ("y", 8192), ("z", 1 << 20)] {
            img(&ours, &format!("bitmap --add -g {granularity} b.q {name}"));
        }
        scribble(&ours, "qcow2", "b.q", size, seed + 50, 3);
        if dice.once_in(2) {
            img(&ours, "bitmap --add -g 4k a.q z");
            spoil(&ours.join("a.q"), "z");
        }
        if dice.once_in(2) {
            img(&ours, "snapshot -c s a.q");
        }
        copy(&ours, &theirs);
        for step in 0..20u64 {
            let words = line(&mut dice);
            let want = oracle.img().folder(&theirs).arg("bitmap").args(&words).go();
            let cell = Cell::all()[(step as usize) % Cell::all().len()];
            let got = program().quirky(&oracle.version, cell).folder(&ours).arg("bitmap").args(&words).go();
            report.tried();
            let differs = differences(&want, &got, drawn) + &compare(&ours, &theirs, "a.q");
            if !differs.is_empty() {
                return report.fault(format!("seed {seed}, step {step}: bitmap {}\n{differs}", words.join(" ")));
            }
            if dice.once_in(3) {
                [&ours, &theirs].iter().for_each(|folder| scribble(folder, "qcow2", "a.q", size, seed * 100 + step, 2));
            }
        }
        let same = maker().img().arg("compare").arg(ours.join("a.q")).arg(theirs.join("a.q")).go();
        if same.code() != Some(0) {
            report.fault(format!("seed {seed}: {}{}", same.out(), same.err()));
        }
        for folder in [&ours, &theirs] {
            let _ = fs::remove_dir_all(folder);
        }
    });
    report.end();
}

#[test]
fn bitmaps_that_are_copied_are_those_of_the_real_program() {
    let scratch = Scratch::new("bitmap copies");
    let (ours, theirs) = twins(&scratch, "copy");
    for seed in 1..=6u64 {
        let mut dice = Dice::new(seed);
        let size = 512 * (1 + dice.below(8 << 10));
        for folder in [&ours, &theirs] {
            fs::read_dir(folder).expect("a folder").flatten().for_each(|entry| _ = fs::remove_file(entry.path()));
        }
        img(&ours, &format!("create -q -f qcow2 -o cluster_size={} a.q {size}", dice.one(&["512", "4k", "64k"])));
        img(&ours, "bitmap --add -g 512 a.q x");
        img(&ours, "bitmap --add -g 64k a.q y");
        scribble(&ours, "qcow2", "a.q", size, seed, 4);
        img(&ours, "bitmap --disable a.q y");
        img(&ours, &format!("create -q -f qcow2 old.q {size}"));
        img(&ours, "bitmap --add old.q before");
        copy(&ours, &theirs);
        for to in ["-O qcow2 a.q new.q", "-n -O qcow2 a.q old.q"] {
            let words = ["convert", "--bitmaps"].into_iter().chain(to.split(' '));
            let name = to.rsplit(' ').next().expect("a name");
            let go = |run: Run, folder: &Path| run.folder(folder).args(words.clone()).go();
            let want = go(maker().img(), &theirs);
            let got = go(program().quirky("10.0.2", Cell::Process), &ours);
            let differs = differences(&want, &got, drawn) + &compare(&ours, &theirs, name);
            assert!(differs.is_empty(), "seed {seed}, {to}: {differs}");
        }
        // The same again is the same file.
        let again = ["convert", "--bitmaps", "-O", "qcow2", "a.q", "again.q"];
        program().quirky("10.0.2", Cell::Process).folder(&ours).args(again).must();
        let read = |name: &str| fs::read(ours.join(name)).expect("a copy");
        assert!(read("again.q") == read("new.q"), "seed {seed}");
    }
}

#[test]
fn natively_words_name_the_file_and_nothing_is_kept_of_a_read_only_one() {
    let scratch = Scratch::new("bitmap native");
    let path = scratch.path();
    img(path, "create -q -f qcow2 -o compat=0.10 old.q 1M");
    img(path, "create -q -f qcow2 empty.q 0");
    img(path, "create -q -f qcow2 a.q 1M");
    let run =
        |words: &str| -> Ran { program().native(Cell::Process).folder(path).arg("bitmap").args(words.split(' ')).go() };
    let ran = run("--add old.q x");
    assert_eq!(ran.end, End::Code(1));
    assert!(ran.err().contains("persistent in 'old.q': Cannot store dirty bitmaps in qcow2 v2 files"), "{}", ran.err());
    let ran = run("--add empty.q x");
    assert_eq!((ran.end, ran.err().lines().count()), (End::Code(1), 1), "{}", ran.err());
    assert!(ran.err().contains("no bytes"), "{}", ran.err());
    let ran = run("--add -g 1k --disable a.q x");
    assert_eq!((ran.end, ran.err()), (End::Code(0), String::new()));
    let want = Bitmap { name: b"x".to_vec(), granularity: 1024, is_enabled: false, is_broken: false };
    assert_eq!(marks(&path.join("a.q")), [(want, vec![0; 128])]);
    let file = path.join("a.q");
    let before = fs::read(&file).expect("an image");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).expect("a mode");
    let ran = run("--clear --merge nosuch a.q x");
    assert_eq!((ran.end, ran.err().lines().count()), (End::Code(1), 1), "{}", ran.err());
    assert!(fs::read(&file).expect("an image").len() >= before.len());
}
