//! The sizes at both ends: nothing, one sector, the most that a format holds, and what it does not hold any more.

use crate::formats::{FORMATS, Format};
use crate::judge::{accepted, cell, ours, quietly, seed, sound};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::program;
use instar_tests::report::{Report, difference};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Images of the largest sizes, and of one too many: the words after `create -q -f`, and the name.
const LINES: &[&str] = &[
    "raw x 0",
    "raw x 1",
    "raw x 9223372036854775295",
    "raw x 9223372036854775296",
    "raw x 9223372036854775807",
    "raw x 9223372036854775808",
    "qcow2 x 0",
    "qcow2 x 1",
    "qcow2 -o cluster_size=512 x 137438953472",
    "qcow2 -o cluster_size=512 x 137438953473",
    "qcow2 -o cluster_size=512 x 513M",
    "qcow2 -o cluster_size=512,refcount_bits=64 x 1G",
    "qcow2 -o cluster_size=1k,refcount_bits=32 x 9G",
    "qcow2 -o cluster_size=512,extended_l2=on x 1M",
    "qcow2 x 2251799813685248",
    "qcow2 x 2251799813685249",
    "qcow2 -o extended_l2=on x 1125899906842624",
    "qcow2 -o extended_l2=on x 1125899906842625",
    "qcow2 -o cluster_size=2M x 2305843009213693952",
    "qcow2 -o cluster_size=2M x 2305843009213693953",
    "qcow2 -o cluster_size=4M x 1M",
    "qcow2 -o cluster_size=256 x 1M",
    "qcow2 -o cluster_size=1000 x 1M",
    "qcow2 -o refcount_bits=128 x 1M",
    "qcow2 -o refcount_bits=3 x 1M",
    "qcow x 0",
    "qcow x 1",
    "qcow x 2199023255040",
    "qed x 0",
    "qed x 1",
    "qed x 70368744177664",
    "qed x 70368744177665",
    "qed -o cluster_size=4k,table_size=2 x 4294967296",
    "qed -o cluster_size=4k,table_size=2 x 4294967297",
    "qed -o cluster_size=64M,table_size=16 x 9223372036854775296",
    "qed -o cluster_size=2k x 1M",
    "qed -o cluster_size=128M x 1M",
    "qed -o table_size=32 x 1M",
    "vmdk x 0",
    "vmdk x 1",
    "vmdk -o subformat=streamOptimized x 0",
    "vmdk -o subformat=twoGbMaxExtentSparse x 2147483648",
    "vmdk -o subformat=twoGbMaxExtentSparse x 2147483649",
    "vmdk -o subformat=twoGbMaxExtentFlat x 4294967808",
    "vmdk -o subformat=monolithicFlat x 1099511627776",
    "vpc x 0",
    "vpc x 1",
    "vpc x 2190433320960",
    "vpc x 2190433320961",
    "vpc x 2199023255040",
    "vpc -o force_size=on x 2190433320960",
    "vpc -o force_size=on x 2190433320961",
    "vpc -o subformat=fixed x 136365211648",
    "vpc -o subformat=fixed,force_size=on x 2190433320960",
    "vhdx x 0",
    "vhdx x 1",
    "vhdx x 70368744177664",
    "vhdx x 70368744177665",
    "vhdx -o block_size=1M x 2199023255040",
    "vhdx -o block_size=256M x 70368744177664",
    "vhdx -o block_size=512M x 1M",
    "vhdx -o block_size=1000 x 1M",
    "vhdx -o log_size=1k x 1M",
    "vhdx -o log_size=4G x 1M",
    "vdi x 0",
    "vdi x 1",
    "vdi x 2199023255040",
    "vdi x 562949819203585",
    "vdi x 562949953421312",
    "vdi x 9223372036854775296",
    "parallels x 0",
    "parallels x 1",
    "parallels x 2199023255040",
    "parallels x 9223372036854775296",
    "parallels -o cluster_size=256 x 1M",
    "parallels -o cluster_size=1000 x 1M",
    "luks --object secret,id=s,data=a -o key-secret=s,iter-time=10 x 0",
    "luks --object secret,id=s,data=a -o key-secret=s,iter-time=10 x 70368744177664",
    "luks --object secret,id=s,data=a -o key-secret=s,iter-time=10 x 9223372036854775296",
];

