//! Tests of VMDK.

use super::Vmdk;
use super::descriptor::is_descriptor;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::{Fact, FileId, info};
use instar_testkit::build::mutate::{noise, patched};
use instar_testkit::build::trial::{claim, describe, refusal, survived, told};
use instar_testkit::build::vmdk::{Descriptor, Hosted, cowd, hosted, se_sparse, stream};
use instar_testkit::mem::MemIo;

const INVALID: &str = "Could not open '{file}': Invalid argument";

fn described(extents: &[&str]) -> Vec<u8> {
    Descriptor::of("twoGbMaxExtentSparse", extents).text()
}

fn io(extents: &[&str]) -> MemIo {
    MemIo::new(described(extents))
        .with("flat", vec![0; 1024])
        .with("sparse", hosted(&Hosted::default(), &Descriptor::default()))
        .with("cowd", cowd(4096, 8, &[], None))
        .with("se", se_sparse(8192, &[]))
        .with("loop", hosted(&Hosted { capacity: 0, ..Hosted::default() }, &looped()))
}

fn looped() -> Descriptor {
    Descriptor::of("vmfs", &["RW 1 SPARSE \"loop\""])
}

fn phrase(extents: &[&str]) -> Vec<u8> {
    describe(&Vmdk, &io(extents)).map(|_| "opened".into()).unwrap_or_else(|error| error.what.0)
}

fn extent(image: &info::Image, number: usize) -> Fact {
    match image.specific.as_ref().and_then(|specific| specific.get("extents")) {
        Some(Fact::List(extents)) => extents[number].clone(),
        _ => Fact::Truth(false),
    }
}

#[test]
fn descriptors_are_recognised() {
    for (text, ours) in [
        ("version=1\n", true),
        ("# x\r\n#\n \n \r\nversion=3\r\n", true),
        ("version=4\n", false),
        ("version=1", false),
        ("\nversion=1\n", false),
        ("  \nversion=1\n", false),
    ] {
        assert_eq!(is_descriptor(text.as_bytes()), ours, "{text:?}");
    }
    assert_eq!(claim(&Vmdk, b"COWD".to_vec()), Ok(Claim::Yes));
    assert_eq!(claim(&Vmdk, b"KDMX".to_vec()), Ok(Claim::No));
}

#[test]
fn single_file_is_told() {
    let image = told(&Vmdk, hosted(&Hosted::default(), &Descriptor::default())).unwrap();
    assert_eq!((image.virtual_size, image.cluster_size, image.limits.write_zeroes), (1 << 20, Some(65536), 65536));
    let specific = image.specific.as_ref().unwrap();
    assert_eq!(specific.get("cid"), Some(&Fact::Count(0x1234_5678)));
    assert_eq!(specific.get("create-type"), Some(&Fact::from("monolithicSparse")));
    assert_eq!(extent(&image, 0).get("filename"), Some(&Fact::fields([("file", 0u32.into())])));
    assert_eq!(extent(&image, 0).get("format"), Some(&Fact::from("")));
    let footer = Hosted { compression: 1, ..Hosted::default() };
    let image = told(&Vmdk, stream(&Hosted { directory: u64::MAX, ..Hosted::default() }, &footer, &looped())).unwrap();
    assert_eq!(extent(&image, 0).get("compressed"), Some(&Fact::Truth(true)));
    assert_eq!(image.specific.unwrap().get("create-type"), Some(&Fact::from("streamOptimized")));
    let image = told(&Vmdk, cowd(4096, 8, &[], Some(&Descriptor::default()))).unwrap();
    assert_eq!(image.specific.unwrap().get("create-type"), Some(&Fact::from("")));
}

#[test]
fn extents_are_opened_in_order() {
    let lines = [
        "RW 2 FLAT \"flat\" 0",
        "NOACCESS 2 FLAT \"hidden\" 0",
        "RW 2048 SPARSE \"sparse\"",
        "RW 3 VMFS \"flat\"",
        "RW 4096 VMFSSPARSE \"cowd\"",
        "RW 8192 SESPARSE \"se\"",
    ];
    let io = io(&lines);
    let image = describe(&Vmdk, &io).unwrap();
    assert_eq!(image.virtual_size, (2 + 2048 + 3 + 4096 + 8192) * 512);
    assert_eq!(image.cluster_size, None);
    let names: Vec<Vec<u8>> = image.children.iter().map(|child| child.name.0.clone()).collect();
    assert_eq!(names, ["extents.0", "extents.1", "extents.2", "extents.3", "extents.4"].map(Vec::from));
    assert_eq!(image.children[4].file, FileId(5));
    assert!(io.asked.borrow().iter().all(|name| name != b"hidden"));
    let finding = image.findings.iter().find(|finding| finding.check.0 == b"extents").unwrap();
    assert!(!finding.ok);
}

