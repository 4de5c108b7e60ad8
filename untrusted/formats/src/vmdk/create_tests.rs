//! VMware disks as they are when they are new.

use super::Vmdk;
use alloc::format;
use alloc::vec::Vec;
use instar_image::{File, Format, Options, info};
use instar_testkit::alike::Twin;
use instar_testkit::build::mutate::Noise;
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::place::Scratch;
use instar_testkit::workshop::Order;

/// The types of disks.
pub const KINDS: [&str; 5] =
    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"];

/// Without the content identifier, which is random and not always written with as many digits.
fn masked(bytes: Vec<u8>) -> Vec<u8> {
    let Some(at) = bytes[..bytes.len().min(2048)].windows(4).position(|window| window == b"CID=") else { return bytes };
    let end = at + bytes[at..].iter().position(|byte| *byte == b'\n').unwrap();
    let mut masked = [&bytes[..at], &bytes[end..]].concat();
    // What is inside has its place, what is beside ends with the text.
    if bytes.starts_with(b"KDMV") {
        masked.splice(20 * 512..20 * 512, core::iter::repeat_n(0, end - at));
    }
    masked
}

fn same(scratch: &Scratch, name: &str, list: &str, size: u64) {
    // Old and new differ in what is told of options.
    let is_told = list.contains('_') || size == 513;
    for oracle in [maker(), newest()].into_iter().chain(version("5.2")).take(if is_told { 3 } else { 1 }) {
        if list.contains("toolsversion") && !oracle.since("6.0") {
            continue;
        }
        Twin::of(&Vmdk, name, list, size).compare(scratch.path(), oracle, &masked);
    }
}

fn told(scratch: &Scratch, folder: &str, name: &str) -> info::Image {
    let folder = Folder::new(&scratch.path().join(folder));
    let granted = folder.open(name.as_bytes()).unwrap();
    Vmdk.open(File::new(&folder, &granted), &Options::default()).unwrap().describe(true).unwrap()
}

#[test]
fn new_disks_are_those_of_qemu_img() {
    let scratch = Scratch::new("vmdk-create");
    for kind in KINDS {
        for size in [0, 1, 513, (5 << 20) + 512, (33 << 20) - 512] {
            same(&scratch, "a.vmdk", &format!("subformat={kind}"), size);
        }
    }
    for kind in ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse"] {
        for size in [2 << 30, (2 << 30) + 512, (9 << 30) + 512] {
            same(&scratch, "a.vmdk", &format!("subformat={kind}"), size);
        }
    }
    for name in ["a", "a.img", "a.b.c", ".vmdk", "a b.vmdk"] {
        same(&scratch, name, "subformat=twoGbMaxExtentSparse", 1 << 20);
        same(&scratch, name, "subformat=monolithicFlat", 1 << 20);
        same(&scratch, name, "", 1 << 20);
    }
}

#[test]
fn every_option_alone_and_in_pairs() {
    let scratch = Scratch::new("vmdk-options");
    let options = "adapter_type=ide;adapter_type=lsilogic;adapter_type=buslogic;adapter_type=legacyESX;adapter_type=x;\
                   adapter_type=IDE;hwversion=9;hwversion=undefined;hwversion=x y;toolsversion=77;toolsversion=;\
                   hwversion=;compat6=on;compat6=off;zeroed_grain=on;zeroed_grain=off;backing_fmt=vmdk;\
                   backing_fmt=raw;subformat=x;subformat=;preallocation=full;\
                   preallocation=metadata;preallocation=x";
    let options: Vec<&str> = options.split(';').collect();
    let mut noise = Noise::new(5);
    let mut any = |of: &[&str]| -> alloc::string::String { of[noise.below(of.len() as u64) as usize].into() };
    options.iter().for_each(|option| same(&scratch, "a.vmdk", option, 1 << 20));
    for _ in 0..30 {
        let pair = [any(&options), any(&options)];
        let name = |option: &str| option.split('=').next().map(alloc::string::String::from);
        if name(&pair[0]) == name(&pair[1]) || pair.iter().any(|option| option.starts_with("subformat")) {
            continue;
        }
        let list = format!("{},{},subformat={}", pair[0], pair[1], any(&KINDS));
        same(&scratch, "a.vmdk", &list, 3 << 20);
    }
}

#[test]
fn a_disk_over_another_names_it() {
    let scratch = Scratch::new("vmdk-over");
    let path = scratch.path();
    for folder in ["ours", "theirs"] {
        scratch.folder(folder);
    }
    for kind in KINDS {
        let base = scratch.folder("base");
        maker().img().folder(&base).args(["create", "-q", "-f", "vmdk", "base.vmdk", "2M"]).must();
        let list = format!("subformat={kind},backing_file=../base/base.vmdk,backing_fmt=vmdk");
        for oracle in [maker(), newest()].into_iter().chain(version("5.2")) {
            let below = Some(told(&scratch, "base", "base.vmdk"));
            Twin { below, words: &[], ..Twin::of(&Vmdk, "a.vmdk", &list, 3 << 20) }.compare(path, oracle, &masked);
        }
    }
}

#[test]
fn what_nobody_could_read_is_refused() {
    let scratch = Scratch::new("vmdk-refused");
    let folder = Folder::new(scratch.path());
    let made = |list: &str, size: u64, name: &str| {
        Order { options: options(list), ..Order::plain(&Vmdk, size) }.create(&folder, name).is_ok()
    };
    let long = format!("hwversion={}", "9".repeat(12_000));
    let split = "subformat=twoGbMaxExtentSparse";
    for (list, size, name, good) in [
        ("", 8 << 40, "a.vmdk", true),
        ("", (256 << 40) - 512, "a.vmdk", true),
        ("", 256 << 40, "a.vmdk", false),
        (split, (8 << 40) + 512, "a.vmdk", false),
        ("hwversion=4\"", 512, "a.vmdk", false),
        (split, 512, "a\"b.vmdk", false),
        (&long, 512, "a.vmdk", false),
        ("backing_file=base.vmdk", 512, "a.vmdk", false),
    ] {
        assert_eq!(made(list, size, name), good, "{list} {size} {name}");
    }
}