#[test]
fn the_largest_can_be_made_and_one_more_cannot() {
    let scratch = Scratch::new("largest");
    let report = Report::new("writes largest");
    each(LINES, |number, line| {
        let places = ["theirs", "ours"].map(|whose| scratch.folder(&format!("{number}-{whose}")));
        let words: Vec<&str> = ["create", "-q", "-f"].into_iter().chain(line.split(' ')).collect();
        let want = maker().img().called("qemu-img").folder(&places[0]).args(&words).go();
        let run = program().quirky(&maker().version, cell(number as u64)).folder(&places[1]).args(&words);
        let got = run.go();
        report.tried();
        let mut differs = difference("stderr", &want.stderr, &got.stderr);
        if want.end != got.end {
            differs += &format!("  end: {:?}, not {:?}\n", got.end, want.end);
        }
        let len = |folder: &std::path::Path| std::fs::metadata(folder.join("x")).ok().map(|about| about.len());
        let (theirs, ours) = (len(&places[0]), len(&places[1]));
        // Where tables of counts have to grow, others leave more behind.
        let is_less = line.starts_with("qcow2") && ours.is_some() && ours < theirs;
        // Descriptors are as long as the numbers in them.
        let is_text = line.starts_with("vmdk") && theirs.is_some_and(|len| len < 1024);
        if want.code() == Some(0) && theirs != ours && !is_less && !is_text {
            differs += &format!("  {ours:?} bytes, not {theirs:?}\n");
        } else if want.code() != Some(0) && ours.is_some() {
            differs += "  something is left over\n";
        }
        if got.code() == Some(0) && (line.starts_with("qcow2") || line.starts_with("qed")) {
            let format = &line[..line.find(' ').expect("a blank")];
            let ran = maker().img().folder(&places[1]).args(["check", "-f", format, "x"]).go();
            differs += if ran.code() == Some(0) { "" } else { "  it is not clean\n" };
        }
        if !differs.is_empty() {
            report.fault(format!("{line}\n  {}\n{differs}", run.line()));
        }
        places.iter().for_each(|place| _ = std::fs::remove_dir_all(place));
    });
    report.end();
}

/// The longest disk whose sectors 32 bits can count, and what is written here and there on it.
const LONG: u64 = (2 << 40) - 512;
const PLACES: &[u64] = &[512 * 77, (1 << 31) - 1024, 1 << 32, 1 << 40, LONG - 4096, LONG - 512];

#[test]
fn long_disks_are_copied_with_their_last_sector() {
    let scratch = Scratch::new("long");
    let report = Report::new("writes long");
    let source = scratch.path().join("in.raw");
    let file = File::create(&source).expect("a disk");
    file.set_len(LONG).expect("its length");
    for (number, at) in PLACES.iter().enumerate() {
        file.write_all_at(&[number as u8 + 1; 512], *at).expect("a sector");
    }
    // VHD holds less, and what is encrypted has no holes.
    let able = ["raw", "qcow2", "qcow", "qed", "vmdk", "vhdx", "parallels", "vdi"];
    let formats: Vec<&Format> = FORMATS.iter().filter(|format| able.contains(&format.name)).collect();
    each(&formats, |number, format| {
        let folder = scratch.folder(format.name);
        let run = ours(seed() + number as u64).folder(&folder).args(["convert", "-f", "raw", "-O", format.name]);
        let run = run.args(format.asked(&[])).arg("../in.raw").arg("made");
        report.tried();
        // The real program reads all of what it knows no holes of, which takes it hours; it is asked for the places.
        let same = || {
            quietly(&run)?;
            let mut io = maker().io().folder(&folder).args(["-r", "-f", format.name]);
            for (number, at) in PLACES.iter().enumerate() {
                io = io.args(["-c", &format!("read -P {} {at} 512", number + 1)]);
                io = io.args(["-c", &format!("read -P 0 {} 512", at.saturating_sub(512).max(512))]);
            }
            let ran = io.arg("made").go();
            if ran.code() != Some(0) || ran.out().contains("failed") {
                return Err(format!("  {}{}", ran.out(), ran.err()));
            }
            let words = ["compare", "-f", "raw", "-F", format.name, "../in.raw", "made"];
            let ran = ours(seed() + number as u64 + 1).folder(&folder).args(words).go();
            if ran.code() != Some(0) {
                return Err(format!("  {}{}", ran.out(), ran.err()));
            }
            sound(maker(), &folder, format, &format.words("made"))
        };
        if let Err(why) = same() {
            report.fault(format!("{}\n  {}\n{why}", format.name, run.line()));
        }
        let _ = std::fs::remove_dir_all(folder);
    });
    report.end();
}

#[test]
fn the_shortest_disks_are_copied() {
    let scratch = Scratch::new("short");
    let report = Report::new("writes short");
    let lens = [0usize, 1, 511, 512, 513, 1024, 65_535, 65_536, 65_537];
    let cases: Vec<(&Format, usize)> = FORMATS.iter().flat_map(|format| lens.map(|len| (format, len))).collect();
    each(&cases, |number, (format, len)| {
        let folder = scratch.folder(&format!("case{number}"));
        let bytes: Vec<u8> = (0..*len).map(|n| (n % 251) as u8 + 1).collect();
        std::fs::write(folder.join("in.raw"), &bytes).expect("a disk");
        let turn = seed() + number as u64;
        let run = ours(turn).folder(&folder).args(["convert", "-f", "raw", "-O", format.name]);
        let run = run.args(format.asked(&[])).args(["in.raw", "made"]);
        report.tried();
        let words = ["convert", "-f", "raw", "-O", format.name];
        // Keys take the real program seconds to make, and none of these can be refused.
        let theirs =
            (format.name != "luks").then(|| maker().img().folder(&folder).args(words).args(["in.raw", "theirs"]).go());
        let judged = match theirs {
            Some(theirs) if theirs.code() != Some(0) => {
                let got = run.go();
                if got.end == theirs.end && !folder.join("made").exists() { Ok(()) } else { Err(theirs.err()) }
            }
            _ => quietly(&run).and_then(|_| accepted(&folder, format, "made", &bytes, turn)),
        };
        if let Err(why) = judged {
            report.fault(format!("{}, {len} bytes\n  {}\n{why}", format.name, run.line()));
        }
        let _ = std::fs::remove_dir_all(folder);
    });
    report.end();
}
