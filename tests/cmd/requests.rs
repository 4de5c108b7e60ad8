//! Requests of `bench` that write: what becomes of images, held against what the real program makes of the same ones.

use instar_testkit::images::each;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Run};
use instar_tests::report::Report;
use std::fs;
use std::path::Path;

const SECRET: &str = "secret,id=s,data=abc";

/// How images are made, one line after the other, and what the last one is: an option that says so, or all options.
const KINDS: &[(&[&str], &str)] = &[
    (&["create -f raw disk 4M"], "-f raw disk"),
    (&["create -f qcow2 disk 4M"], "-f qcow2 disk"),
    (&["create -f qcow2 disk 4M", "snapshot -c one disk"], "disk"),
    (&["create -f qcow2 -o compat=0.10,cluster_size=512 disk 4M"], "disk"),
    (&["create -f qcow2 -o cluster_size=2M disk 8M"], "disk"),
    (&["create -f qcow2 -o extended_l2=on disk 4M"], "disk"),
    (&["create -f qcow2 -o extended_l2=on,cluster_size=16k disk 4M", "snapshot -c one disk"], "disk"),
    (&["create -f qcow2 -o data_file=data disk 4M"], "disk"),
    (&["create -f qcow2 -o data_file=data,data_file_raw=on disk 4M"], "disk"),
    (&["create -f qcow2 -o lazy_refcounts=on,refcount_bits=1 disk 4M"], "disk"),
    (&["create -f qcow2 -o preallocation=metadata,refcount_bits=64 disk 4M"], "disk"),
    (&["create -f qcow2 disk 4M", "bitmap --add disk marks"], "disk"),
    (&["create -f qcow2 first 4M", "write first", "convert -c -O qcow2 first disk"], "disk"),
    (
        &[
            "create -f qcow2 -o extended_l2=on first 4M",
            "write first",
            "convert -c -O qcow2 -o extended_l2=on first disk",
        ],
        "disk",
    ),
    (&["create -f raw base 3M", "write -f raw base", "create -f qcow2 -b base -F raw disk 4M"], "disk"),
    (&["create -f qcow2 base 5M", "write base", "create -f qcow2 -o extended_l2=on -b base -F qcow2 disk 4M"], "disk"),
    (&["create -f qcow2 base 4M", "write base", "create -f qed -b base -F qcow2 disk"], "disk"),
    (&["create -f qcow2 base 4M", "write base", "create -f qcow -b base -F qcow2 disk"], "disk"),
    (&["create -f vmdk base 4M", "write base", "create -f vmdk -b base -F vmdk disk"], "disk"),
    (&["create -f qcow disk 4M"], "disk"),
    (&["create -f qed disk 4M"], "disk"),
    (&["create -f vdi disk 4M"], "disk"),
    (&["create -f vdi -o static=on disk 4M"], "disk"),
    (&["create -f vmdk disk 4M"], "disk"),
    (&["create -f vmdk -o subformat=monolithicFlat disk 4M"], "disk"),
    (&["create -f vmdk -o subformat=twoGbMaxExtentSparse disk 4M"], "disk"),
    (&["create -f vmdk -o subformat=twoGbMaxExtentFlat disk 4M"], "disk"),
    (&["create -f vpc disk 4M"], "-f vpc disk"),
    (&["create -f vpc -o subformat=fixed disk 4M"], "-f vpc disk"),
    (&["create -f vhdx disk 4M"], "disk"),
    (&["create -f vhdx -o subformat=fixed,block_size=1M disk 4M"], "disk"),
    (&["create -f parallels disk 4M"], "disk"),
    (
        &["create --object SECRET -f luks -o key-secret=s,iter-time=10 disk 4M"],
        "driver=luks,key-secret=s,file.filename=disk",
    ),
    (
        &["create --object SECRET -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 disk 4M"],
        "driver=qcow2,encrypt.key-secret=s,file.filename=disk",
    ),
    (
        &["create --object SECRET -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s,extended_l2=on disk 4M"],
        "driver=qcow2,encrypt.key-secret=s,file.filename=disk",
    ),
    (
        &["create --object SECRET -f qcow -o encrypt.format=aes,encrypt.key-secret=s disk 4M"],
        "driver=qcow,encrypt.key-secret=s,file.filename=disk",
    ),
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| if word == "SECRET" { SECRET.to_owned() } else { word.to_owned() }).collect()
}

