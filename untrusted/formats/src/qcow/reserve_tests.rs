//! qcow images made and written.

use super::Qcow;
use alloc::format;
use alloc::vec::Vec;
use instar_image::{Format, Kind, Secret};
use instar_testkit::alike::{Twin, holds, holds_elsewhere, len, measured, scatter, weathers};
use instar_testkit::build::mutate::noise;
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::oracle::{Oracle, maker, newest, version};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{create, scribble};
use instar_testkit::workshop::{Order, Pour, bytes};

const SECRET: [&str; 2] = ["--object", "secret,id=s,data=abc"];

fn all() -> Vec<&'static Oracle> {
    [maker(), newest()].into_iter().chain(version("5.2")).collect()
}

#[test]
fn new_images_are_those_of_qemu_img() {
    let scratch = Scratch::new("qcow-create");
    let same = |list: &str, size: u64, key: Option<&'static str>| {
        for oracle in all() {
            let words: &[&str] = if key.is_some() { &SECRET } else { &["-u"] };
            Twin { key, words, ..Twin::of(&Qcow, "a.qcow", list, size) }
                .compare(scratch.path(), oracle, &|bytes| bytes);
        }
    };
    for size in [0, 1, 512, 513, 2 << 20, (2 << 20) + 1, (130 << 20) + 512, (1 << 33) - 1] {
        same("", size, None);
        same("backing_file=base,backing_fmt=raw", size, None);
    }
    for name in ["b", "base.raw", "fat:", "fat:x", &"n".repeat(1023)] {
        same(&format!("backing_file={name},backing_fmt=raw"), 5 << 20, None);
    }
    for list in ["encryption=off", "backing_fmt=raw", "encrypt.format=aes,encryption=off,encrypt.key-secret=s"] {
        same(list, 1 << 20, Some("abc"));
    }
    for size in [0, 1 << 20] {
        for list in ["encryption=on,encrypt.key-secret=s", "encrypt.format=aes,encrypt.key-secret=s"] {
            same(list, size, Some("abc"));
        }
        for list in ["preallocation=metadata", "preallocation=x,encrypt.format=luks", "preallocation=falloc"] {
            same(list, size, None);
        }
        for list in ["encryption=on", "encrypt.format=aes", "encrypt.format=luks", "encrypt.format=foo"] {
            same(list, size, None);
        }
        for list in ["encrypt.key-secret=s", "encryption=on,encrypt.format=aes,encrypt.key-secret=s"] {
            same(list, size, Some("abc"));
        }
    }
}

#[test]
fn what_cannot_be_opened_is_not_made() {
    let scratch = Scratch::new("qcow-large");
    let folder = Folder::new(scratch.path());
    let most = 0x7fff_fe00 / 8 * (2u64 << 20);
    for (size, made) in [(most, true), (most + 512, false), (i64::MAX as u64 - 511, false)] {
        let order = Order::plain(&Qcow, size);
        assert_eq!(order.create(&folder, "a.qcow").is_ok(), made, "{size}");
    }
    let options = options(&format!("backing_file={}", "n".repeat(1024)));
    assert!(Order { options, ..Order::plain(&Qcow, 512) }.create(&folder, "a.qcow").is_err());
}

#[test]
fn what_is_written_is_read_by_qemu_img() {
    let scratch = Scratch::new("qcow-write");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    for seed in 1..3 {
        let pack = seed > 1;
        let size = (2 << 20) + 512 * (1 - seed % 2);
        scatter(path, "in.raw", size, seed, 20);
        Order::plain(&Qcow, size).create(&folder, "a.qcow").unwrap();
        Pour { pack, ..Pour::new("a.qcow", &[&Qcow], "in.raw") }.go(&folder).unwrap();
        // Packing is always said to have failed by the real program, and has not.
        let words = ["convert", "-O", "qcow", if pack { "-c" } else { "-q" }, "in.raw", "theirs.qcow"];
        assert_eq!(maker().img().folder(path).args(words).go().code(), Some(i32::from(pack)));
        let (ours, theirs) = (len(path, "a.qcow"), len(path, "theirs.qcow"));
        assert!(ours <= theirs * 101 / 100 + 4096, "{ours} {theirs}");
        let most = measured(&Qcow, "", path, "in.raw");
        assert!(if pack { ours < most } else { ours == most }, "{ours} {most}");
        holds_elsewhere("pyqcow", path, "a.qcow", "in.raw");
        all().iter().for_each(|oracle| holds(oracle, path, &["-f", "qcow", "a.qcow"], "in.raw"));
        // Over what is there, packed or not; then over what qemu-img has made.
        for again in [!pack, pack] {
            scatter(path, "in.raw", size, seed + 10 + u64::from(again), 20);
            Pour { pack: again, ..Pour::there("a.qcow", &[&Qcow], "in.raw") }.go(&folder).unwrap();
            holds(maker(), path, &["-f", "qcow", "a.qcow"], "in.raw");
        }
        scribble(path, "qcow", "theirs.qcow", size, seed, 12);
        Pour { pack, ..Pour::there("theirs.qcow", &[&Qcow], "in.raw") }.go(&folder).unwrap();
        holds(maker(), path, &["-f", "qcow", "theirs.qcow"], "in.raw");
    }
}

