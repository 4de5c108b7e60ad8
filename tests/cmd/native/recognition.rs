//! What a file is taken for, and what plain sizes, limits and cache modes do.

use super::{Shelf, line_of};
use instar_testkit::build::partition::{gpt, mbr};
use instar_testkit::build::vhd::{self, Vhd};
use instar_testkit::build::{dmg, luks2};

const UNKNOWN: &str = "no known image format and no partition table: say -f raw if this is a raw disk";

impl Shelf {
    fn format(&self, words: &[&str]) -> String {
        let text = self.told(&[&["info"], words].concat());
        line_of(&text, "file format").to_owned()
    }
}

/// The sectors of a disc's volume descriptors, and a little more.
pub fn iso(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().max(65536), 0);
    bytes[32768..32775].copy_from_slice(b"\x01CD001\x01");
    bytes
}

#[test]
fn a_file_is_raw_only_if_it_says_so_or_the_user_does() {
    let shelf = Shelf::new("raw");
    shelf.file("zeroes", &[0; 4096]);
    shelf.file("empty", b"");
    shelf.file("text", b"#!/bin/sh\nQF\n");
    for name in ["zeroes", "empty", "text"] {
        shelf.refused(&["info", name], 1, &format!("instar: Could not open '{name}': {UNKNOWN}"));
        shelf.refused(&["info", "--output=json", name], 1, &format!("instar: Could not open '{name}': {UNKNOWN}"));
        for more in [&["-f", "raw"][..], &["--unsafe-quirks"]] {
            assert_eq!(shelf.format(&[more, &[name]].concat()), "raw", "{name} {more:?}");
        }
        let options = format!("driver=raw,file.filename={name}");
        assert_eq!(shelf.format(&["--image-opts", &options]), "raw", "{name}");
        let ran = shelf.instar(&["info", name]).env("INSTAR_UNSAFE_QUIRKS", "1").must();
        assert_eq!(line_of(&ran.out(), "file format"), "raw");
    }
}

#[test]
fn partitioned_disks_are_raw() {
    let shelf = Shelf::new("partitions");
    let none = (0, 0);
    shelf.file("mbr", &mbr(1 << 20, [(0x80, 0x83), none, none, none]));
    shelf.file("gpt", &gpt(1 << 20, 512));
    shelf.file("type-missing", &mbr(1 << 20, [(0x80, 0), none, none, none]));
    shelf.file("flag-wrong", &mbr(1 << 20, [(0x7f, 0x83), none, none, none]));
    for name in ["mbr", "gpt"] {
        assert_eq!(shelf.format(&[name]), "raw");
        let json = shelf.json(&[name]);
        let found = json["safety"]["findings"].as_array().expect("a list");
        assert!(found.iter().any(|f| f["check"] == "partition-rule" && f["detail"] == name), "{json}");
        assert_eq!(json["safety"]["safe"], true, "{json}");
    }
    for name in ["type-missing", "flag-wrong"] {
        shelf.refused(&["info", name], 1, &format!("instar: Could not open '{name}': {UNKNOWN}"));
    }
}

#[test]
fn some_formats_are_only_known_natively() {
    let shelf = Shelf::new("natively");
    shelf.file("disc", &iso(Vec::new()));
    shelf.file("fixed", &vhd::build(&Vhd { kind: 2, ..Vhd::default() }));
    let raw = dmg::Chunk { kind: dmg::kind::RAW, sector: 0, count: 2, at: 0, len: 1024 };
    let end = dmg::Chunk { kind: dmg::kind::END, sector: 2, count: 0, at: 1024, len: 0 };
    shelf.file("image", &dmg::build(&[9; 1024], &[dmg::mish(0, &[raw, end])], dmg::Fork::Xml, 2));
    shelf.file("container", &luks2::usual());
    for (name, format) in [("disc", "iso"), ("fixed", "vpc"), ("image", "dmg"), ("container", "luks")] {
        assert_eq!(shelf.format(&[name]), format);
        assert_eq!(shelf.format(&["-f", "raw", name]), "raw");
        assert_eq!(shelf.json(&[name])["format"], format);
    }
    for name in ["disc", "fixed", "image", "container"] {
        assert_eq!(shelf.format(&["--unsafe-quirks", name]), "raw", "{name}");
    }
    // Taken for what they are on the word of the user, or by their names, qemu-img knows two of them as well.
    assert_eq!(shelf.format(&["--unsafe-quirks", "-f", "vpc", "fixed"]), "vpc");
    std::fs::rename(shelf.path("image"), shelf.path("image.dmg")).expect("another name");
    assert_eq!(shelf.format(&["--unsafe-quirks", "image.dmg"]), "dmg");
}