/// The words that name the image.
fn named(image: &str) -> Vec<String> {
    match image.contains("driver=") {
        true => ["--object", SECRET, "--image-opts", image].map(str::to_owned).to_vec(),
        false => words(image),
    }
}

/// Writes here and there.
fn scribble(folder: &Path, image: &[String], dice: &mut Dice) {
    let mut run = maker().io().folder(folder);
    for _ in 0..6 {
        let (at, len) = (dice.below(5000) * 512, (1 + dice.below(300)) * 512);
        run = run.args(["-c", &format!("write -P {} {at} {len}", 1 + dice.below(80))]);
    }
    // Some do not know all options; what they make is no worse for it.
    run.args(image).must();
}

fn made(folder: &Path, lines: &[&str], image: &str, dice: &mut Dice) {
    for line in lines {
        match line.strip_prefix("write ") {
            Some(image) => scribble(folder, &words(image), dice),
            None => _ = maker().img().folder(folder).args(words(line)).must(),
        }
    }
    if dice.below(4) > 0 {
        scribble(folder, &named(image), dice);
    }
}

fn copied(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        Run::new("cp").args(["--sparse=always"]).arg(entry.path()).arg(to).must();
    }
}

/// What the requests are like.
fn asked(dice: &mut Dice) -> Vec<String> {
    let depth = 1 + dice.below(20);
    let sizes = ["1", "512", "1000", "4096", "5000", "65536", "70000", "200000"];
    let steps = ["0", "512", "3000", "8192", "65536", "100000", "1000001"];
    let mut words: Vec<String> = ["bench", "-w", "-c"].map(str::to_owned).to_vec();
    words.push((1 + dice.below(60)).to_string());
    words.extend(["-d".to_owned(), depth.to_string(), "-s".to_owned(), dice.one(&sizes).to_owned()]);
    words.extend(["-S".to_owned(), dice.one(&steps).to_owned(), "-o".to_owned(), dice.below(3 << 20).to_string()]);
    words.push(format!("--pattern={}", if dice.once_in(5) { 0 } else { 100 + dice.below(156) }));
    if dice.once_in(2) {
        words.push(format!("--flush-interval={}", depth + dice.below(20)));
    }
    if dice.once_in(3) {
        words.push("--no-drain".to_owned());
    }
    if dice.once_in(3) {
        let modes = ["none", "writethrough", "directsync", "unsafe", "writeback"];
        words.extend(["-t".to_owned(), dice.one(&modes).to_owned()]);
    }
    words
}

/// What is told of an image but for what its file is like, and its bytes.
fn state(folder: &Path, image: &[String]) -> (String, Vec<u8>, String) {
    let ask = |words: &[&str]| newest().img().folder(folder).args(words).args(image);
    let own = |line: &&str| {
        let names = ["disk size", "file length", "cid:", "parent cid", "filename:"];
        !names.iter().any(|name| line.trim_start().starts_with(name))
    };
    let info: Vec<String> = ask(&["info"]).must().out().lines().filter(own).map(str::to_owned).collect();
    let checked = ask(&["check", "-q"]).go();
    let sound = format!("{:?} {}", checked.code(), checked.err());
    let mut convert = vec!["convert", "-O", "raw"];
    convert.extend(image.iter().map(String::as_str));
    newest().img().folder(folder).args(&convert).arg("all.raw").must();
    (info.join("\n"), fs::read(folder.join("all.raw")).expect("its bytes"), sound)
}