#[test]
fn what_lies_below_shows_through_or_is_hidden() {
    let scratch = Scratch::new("qcow-over");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let size = 1 << 20;
    scatter(path, "base.raw", size, 7, 40);
    for seed in 0..4 {
        scatter(path, "in.raw", size, seed, 10);
        create(path, "-f qcow -b base.raw -F raw a.qcow");
        if seed > 1 {
            scribble(path, "qcow", "a.qcow", size, seed, 12);
        }
        let formats: [&dyn Format; 2] = [&Qcow, crate::RAW];
        let pour = Pour::there("a.qcow", &formats, "in.raw");
        Pour { is_new: seed == 0, pack: seed % 2 == 1, ..pour }.go(&folder).unwrap();
        holds(maker(), path, &["-f", "qcow", "a.qcow"], "in.raw");
    }
}

#[test]
fn encrypted_images_are_written_with_their_key() {
    let scratch = Scratch::new("qcow-aes");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let key = || Some(Secret("abc".into()));
    let size = (3 << 20) + 512;
    scatter(path, "in.raw", size, 1, 20);
    let options = options("encrypt.format=aes,encrypt.key-secret=s");
    let order = Order { options, key: key(), ..Order::plain(&Qcow, size) };
    order.create(&folder, "a.qcow").unwrap();
    Pour { key: key(), ..Pour::new("a.qcow", &[&Qcow], "in.raw") }.go(&folder).unwrap();
    let words = [&SECRET[..], &["--image-opts", "driver=qcow,file.filename=a.qcow,encrypt.key-secret=s"]].concat();
    all().iter().for_each(|oracle| holds(oracle, path, &words, "in.raw"));
    scatter(path, "in.raw", size, 2, 20);
    Pour { key: key(), ..Pour::there("a.qcow", &[&Qcow], "in.raw") }.go(&folder).unwrap();
    holds(maker(), path, &words, "in.raw");
    assert!(Pour::there("a.qcow", &[&Qcow], "in.raw").go(&folder).is_err());
}

#[test]
fn damage_is_survived() {
    let scratch = Scratch::new("qcow-damage");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    create(path, "-f qcow a.qcow 20M");
    scribble(path, "qcow", "a.qcow", 20 << 20, 1, 3);
    let image = bytes(path, "a.qcow");
    let mut sealed = 0;
    let mut each = |bytes: Vec<u8>| {
        scratch.put("b.qcow", bytes);
        sealed += usize::from(weathers(&Qcow, &folder, "b.qcow"));
    };
    noise(&image[..0x4000], 0..48, 3, 150, &mut each);
    noise(&image[..0x4000], 48..128, 4, 50, &mut each);
    assert!(sealed > 20, "{sealed}");
}

#[test]
fn what_lies_behind_the_end_of_the_file_is_not_written_to() {
    let scratch = Scratch::new("qcow-behind");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    create(path, "-f qcow a.qcow 20M");
    let (mut image, table_at) = (bytes(path, "a.qcow"), 40);
    image[table_at..table_at + 8].copy_from_slice(&(1u64 << 40).to_be_bytes());
    let len = image.len();
    scratch.put("a.qcow", image);
    scratch.put("in.raw", [7; 4096]);
    let done = Pour::there("a.qcow", &[&Qcow], "in.raw").go(&folder);
    assert_eq!(done.map_err(|error| error.kind), Err(Kind::Corrupt));
    assert!(bytes(path, "a.qcow").len() <= len + (64 << 10));
}
