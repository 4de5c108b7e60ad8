//! Tests of VHD.

use super::Vpc;
use alloc::vec::Vec;
use instar_image::Fact;
use instar_image::probe::Claim;
use instar_testkit::build::mutate::patched;
use instar_testkit::build::trial::{claim, refusal, survived, told};
use instar_testkit::build::vhd::{Vhd, build, seal};

fn small() -> Vhd {
    Vhd { size: 8 << 10, block_len: 4096, blocks: Vec::from([(1, b'v')]), ..Vhd::default() }
}

/// With the footer's checksum made to fit.
fn resealed(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = patched(image, at, bytes);
    seal(&mut image[..512], 64);
    image
}

#[test]
fn creators_differ_in_size() {
    let size = |creator: &[u8; 4], geometry| {
        told(&Vpc, build(&Vhd { creator: *creator, geometry, size: 4 << 20, ..Vhd::default() })).unwrap().virtual_size
    };
    let by_geometry = 100 * 4 * 17 * 512;
    assert_eq!(size(b"vpc ", (100, 4, 17)), by_geometry);
    assert_eq!(size(b"qemu", (100, 4, 17)), by_geometry);
    for creator in [b"qem2", b"win ", b"d2v ", b"tap\0", b"CXS ", b"vbox"] {
        assert_eq!(size(creator, (100, 4, 17)), 4 << 20);
    }
    assert_eq!(size(b"vpc ", (65535, 16, 255)), 4 << 20);
}

#[test]
fn fixed_disk_is_found_by_its_footer() {
    let image = build(&Vhd { kind: 2, ..small() });
    assert_eq!(claim(&Vpc, image.clone()), Ok(Claim::Quiet));
    assert_eq!(told(&Vpc, image.clone()).unwrap().cluster_size, None);
    // The footer of old had 511 bytes.
    assert!(told(&Vpc, image[..image.len() - 1].to_vec()).is_ok());
    let dynamic = build(&small());
    assert_eq!(claim(&Vpc, dynamic.clone()), Ok(Claim::Yes));
    assert_eq!(told(&Vpc, dynamic).unwrap().cluster_size, Some(4096));
}

#[test]
fn parent_is_told() {
    let image = build(&Vhd {
        kind: 4,
        parent: "p\u{e4}rent.vhd".into(),
        locators: Vec::from([(*b"W2ru", ".\\parent.vhd".into())]),
        ..small()
    });
    let image = told(&Vpc, image).unwrap();
    let extra = image.extra.unwrap();
    let parent = extra.get("parent").unwrap();
    assert_eq!(parent.get("name"), Some(&Fact::from("p\u{e4}rent.vhd")));
    let locator = Fact::fields([("platform", "W2ru".into()), ("name", ".\\parent.vhd".into())]);
    assert_eq!(parent.get("locators"), Some(&Fact::List(Vec::from([locator]))));
    assert!(!image.findings[0].ok);
    assert!(told(&Vpc, build(&small())).unwrap().findings[0].ok);
}

#[test]
fn each_refusal_has_its_phrase() {
    let image = build(&small());
    assert_eq!(refusal(&Vpc, Vec::new()), "File too small for a VHD header");
    assert_eq!(refusal(&Vpc, alloc::vec![0; 600]), "invalid VPC image");
    assert_eq!(refusal(&Vpc, patched(&image, 20, &[1])), "Incorrect header checksum");
    let footer: [(usize, &[u8], &str); 3] = [
        (48, &[0x7f], "Could not open '{file}': File too large"),
        (16, &[0xff], "Error reading dynamic VHD header"),
        (16, &[0x01], "Invalid header magic"),
    ];
    for (at, bytes, phrase) in footer {
        assert_eq!(refusal(&Vpc, resealed(&image, at, bytes)), phrase);
    }
    let truncated = "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.";
    let header: [(usize, &[u8], &str); 7] = [
        (512, b"x", "Invalid header magic"),
        (544, &[0, 0, 0, 7], "Invalid block size {}"),
        (540, &[0x20], "Max Table Entries too large ({})"),
        (540, &[0, 0, 0, 1], "Page table too small"),
        (528, &[0xff], "Error reading pagetable"),
        (528, &[0x01], truncated),
        (1536, &[0, 1, 0, 0], truncated),
    ];
    for (at, bytes, phrase) in header {
        assert_eq!(refusal(&Vpc, patched(&image, at, bytes)), phrase);
    }
}

#[test]
fn damage_is_survived() {
    let image = build(&Vhd { kind: 4, locators: Vec::from([(*b"W2ku", "x".into())]), ..small() });
    assert!(survived(&Vpc, &image, 2048) > 100);
    let mut noise = instar_testkit::build::mutate::Noise::new(5);
    for _ in 0..2000 {
        let at = noise.below(508) as usize;
        let _ = refusal(&Vpc, resealed(&image, at, &noise.next().to_le_bytes()[..4]));
    }
}