#[test]
fn images_become_what_the_real_program_makes_of_them() {
    let report = Report::new("cmd bench -w");
    let rounds: u64 = std::env::var("INSTAR_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let jobs: Vec<(usize, u64)> =
        (0..KINDS.len()).flat_map(|kind| (0..rounds).map(move |round| (kind, round))).collect();
    each(&jobs, |_, (kind, round)| {
        let (lines, image) = KINDS[*kind];
        let (start, theirs) = (Scratch::new("requests start"), Scratch::new("requests theirs"));
        let mut dice = Dice::new(*kind as u64 * 1000 + round);
        made(start.path(), lines, image, &mut dice);
        let image = named(image);
        let asked = asked(&mut dice);
        copied(start.path(), theirs.path());
        let want = newest().img().folder(theirs.path()).args(&asked).args(&image).go();
        for cell in Cell::all() {
            report.tried();
            let ours = Scratch::new("requests ours");
            copied(start.path(), ours.path());
            let run = program().quirky(&newest().version, *cell).folder(ours.path()).args(&asked).args(&image);
            let got = run.go();
            let about = format!("{lines:?}\n{}", run.line());
            if (want.end, want.err()) != (got.end, got.err()) {
                report.fault(format!("{about}\n-{:?} {}+{:?} {}", want.end, want.err(), got.end, got.err()));
            }
            let after = state(ours.path(), &image);
            if want.end != End::Code(0) {
                // How far it came is nobody's business.
                let clean = state(start.path(), &image);
                if (&clean.0, &clean.2) != (&after.0, &after.2) {
                    report.fault(format!("{about}\n{} {}\n{} {}", clean.0, clean.2, after.0, after.2));
                }
                continue;
            }
            let wanted = state(theirs.path(), &image);
            let at = wanted.1.iter().zip(&after.1).position(|(theirs, ours)| theirs != ours);
            if at.is_some() || wanted.1.len() != after.1.len() {
                report.fault(format!("{about}\nbyte {at:?} is another"));
            }
            if (&wanted.0, &wanted.2) != (&after.0, &after.2) {
                report.fault(format!("{about}\n-{} {}\n+{} {}", wanted.0, wanted.2, after.0, after.2));
            }
        }
    });
    report.end();
}

/// How often a program has something made durable.
fn flushes(run: Run, folder: &Path) -> usize {
    let log = folder.join("calls");
    let strace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"].map(std::ffi::OsString::from);
    run.folder(folder).through(strace.into_iter().chain([log.clone().into_os_string()])).must();
    fs::read_to_string(log).expect("calls").lines().filter(|line| line.contains("sync(")).count()
}

#[test]
fn everything_is_made_durable_as_often_as_by_the_real_program() {
    if Run::new("sh").args(["-c", "strace -qq true"]).go().end != End::Code(0) {
        return skipped("flushes that are counted: strace is not here or may not trace");
    }
    let scratch = Scratch::new("requests flushed");
    maker().img().folder(scratch.path()).args(["create", "-q", "-f", "raw", "disk", "1M"]).must();
    let lines = [
        "-c 10 -d 1 --flush-interval 2",
        "-c 11 -d 1 --flush-interval 4",
        "-c 11 -d 4 --flush-interval 4",
        "-c 3 -d 4 --flush-interval 5",
        "-c 40 -d 7 --flush-interval 9",
        "-c 5 -d 1",
        "-c 5 -d 1 -t writethrough",
        "-c 5 -d 1 -t unsafe",
        "-c 10 -d 1 --flush-interval 2 -t unsafe",
    ];
    // Where nobody waits for them, the real program joins those that are under way together.
    let together = ("-c 10 -d 1 --flush-interval 2 --no-drain", Some(5));
    for (line, made) in lines.into_iter().map(|line| (line, None)).chain([together]) {
        let ask = |run: Run| {
            flushes(run.args(["bench", "-w", "-f", "raw"]).args(line.split(' ')).arg("disk"), scratch.path())
        };
        let want = ask(newest().img());
        assert!(made.is_none_or(|made| want <= made), "{line}: {want}");
        for cell in Cell::all() {
            assert_eq!(ask(program().qemu(&newest().version, *cell)), made.unwrap_or(want), "{line} {}", cell.name());
        }
    }
}

#[test]
fn what_a_shortened_file_lacks_of_a_shared_cluster_is_zeroes_in_its_copy() {
    let start = Scratch::new("requests shortened");
    maker().img().folder(start.path()).args(words("create -q -f qcow2 -o extended_l2=on disk 1M")).must();
    // What is given up makes room for what a snapshot needs, so that the file ends with a cluster of the disk.
    let scribble = ["-c", "write -P 7 0 1M", "-c", "discard 0 256k", "disk"];
    maker().io().folder(start.path()).args(scribble).must();
    maker().img().folder(start.path()).args(words("snapshot -c one disk")).must();
    let file = fs::File::options().write(true).open(start.path().join("disk")).expect("a disk");
    file.set_len(file.metadata().expect("its length").len() - 20_000).expect("less of it");
    let ask = |run: Run, name: &str| {
        let folder = Scratch::new(name);
        copied(start.path(), folder.path());
        run.folder(folder.path()).args(words("bench -w -c 1 -s 2048 -o 1015808 disk")).must();
        state(folder.path(), &words("disk"))
    };
    let want = ask(newest().img(), "shortened theirs");
    for cell in Cell::all() {
        assert!(ask(program().quirky(&newest().version, *cell), "shortened ours") == want, "{}", cell.name());
    }
}