#[test]
fn extent_lines_are_read_as_qemu_img_reads_them() {
    let bad = "Invalid extent line: {}";
    let none = "no extent in the image descriptor can be read";
    for (line, expected) in [
        ("RW 2 FLAT \"flat\"", bad),
        ("RW 2 FLAT \"flat\" -1", bad),
        ("RW 2 FLOT \"flat\" 0", bad),
        ("RW 2 VMFS \"flat\" 0", bad),
        ("RW 2 SPARSE \"sparse\" 0", bad),
        ("RW 2 FLAT \"\" 0", none),
        ("RW 0 FLAT \"flat\" 0", none),
        ("RW -1 FLAT \"flat\" 0", none),
        ("RW 2 VMFSRDM \"flat\"", none),
        ("RDONLY 2 FLAT \"flat\" 0", none),
        ("", none),
        ("RW 99999999999999999999 FLAT \"flat\" 0", "Could not refresh total sector count: File too large"),
        ("RW 2 FLAT \"nosuch\" 0", "no such file"),
        ("RW 2 FLAT \"../../etc/passwd\" 0", "no such file"),
        ("RW 2 SPARSE \"flat\"", "Image not in VMDK format"),
        ("RW 2 SESPARSE \"flat\"", "Bad const header magic: 0x{}"),
        ("RW 2 SPARSE \"loop\"", "descriptors name descriptors, and those more"),
        ("  RW\t2  FLAT\n\"flat\"7 9", "opened"),
    ] {
        assert_eq!(phrase(&[line]), expected.as_bytes(), "{line:?}");
    }
    assert_eq!(phrase(&["RW 1 FLAT \"flat\" 0"; 5000]), b"more than {} extents");
}

#[test]
fn headers_are_refused_in_turn() {
    let with = |change: Hosted| refusal(&Vmdk, hosted(&change, &Descriptor::default()));
    let fresh = Hosted::default;
    assert_eq!(refusal(&Vmdk, Vec::new()), "File is too small, not a valid image");
    assert_eq!(with(Hosted { version: 4, table_entries: 600, ..fresh() }), "Unsupported VMDK version {}");
    assert_eq!(with(Hosted { table_entries: 600, grain: 0, ..fresh() }), "L2 table size too big");
    assert_eq!(with(Hosted { grain: 0, ..fresh() }), "L1 entry size is invalid");
    assert_eq!(with(Hosted { grain: 0x20_0001, ..fresh() }), "Invalid granularity, image may be corrupt");
    assert_eq!(with(Hosted { grain: 1, capacity: 1 << 40, ..fresh() }), "L1 size too big");
    assert_eq!(with(Hosted { directory: u64::MAX, ..fresh() }), "Invalid footer");
    assert_eq!(with(Hosted { capacity: 0, ..fresh() }), "Unsupported image type '{}'");
    let unreadable = "Could not read l1 table from extent '{file}': Input/output error";
    assert_eq!(with(Hosted { directory: 1 << 54, ..fresh() }), unreadable);
    let good = hosted(&fresh(), &Descriptor::default());
    assert_eq!(refusal(&Vmdk, good[..4096].to_vec()), "File truncated, expecting at least {} bytes");
    assert_eq!(refusal(&Vmdk, patched(&good, 512, &[0])), INVALID);
    assert_eq!(refusal(&Vmdk, b"createTypo".to_vec()), "invalid VMDK image descriptor");
    assert_eq!(refusal(&Vmdk, Descriptor::of("custom", &[]).text()), "Unsupported image type '{}'");
}

#[test]
fn parent_is_told() {
    let descriptor = |name: &str| Descriptor { parent: Some(name.into()), parent_cid: 5, ..Descriptor::default() };
    let image = told(&Vmdk, hosted(&Hosted::default(), &descriptor("base.vmdk"))).unwrap();
    assert_eq!(image.backing.unwrap().name.0, b"base.vmdk");
    let long = "a".repeat(4096);
    assert_eq!(refusal(&Vmdk, hosted(&Hosted::default(), &descriptor(&long))), INVALID);
    assert!(told(&Vmdk, hosted(&Hosted::default(), &descriptor(&long[1..]))).is_ok());
}

#[test]
fn damage_is_survived() {
    let good = hosted(&Hosted::default(), &Descriptor::default());
    assert!(survived(&Vmdk, &good[..65536], 700) > 100);
    survived(&Vmdk, &cowd(64, 8, &[], Some(&Descriptor::default())), 32);
    let text = described(&["RW 2 FLAT \"flat\" 0", "RW 2048 SPARSE \"sparse\""]);
    survived(&Vmdk, &text, text.len());
    let se = se_sparse(8192, &[]);
    noise(&se, 0..1024, 9, 2000, |bytes| {
        let io = MemIo::new(described(&["RW 8192 SESPARSE \"se\""])).with("se", bytes);
        let _ = describe(&Vmdk, &io);
    });
}
