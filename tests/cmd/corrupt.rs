//! Images whose maps are wrong somewhere, held against the real program: what is said where, and what is made all the same.

use crate::against::{against, exact, making};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Their names, and what each is:
/// - `entry`: a cluster that lies where none can, in the middle of a run;
/// - `table`: a table that lies where none can;
/// - `below`: `entry` below another image;
/// - `old`: version 2, with a cluster of zeroes;
/// - `packed`: compressed bytes that are none;
/// - `both`: the same, and further on what `entry` has;
/// - `qed`: of another format, which has other words for it.
const IMAGES: &[&str] =
    &["entry.qcow2", "table.qcow2", "below.qcow2", "old.qcow2", "packed.qcow2", "both.qcow2", "disk.qed"];

const COMPARE: &[&str] = &["IMAGE good.qcow2", "good.qcow2 IMAGE", "disk.raw IMAGE"];
const STRICT: &[&str] = &["-s IMAGE good.qcow2"];
const MAP: &[&str] = &["IMAGE", "--output=json IMAGE", "-s 2M IMAGE"];
const MEASURE: &[&str] = &["-O qcow2 IMAGE", "-O raw IMAGE"];
const DD: &[&str] = &["if=IMAGE of=>", "if=IMAGE of=> bs=64k skip=17", "if=IMAGE of=> bs=64k count=3"];
const BENCH: &[&str] = &["-c 2 -s 64k -o 2M IMAGE"];
const CONVERT: &[&str] = &[
    "-O raw IMAGE >",
    "-W -m 1 -O raw IMAGE >",
    "-p -O raw IMAGE >",
    "-S 0 -O raw IMAGE >",
    "-O raw disk.raw IMAGE disk.raw >",
    "-m 1 --salvage -O raw IMAGE >",
    "-m 1 --salvage -O raw disk.raw IMAGE disk.raw >",
];
/// Copies over what is there, which must not be touched before the map has been seen.
const OVER: &[&str] = &["-n -O raw IMAGE >", "-n -O raw disk.raw IMAGE >"];

const LEN: usize = 4 << 20;
const CLUSTER: u64 = 64 << 10;
/// The entry of `entry` that is wrong.
const WRONG: u64 = 18;

fn number(image: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    image.read_exact_at(&mut bytes, at).expect("a table");
    u64::from_be_bytes(bytes)
}

fn put(image: &File, at: u64, number: u64) {
    image.write_all_at(&number.to_be_bytes(), at).expect("a table");
}

/// The offset in an entry.
fn offset(entry: u64) -> u64 {
    entry & 0x00ff_ffff_ffff_fe00
}

fn make(scratch: &Scratch) {
    let folder = scratch.path();
    let letters = |n: u32| b'a' + (n.wrapping_mul(2_654_435_761) >> 29) as u8;
    let mut disk: Vec<u8> = (0..LEN as u32).map(letters).collect();
    disk[128 << 10..1 << 20].fill(0);
    scratch.put("disk.raw", &disk);
    let img = |line: &str| _ = maker().img().folder(folder).args(line.split(' ')).must();
    img("convert -f raw -O qcow2 disk.raw good.qcow2");
    img("convert -f raw -O qcow2 -o compat=0.10 disk.raw old.qcow2");
    img("convert -f raw -O qcow2 -c disk.raw packed.qcow2");
    img("convert -f raw -O qed disk.raw disk.qed");
    let copy = |from: &str, to: &str| _ = std::fs::copy(folder.join(from), folder.join(to)).expect("a copy");
    ["entry.qcow2", "table.qcow2"].into_iter().for_each(|name| copy("good.qcow2", name));
    copy("packed.qcow2", "both.qcow2");
    let file = |name: &str| File::options().read(true).write(true).open(folder.join(name)).expect("an image");
    let open = |name: &str| {
        let image = file(name);
        let l1 = number(&image, 40);
        let l2 = offset(number(&image, l1));
        (image, l1, l2)
    };
    let (image, _, l2) = open("entry.qcow2");
    put(&image, l2 + 8 * WRONG, number(&image, l2 + 8 * WRONG) | 512);
    let (image, l1, _) = open("table.qcow2");
    put(&image, l1, number(&image, l1) | 512);
    let (image, _, l2) = open("old.qcow2");
    put(&image, l2 + 8 * WRONG, number(&image, l2 + 8 * WRONG) | 1);
    for name in ["packed.qcow2", "both.qcow2"] {
        let (image, _, l2) = open(name);
        let place = number(&image, l2 + 8 * 20) & ((1 << 54) - 1);
        image.write_all_at(&[0xff; 3000], place).expect("damage");
    }
    let (image, _, l2) = open("both.qcow2");
    put(&image, l2 + 8 * 40, (1 << 63) | (5 * CLUSTER) | 512);
    img("create -q -f qcow2 -u -b entry.qcow2 -F qcow2 below.qcow2 4M");
    let image = file("disk.qed");
    let little = |at: u64| number(&image, at).swap_bytes();
    let l2 = little(little(40));
    put(&image, l2 + 8 * WRONG, 0x0123_4567u64.swap_bytes());
}