#[test]
fn plain_sizes_do_not_round() {
    let shelf = Shelf::new("sizes");
    shelf.file("odd", &[7; 1000]);
    let rounded = shelf.told(&["info", "-f", "raw", "odd"]);
    assert_eq!(line_of(&rounded, "virtual size"), "1 KiB (1024 bytes)");
    assert_eq!(line_of(&rounded, "    file length"), "1 KiB (1024 bytes)");
    for run in [
        shelf.instar(&["info", "--ignore-quirks", "-f", "raw", "odd"]),
        shelf.instar(&["info", "-f", "raw", "odd"]).env("INSTAR_IGNORE_QUIRKS", "1"),
    ] {
        let plain = super::succeeded(&super::same_everywhere(&run));
        assert_eq!(line_of(&plain, "virtual size"), "1.0 KiB (1024 bytes)");
        assert_eq!(line_of(&plain, "    file length"), "1000 B (1000 bytes)");
        assert!(line_of(&plain, "disk size").ends_with(".0 KiB") || line_of(&plain, "disk size") == "0 B", "{plain}");
    }
    let json = shelf.json(&["--ignore-quirks", "-f", "raw", "odd"]);
    assert_eq!(json["children"][0]["info"]["virtual-size"], 1000);
    assert_eq!(shelf.json(&["-f", "raw", "odd"])["children"][0]["info"]["virtual-size"], 1024);
    shelf.create("-f qcow2 wide 1234567890");
    assert_eq!(line_of(&shelf.told(&["info", "wide"]), "virtual size"), "1.15 GiB (1234568192 bytes)");
    let plain = shelf.told(&["info", "--ignore-quirks", "wide"]);
    assert_eq!(line_of(&plain, "virtual size"), "1.1 GiB (1234568192 bytes)");
}

#[test]
fn limits_are_told_when_asked_for() {
    let shelf = Shelf::new("limits");
    shelf.create("-f qcow2 disk 1M");
    let text = shelf.told(&["info", "--limits", "disk"]);
    let own = ["write zeroes alignment: 65536", "request alignment: 1", "min mem alignment: 1"];
    let rest = ["discard alignment: 65536", "opt mem alignment: 4096", "max iov: 1024"];
    assert_eq!(super::section(&text, "Block limits"), [own, rest].concat(), "{text}");
    let json = shelf.json(&["--limits", "disk"]);
    assert_eq!(json["limits"]["write-zeroes-alignment"], 65536, "{json}");
    assert_eq!(json["children"][0]["info"]["limits"]["max-iov"], 1024);
    assert!(shelf.json(&["disk"]).get("limits").is_none());
}

#[test]
fn cache_modes_do_not_change_the_answer() {
    let shelf = Shelf::new("cache");
    shelf.create("-f qcow2 disk 1M");
    shelf.file("odd", &[7; 1001]);
    for (words, name) in [(&["info"][..], "disk"), (&["info", "-f", "raw"], "odd")] {
        let want = shelf.told(&[words, &[name]].concat());
        for mode in ["none", "directsync", "writeback", "writethrough", "unsafe"] {
            assert_eq!(shelf.told(&[words, &["-t", mode, name]].concat()), want, "{mode}");
        }
    }
}
