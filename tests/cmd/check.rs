//! `check`, held against the real program.

use crate::against::{against, exact};
use crate::material::make;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_tests::report::Report;
use std::fs;

const CHECK: &[&str] = &[
    "disk.qcow2",
    "--output=json disk.qcow2",
    "overlay.qcow2",
    "--output=json snap.qcow2",
    "packed.qcow2",
    "-q packed.qcow2",
    "-q --output=json packed.qcow2",
    "leaking.qcow2",
    "-q leaking.qcow2",
    "--output=json leaking.qcow2",
    "corrupt.qcow2",
    "--output=json corrupt.qcow2",
    "uncounted.qcow2",
    "--output=json uncounted.qcow2",
    "orphan.qcow2",
    "unmarked.qcow2",
    "-f raw disk.raw",
    "--output=json -f raw disk.raw",
    "nosuch",
    "-T none disk.qcow2",
    "-T nosuch disk.qcow2",
    "-U disk.qcow2",
    "-f qcow2 disk.raw",
    "--image-opts driver=qcow2,file.filename=disk.qcow2",
    "--output=json --image-opts driver=qcow2,file.filename=leaking.qcow2",
];

/// Images with something wrong in them: a count, a place, the place of counts.
fn spoil(scratch: &Scratch) {
    let read = || fs::read(scratch.path().join("disk.qcow2")).expect("an image");
    let word = |bytes: &[u8], at: usize| {
        usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) & !(1 << 63))
            .expect("a place")
    };
    let (l1, counts) = (word(&read(), 40), word(&read(), 48));
    let (l2, block) = (word(&read(), l1), word(&read(), counts));
    let put = |name: &str, at: usize, word: u64| {
        let mut bytes = read();
        bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
        scratch.put(name, &bytes);
    };
    let clusters = read().len().div_ceil(1 << 16);
    put("leaking.qcow2", block + 2 * (clusters + 1), 1 << 48);
    let longer = fs::File::options().write(true).open(scratch.path().join("leaking.qcow2")).expect("an image");
    longer.set_len((clusters as u64 + 3) << 16).expect("a longer image");
    put("corrupt.qcow2", l2, 1 << 40);
    put("uncounted.qcow2", counts, block as u64 + 512);
}

#[test]
fn what_is_wrong_is_what_the_real_program_says() {
    let scratch = Scratch::new("check");
    make(&scratch);
    spoil(&scratch);
    let report = Report::new("cmd check");
    against(&report, scratch.path(), "check", CHECK, exact, |_| true);
    report.end();
}

/// Images of virtual machines, each with a block that lies where there is nothing; a finding of the real program ends
/// its check of the one, and not of the other.
fn machines(scratch: &Scratch) {
    let img = |words: &[&str]| {
        maker().img().folder(scratch.path()).args(words).must();
    };
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    img(&["convert", "-O", "vhdx", "disk.raw", "disk.vhdx"]);
    img(&["convert", "-O", "vpc", "disk.raw", "disk.vpc"]);
    let read = |name: &str| fs::read(scratch.path().join(name)).expect("an image");
    let mut vmdk = read("disk.vmdk");
    let directory = usize::try_from(word(&vmdk, 56) * 512).expect("a place");
    let table = usize::try_from((word(&vmdk, directory) & 0xffff_ffff) * 512).expect("a place");
    vmdk[table + 4..table + 8].copy_from_slice(&0x10_0000u32.to_le_bytes());
    scratch.put("far.vmdk", &vmdk);
    let mut vhdx = read("disk.vhdx");
    let table = usize::try_from(word(&vhdx, 0x3_0020)).expect("a place");
    vhdx[table..table + 8].copy_from_slice(&(1u64 << 40 | 6).to_le_bytes());
    scratch.put("far.vhdx", &vhdx);
    let mut vpc = read("disk.vpc");
    let end = vpc.len();
    vpc[end - 1] ^= 1;
    scratch.put("twofold.vpc", &vpc);
}

const MACHINES: &[&str] = &[
    "disk.vmdk",
    "--output=json disk.vmdk",
    "far.vmdk",
    "--output=json far.vmdk",
    "disk.vhdx",
    "--output=json disk.vhdx",
    "far.vhdx",
    "-q far.vhdx",
    "--output=json far.vhdx",
    "disk.vpc",
    "--output=json twofold.vpc",
];