fn lines(patterns: &[&str]) -> Vec<String> {
    IMAGES.iter().flat_map(|image| patterns.iter().map(move |line| line.replace("IMAGE", image))).collect()
}

fn texts(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

#[test]
fn readers_say_what_the_real_program_says() {
    let scratch = Scratch::new("corrupt");
    make(&scratch);
    let report = Report::new("cmd corrupt");
    for (verb, patterns) in [("compare", COMPARE), ("map", MAP), ("measure", MEASURE), ("bench", BENCH)] {
        let patterns = lines(patterns);
        let normal = if verb == "bench" { timeless } else { exact };
        against(&report, scratch.path(), verb, &texts(&patterns), normal, |_| true);
    }
    // 5.2 tells images apart by whether their files have holes as well.
    let strict = lines(STRICT);
    against(&report, scratch.path(), "compare", &texts(&strict), exact, |oracle| oracle.version != "5.2");
    report.end();
}

/// Without how long it took.
fn timeless(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.lines().filter(|line| !line.starts_with("Run completed"));
    lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

#[test]
fn copies_say_and_make_what_the_real_program_does() {
    let scratch = Scratch::new("corrupt-copies");
    make(&scratch);
    let report = Report::new("cmd corrupt copies");
    // Bytes that are broken are met by several of the real program's routines at once, if it may have them.
    let is_sure = |line: &String| !line.contains("packed") || line.contains("-m 1");
    let mut copies = lines(CONVERT);
    copies.retain(is_sure);
    making(&report, scratch.path(), "convert", &texts(&copies), None, |_| true);
    making(&report, scratch.path(), "dd", &texts(&lines(DD)), None, |_| true);
    // Where bytes are broken and not the map, the real program has written some of them.
    let over: Vec<String> = lines(OVER).into_iter().filter(|line| !line.contains("packed")).collect();
    making(&report, scratch.path(), "convert", &texts(&over), Some(&[7; 2 * LEN]), |_| true);
    report.end();
}

#[test]
fn the_native_face_names_the_place_and_tells_a_range_once() {
    let scratch = Scratch::new("corrupt-native");
    make(&scratch);
    let good = std::fs::read(scratch.path().join("disk.raw")).expect("a disk");
    let lost = (WRONG * CLUSTER) as usize..((WRONG + 1) * CLUSTER) as usize;
    for cell in Cell::all() {
        let ask = |words: &str| program().native(*cell).folder(scratch.path()).args(words.split(' ')).go();
        let place = "Cluster allocation offset 0x90200 unaligned (L2 offset: 0x40000, L2 index: 0x12) at offset 262288";
        let ran = ask("convert -O raw entry.qcow2 o");
        assert_eq!(ran.end, End::Code(1));
        let about = "instar: error while reading block status at offset 1179648: ";
        assert!(ran.err().starts_with(&format!("{about}{place}")), "{}", ran.err());
        assert!(ran.err().ends_with(" of 'entry.qcow2'\n"), "{}", ran.err());
        let ran = ask("convert --salvage -O raw entry.qcow2 o");
        assert_eq!(ran.end, End::Code(0));
        let about = "instar: warning: error while reading block status at offset 1179648: ";
        assert!(ran.err().starts_with(&format!("{about}{place}")) && ran.err().lines().count() == 1, "{}", ran.err());
        let made = std::fs::read(scratch.path().join("o")).expect("what was made");
        let want = [&good[..lost.start], &vec![0; lost.len()], &good[lost.end..]].concat();
        assert!(made == want, "{}", cell.name());
        // No half documents.
        let ran = ask("map --output=json entry.qcow2");
        assert_eq!((ran.end, ran.out()), (End::Code(1), String::new()));
    }
}
