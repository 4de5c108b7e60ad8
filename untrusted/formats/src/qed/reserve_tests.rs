//! QED images made and written.

use super::Qed;
use alloc::format;
use instar_image::Format;
use instar_testkit::alike::{Twin, clean, holds, len, measured, scatter, weathers};
use instar_testkit::build::mutate::noise;
use instar_testkit::folder::Folder;
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{create, scribble};
use instar_testkit::workshop::{Order, Pour, bytes};

#[test]
fn new_images_are_those_of_qemu_img() {
    let scratch = Scratch::new("qed-create");
    let same = |list: &str, size: u64| {
        for oracle in [maker(), newest()].into_iter().chain(version("5.2")) {
            Twin::of(&Qed, "a.qed", list, size).compare(scratch.path(), oracle, &|bytes| bytes);
        }
    };
    for size in [0, 1, 512, 513, 1 << 20, (2 << 40) - 1, 64 << 40, (64 << 40) + 1, 7 << 60] {
        same("", size);
    }
    let name = format!("backing_file={},backing_fmt=raw", "n".repeat(1000));
    let (small, table) = ("cluster_size=4096,table_size=1", "table_size=16,backing_file=a,backing_fmt=qed");
    for list in [small, table, &name, "cluster_size=67108864,table_size=1", "backing_fmt=raw", "preallocation=full"] {
        same(list, 1 << 30);
        same(list, (1 << 30) + 512);
    }
    let bad = "cluster_size=2048;cluster_size=0;cluster_size=134217728;cluster_size=12288;preallocation=metadata;preallocation=x,table_size=3;table_size=0;table_size=3;\
               table_size=32;table_size=9223372036854775808;cluster_size=67108864,table_size=16";
    bad.split(';').for_each(|list| same(list, 1 << 20));
}

#[test]
fn what_is_written_is_read_by_qemu_img() {
    let scratch = Scratch::new("qed-write");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let lists = ["", "cluster_size=4096,table_size=2", "cluster_size=1048576,table_size=16"];
    for (seed, list) in (0..).zip(lists) {
        let size = (5 << 20) + 512 * (1 - seed % 2);
        scatter(path, "in.raw", size, seed, 30);
        let order = Order { options: instar_testkit::made::options(list), ..Order::plain(&Qed, size) };
        order.create(&folder, "a.qed").unwrap();
        Pour::new("a.qed", &[&Qed], "in.raw").go(&folder).unwrap();
        for oracle in [maker(), newest()].into_iter().chain(version("5.2")) {
            clean(oracle, path, "qed", "a.qed");
            holds(oracle, path, &["-f", "qed", "a.qed"], "in.raw");
        }
        assert_eq!(measured(&Qed, list, path, "in.raw"), len(path, "a.qed"));
        // Once more, over what is there; then over what qemu-img has made.
        scatter(path, "in.raw", size, seed + 10, 30);
        Pour::there("a.qed", &[&Qed], "in.raw").go(&folder).unwrap();
        clean(maker(), path, "qed", "a.qed");
        holds(maker(), path, &["-f", "qed", "a.qed"], "in.raw");
        create(
            path,
            &format!(
                "-f qed {} b.qed {size}",
                if list.is_empty() { "-o table_size=4".into() } else { format!("-o {list}") }
            ),
        );
        scribble(path, "qed", "b.qed", size, seed, 12);
        Pour::there("b.qed", &[&Qed], "in.raw").go(&folder).unwrap();
        clean(maker(), path, "qed", "b.qed");
        holds(maker(), path, &["-f", "qed", "b.qed"], "in.raw");
    }
}

#[test]
fn what_lies_below_shows_through_or_is_hidden() {
    let scratch = Scratch::new("qed-over");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let size = 6 << 20;
    scatter(path, "base.raw", size, 7, 40);
    for seed in 0..4 {
        scatter(path, "in.raw", size, seed, 10);
        create(path, "-f qed -b base.raw -F raw a.qed");
        if seed > 1 {
            scribble(path, "qed", "a.qed", size, seed, 12);
        }
        let formats: [&dyn Format; 2] = [&Qed, crate::RAW];
        Pour { is_new: seed == 0, ..Pour::there("a.qed", &formats, "in.raw") }.go(&folder).unwrap();
        clean(maker(), path, "qed", "a.qed");
        holds(maker(), path, &["-f", "qed", "a.qed"], "in.raw");
        if seed > 1 {
            continue;
        }
        // Who writes a part of a cluster finds the rest as it was.
        for (format, name) in [("qed", "a.qed"), ("raw", "in.raw")] {
            let words = (0..size / 65536).map(|number| format!("write -P 9 {} 512", number * 65536 + 4096));
            let run = words.fold(maker().io().folder(path).args(["-f", format]), |run, word| run.args(["-c", &word]));
            run.arg(name).must();
        }
        holds(maker(), path, &["-f", "qed", "a.qed"], "in.raw");
    }
}

#[test]
fn a_mark_stands_while_an_image_is_written_and_is_heeded() {
    let scratch = Scratch::new("qed-mark");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    scatter(path, "in.raw", 4 << 20, 1, 10);
    Order::plain(&Qed, 4 << 20).create(&folder, "a.qed").unwrap();
    let granted = folder.open_to_write(b"a.qed").unwrap();
    let image = Qed.open(instar_image::File::new(&folder, &granted), &Default::default()).unwrap();
    let mut target = image.target().unwrap();
    assert_eq!(target.reserve(&folder, 0, 65536, instar_image::target::What::Zeroes), Ok(None));
    assert_eq!(bytes(path, "a.qed")[16], 0);
    target.reserve(&folder, 0, 65536, instar_image::target::What::Data).unwrap().unwrap();
    assert_eq!(bytes(path, "a.qed")[16], 2);
    target.seal(&folder).unwrap();
    assert_eq!(bytes(path, "a.qed")[16], 0);
    // Marked, but in order; and with an entry for a cluster that was never written.
    let sound = instar_testkit::build::mutate::patched(&bytes(path, "a.qed"), 16, &[2]);
    scratch.put("a.qed", &sound);
    Pour::there("a.qed", &[&Qed], "in.raw").go(&folder).unwrap();
    assert_eq!(bytes(path, "a.qed")[16], 0);
    holds(maker(), path, &["-f", "qed", "a.qed"], "in.raw");
    let unsound = instar_testkit::build::mutate::patched(&sound, 65536, &(1u64 << 40).to_le_bytes());
    scratch.put("a.qed", unsound);
    assert!(Pour::there("a.qed", &[&Qed], "in.raw").go(&folder).is_err());
}

#[test]
fn damage_is_survived() {
    let scratch = Scratch::new("qed-damage");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    create(path, "-f qed -o cluster_size=4k,table_size=2 a.qed 20M");
    scribble(path, "qed", "a.qed", 20 << 20, 1, 3);
    let image = bytes(path, "a.qed");
    let mut sealed = 0;
    let mut each = |bytes: alloc::vec::Vec<u8>| {
        scratch.put("b.qed", bytes);
        sealed += usize::from(weathers(&Qed, &folder, "b.qed"));
    };
    noise(&image[..0x8000], 0..64, 3, 150, &mut each);
    noise(&image[..0x8000], 0x1000..0x1020, 4, 50, &mut each);
    assert!(sealed > 20, "{sealed}");
}