#[test]
fn disks_of_virtual_machines_are_checked() {
    let scratch = Scratch::new("check-machines");
    make(&scratch);
    machines(&scratch);
    let report = Report::new("cmd check machines");
    against(&report, scratch.path(), "check", MACHINES, exact, |_| true);
    // What is found by a check keeps other verbs from opening the image, and is told there as well.
    against(&report, scratch.path(), "map", &["far.vhdx", "-f vhdx far.vhdx"], exact, |_| true);
    against(&report, scratch.path(), "info", &["far.vhdx"], exact, |_| true);
    report.end();
    for cell in Cell::all() {
        for (name, phrase) in [
            ("far.vmdk", "grain 1 is outside of 'far.vmdk': offset 536870912, 65536 bytes"),
            ("far.vhdx", "block 0 is outside of 'far.vhdx': offset 1099511627776, "),
            ("twofold.vpc", "the checksum of the footer is wrong"),
        ] {
            let ran = program().native(*cell).folder(scratch.path()).args(["check", name]).go();
            assert!(ran.code() == Some(2) && ran.err().contains(phrase), "{name}: {}", ran.err());
        }
    }
}

#[test]
fn what_the_real_program_writes_has_nothing_wrong() {
    const WRITTEN: &[(&str, &str)] = &[
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicSparse,zeroed_grain=on,hwversion=6"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed"),
        ("vhdx", "subformat=dynamic"),
        ("vhdx", "subformat=fixed"),
        ("vhdx", "subformat=dynamic,block_size=1M,block_state_zero=off"),
        ("vhdx", "subformat=dynamic,log_size=4M"),
    ];
    let scratch = Scratch::new("check-written");
    make(&scratch);
    for (turn, oracle) in [maker(), newest()].into_iter().enumerate() {
        for (number, (format, options)) in WRITTEN.iter().enumerate() {
            let name = format!("{turn}-{number}.{format}");
            let words = ["convert", "-O", format, "-o", options, "disk.raw", &name];
            oracle.img().folder(scratch.path()).args(words).must();
            let cell = Cell::all()[number % Cell::all().len()];
            let ran = program().native(cell).folder(scratch.path()).args(["check", "-f", format, &name]).go();
            assert_eq!((ran.code(), ran.err().as_ref()), (Some(0), ""), "{format} {options}");
        }
    }
}

#[test]
fn natively_all_is_told_of_every_layer() {
    let scratch = Scratch::new("check-native");
    make(&scratch);
    spoil(&scratch);
    maker().img().folder(scratch.path()).args(["create", "-q", "-f", "vdi", "disk.vdi", "1M"]).must();
    for cell in Cell::all() {
        let ask = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("check").args(words).go();
        let fine = ask(&["--output=json", "overlay.qcow2", "--chain"]);
        assert_eq!(fine.code(), Some(0), "{}", fine.err());
        let told: serde_json::Value = serde_json::from_slice(&fine.stdout).expect("a document");
        for layer in told.as_array().expect("layers") {
            for key in ["corruptions", "leaks", "refcount-errors", "check-errors"] {
                assert_eq!(layer[key], 0, "{key}");
            }
        }
        assert_eq!(told[1]["filename"], "disk.qcow2");
        let corrupt = ask(&["corrupt.qcow2"]);
        assert_eq!(corrupt.code(), Some(2));
        assert!(corrupt.err().lines().all(|line| line.starts_with("instar: corrupt.qcow2: ")), "{}", corrupt.err());
        let leaking = ask(&["leaking.qcow2"]);
        assert_eq!((leaking.code(), leaking.out().contains("1 leaked clusters")), (Some(3), true));
        let before = fs::read(scratch.path().join("leaking.qcow2")).expect("an image");
        let repaired = ask(&["-r", "leaks", "--output=json", "leaking.qcow2"]);
        let told: serde_json::Value = serde_json::from_str(&repaired.out()).expect("JSON");
        assert_eq!((repaired.code(), &told["leaks-fixed"], &told["leaks"]), (Some(0), &1.into(), &0.into()));
        assert!(repaired.err().contains("instar: leaking.qcow2: Repairing cluster "), "{}", repaired.err());
        assert_eq!(ask(&["leaking.qcow2"]).code(), Some(0));
        fs::write(scratch.path().join("leaking.qcow2"), before).expect("an image");
        let refused = ask(&["-r", "all", "disk.vdi"]);
        assert_eq!((refused.code(), refused.stdout.is_empty()), (Some(1), true));
        assert!(refused.err().contains("can be found, and not be repaired"), "{}", refused.err());
    }
}
