//! `resize`: what is said and what becomes of images, held against the real program; the native face by itself.

use crate::against::{against, exact};
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// How an image is made, and what is done to it.
const LINES: &[(&str, &str)] = &[
    ("-f raw disk 4M", "-f raw disk 8M"),
    ("-f raw disk 4M", "disk 8M"),
    ("-f raw disk 4M", "disk 2M"),
    ("-f raw disk 4M", "-q disk 8M"),
    ("-f raw disk 4M", "-f raw --shrink disk 2M"),
    ("-f raw disk 4M", "-f raw disk 2M"),
    ("-f raw disk 4M", "-f raw disk 8000001"),
    ("-f raw disk 4M", "-f raw disk +1"),
    ("-f raw disk 4M", "-f raw disk +0"),
    ("-f raw disk 4M", "-f raw disk -- -1"),
    ("-f raw disk 4M", "-f raw --shrink disk -4M"),
    ("-f raw disk 4M", "-f raw --shrink disk -1M"),
    ("-f raw disk 4M", "-f raw disk 0"),
    ("-f raw disk 4M", "-f raw disk 8E"),
    ("-f raw disk 4M", "-f raw disk 7E"),
    ("-f raw disk 4M", "-f raw disk +7E"),
    ("-f raw disk 4M", "-f raw --preallocation=falloc disk 6M"),
    ("-f raw disk 4M", "-f raw --preallocation=full disk 6M"),
    ("-f raw disk 4M", "-f raw --preallocation=metadata disk 6M"),
    ("-f raw disk 4M", "-f raw --preallocation=full disk 4M"),
    ("-f raw disk 4M", "-f raw --preallocation=full disk 2M"),
    ("-f raw disk 4M", "-f raw --preallocation=falloc disk 20000G"),
    ("-f raw disk 4M", "-f raw --preallocation=nosuch disk 6M"),
    ("-f raw disk 4M", "--image-opts driver=raw,file.filename=disk,size=1M 2M"),
    ("-f raw disk 4M", "--image-opts driver=raw,file.filename=disk,offset=1M 2M"),
    ("-f raw disk 4M", "--image-opts driver=raw,file.filename=disk,offset=1M 8M"),
    ("-f raw disk 4M", "--image-opts driver=raw,file.filename=disk,offset=1M,read-only=on 2M"),
    ("-f raw disk 4M", "-f cloop disk 8M"),
    ("-f raw disk 4M", "-f qcow2 disk 8M"),
    ("-f raw disk 4M", "-f nosuch disk 8M"),
    ("-f raw disk 4M", "-f raw nosuch 8M"),
    ("-f raw disk 4M", "-f raw . 8M"),
    ("-f raw disk 4M", "-f raw /dev/null 8M"),
    ("-f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 disk 4M", "disk 8M"),
    (SEALED, "--object secret,id=s,data=abc --image-opts driver=luks,key-secret=s,file.filename=disk 8M"),
    (SEALED, "--object secret,id=s,data=abc --image-opts driver=luks,key-secret=s,file.filename=disk +1"),
    (SEALED, "--object secret,id=s,data=abc --shrink --image-opts driver=luks,key-secret=s,file.filename=disk 2M"),
    (SEALED, "--object secret,id=s,data=abc --image-opts driver=luks,key-secret=s,file.filename=disk 2M"),
    (SEALED, "--object secret,id=s,data=wrong --image-opts driver=luks,key-secret=s,file.filename=disk 8M"),
    (
        SEALED,
        "--object secret,id=s,data=abc --preallocation=full --image-opts driver=luks,key-secret=s,file.filename=disk 5M",
    ),
    ("-f qed disk 4M", "disk 8M"),
    ("-f qed disk 4M", "disk 8000001"),
    ("-f qed disk 4M", "--shrink disk 2M"),
    ("-f qed disk 4M", "disk 2M"),
    ("-f qed disk 4M", "disk 4M"),
    ("-f qed disk 4M", "--preallocation=falloc disk 8M"),
    ("-f vdi disk 4M", "disk 8M"),
    ("-f vdi disk 4M", "disk 2M"),
    ("-f vpc disk 4M", "-f vpc disk 8M"),
    ("-f vpc disk 4M", "--shrink disk 2M"),
    ("-f vhdx disk 4M", "disk 8M"),
    ("-f vhdx disk 4M", "--preallocation=full disk 8M"),
    ("-f parallels disk 4M", "disk 8M"),
    ("-f vmdk disk 4M", "disk 8M"),
    ("-f vmdk -o subformat=monolithicFlat disk 4M", "--shrink disk 2M"),
    ("-f qcow disk 4M", "disk 8M"),
];
const SEALED: &str = "-f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 disk 4M";

/// All files of a folder, with their lengths and what is in them.
fn files(folder: &Path) -> Vec<(String, u64, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let about = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        (entry.file_name().to_string_lossy().into_owned(), bytes.len() as u64, bytes)
    };
    files.into_iter().map(about).collect()
}

#[test]
fn images_become_what_the_real_program_makes_of_them() {
    let report = Report::new("cmd resize");
    let made = |words: &str, to: &Path| {
        let scratch = Scratch::new("resize made");
        let words: Vec<&str> = ["create", "-q"].into_iter().chain(words.split(' ')).collect();
        maker().img().folder(scratch.path()).args(&words).must();
        for entry in fs::read_dir(scratch.path()).expect("a folder").flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    };
    for (number, (make, line)) in LINES.iter().enumerate() {
        let (ours, theirs) = (Scratch::new("resize ours"), Scratch::new("resize theirs"));
        let words: Vec<&str> = ["resize"].into_iter().chain(line.split(' ')).collect();
        let images = Scratch::new("resize image");
        made(make, images.path());
        // Each with two of three: they hardly differ.
        let all: Vec<_> = [maker(), newest()].into_iter().chain(version("5.2")).collect();
        for oracle in all.iter().enumerate().filter(|(index, _)| *index != number % 3).map(|(_, oracle)| oracle) {
            if make.contains("parallels") && !oracle.since("6.0") {
                continue;
            }
            let put = |to: &Path| {
                for entry in fs::read_dir(images.path()).expect("a folder").flatten() {
                    fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
                }
            };
            put(theirs.path());
            let want = oracle.img().folder(theirs.path()).args(&words).go();
            for cell in Cell::all() {
                report.tried();
                put(ours.path());
                let got = program().quirky(&oracle.version, *cell).folder(ours.path()).args(&words).go();
                let is_said = (want.out(), want.err(), want.code()) == (got.out(), got.err(), got.code());
                if !is_said || files(ours.path()) != files(theirs.path()) {
                    report.fault(format!(
                        "{make}: {line} | {}\n-{}{}\n+{}{}",
                        oracle.version,
                        want.out(),
                        want.err(),
                        got.out(),
                        got.err()
                    ));
                }
            }
        }
    }
    report.end();
}

#[test]
fn the_native_face_resizes_what_can_be_written_and_tells_of_it() {
    let kinds = [
        ("raw", "-f raw", 8 << 20),
        ("qed", "-f qed", 8 << 20),
        ("vpc", "-f vpc -o force_size=on", 8 << 20),
        ("vhdx", "-f vhdx", 8 << 20),
        ("vmdk", "-f vmdk", 8 << 20),
        ("vmdk", "-f vmdk -o subformat=monolithicFlat", 8 << 20),
        ("vmdk", "-f vmdk -o subformat=twoGbMaxExtentFlat", 8 << 20),
        ("vpc", "-f vpc", 8_390_656),
    ];
    for (format, make, size) in kinds {
        for cell in Cell::all() {
            let scratch = Scratch::new("resize native");
            let words: Vec<&str> =
                ["create", "-q"].into_iter().chain(make.split(' ')).chain(["disk.img", "4M"]).collect();
            maker().img().folder(scratch.path()).args(&words).must();
            let run = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("resize").args(words).go();
            let grown = run(&["--output=json", "-f", format, "disk.img", "8M"]);
            let told: serde_json::Value =
                serde_json::from_str(&grown.out()).unwrap_or_else(|_| panic!("{}", grown.err()));
            assert_eq!(told["filename"], "disk.img");
            assert_eq!(told["format"], format);
            assert_eq!(told["action"], "grow");
            assert_eq!(told["new_virtual_size"], size, "{make}");
            let len = fs::metadata(scratch.path().join("disk.img")).expect("a file").len();
            assert_eq!(told["new_file_size"], len);
            let info = maker().img().folder(scratch.path()).args(["info", "-f", format, "disk.img"]).must().out();
            assert!(info.contains(&format!("({size} bytes)")), "{make}: {info}");
            let ran = run(&["-f", format, "disk.img", "2M"]);
            assert_eq!((ran.end, ran.err().contains("--shrink")), (End::Code(1), true), "{}", ran.err());
            assert_eq!(ran.err().lines().count(), 1);
            let ran = run(&["-f", format, "--shrink", "disk.img", "2M"]);
            assert_eq!((ran.out().as_str(), ran.err().as_str()), ("Image resized.\n", ""), "{make}");
            for (how, words) in [
                ("full", "resize: --preallocation=full is meaningless when shrinking"),
                ("falloc", "resize: --preallocation=falloc is meaningless when shrinking"),
            ] {
                let ran = run(&["-f", format, "--shrink", "--preallocation", how, "disk.img", "1M"]);
                assert_eq!((ran.code(), ran.err()), (Some(1), format!("instar: {words}\n")));
            }
        }
    }
    let scratch = Scratch::new("resize raw");
    scratch.put("disk", vec![0; 1 << 20]);
    let run = |words: &[&str]| program().native(Cell::Process).folder(scratch.path()).arg("resize").args(words).go();
    let ran = run(&["-f", "raw", "--preallocation=metadata", "disk", "2M"]);
    assert_eq!(ran.err(), "instar: resize: --preallocation=metadata is not supported for raw\n");
    assert!(run(&["--output=json", "-f", "raw", "disk", "+0"]).out().contains("\"noop\""));
    let ran = run(&["disk", "2M"]);
    assert_eq!((ran.code(), ran.err().lines().count()), (Some(1), 1), "what nobody claims is not raw");
    assert_eq!(fs::metadata(scratch.path().join("disk")).expect("a file").len(), 1 << 20);
}

#[test]
fn a_disk_whose_bitmaps_are_in_doubt_keeps_its_size() {
    let scratch = Scratch::new("resize bitmaps");
    let folder = scratch.path();
    maker().img().folder(folder).args(["create", "-q", "-f", "qcow2", "a.q", "1M"]).must();
    maker().img().folder(folder).args(["bitmap", "--add", "a.q", "x"]).must();
    // Whoever dies while a bitmap is in use leaves it so.
    maker().io().folder(folder).args(["-c", "write 0 64k", "-c", "flush", "-c", "sigraise 9", "a.q"]).go();
    let report = Report::new("cmd resize bitmaps");
    let lines = ["a.q 1M", "a.q 2M", "--shrink a.q 512k", "a.q 512k", "--preallocation=full a.q 2M"];
    against(&report, folder, "resize", &lines, exact, |_| true);
    report.end();
}

#[test]
fn a_descriptor_that_cannot_change_at_once_is_followed_by_another() {
    for cell in Cell::all() {
        let scratch = Scratch::new("resize heir");
        let path = scratch.path().join("a.vmdk");
        let oracle = |words: &[&str]| maker().img().folder(scratch.path()).args(words).must().out();
        // A sector ends within the line of its last part.
        oracle(&["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "a.vmdk", "25G"]);
        let write = ["-f", "vmdk", "-c", "write -P 7 25769803776 64k", "a.vmdk"];
        maker().io().folder(scratch.path()).args(write).must();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a mode");
        symlink("a.vmdk", scratch.path().join("link.vmdk")).expect("a link");
        let run = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("resize").args(words).go();
        // Whoever knows the file by another name would not get to see the new one.
        fs::hard_link(&path, scratch.path().join("twin")).expect("a name");
        let (before, bytes) = (fs::metadata(&path).expect("a file"), fs::read(&path).expect("bytes"));
        let ran = run(&["a.vmdk", "+4G"]);
        assert!(ran.code() == Some(1) && ran.err().contains("too long to be changed at once"), "{}", ran.err());
        assert!(ran.err().lines().count() == 1 && fs::read(&path).expect("bytes") == bytes);
        fs::remove_file(scratch.path().join("twin")).expect("a file");
        let count = || fs::read_dir(scratch.path()).expect("a folder").count();
        let files = count();
        let ran = run(&["--output=json", "link.vmdk", "+4G"]);
        let told: serde_json::Value = serde_json::from_str(&ran.out()).unwrap_or_else(|_| panic!("{}", ran.err()));
        let now = fs::metadata(&path).expect("a file");
        assert_eq!((&told["new_virtual_size"], &told["new_file_size"]), (&(29u64 << 30).into(), &now.len().into()));
        assert!(now.ino() != before.ino() && now.mode() == before.mode() && count() == files);
        let info = oracle(&["info", "a.vmdk"]);
        assert!(info.contains(&format!("({} bytes)", 29u64 << 30)), "{info}");
        let read = ["-f", "vmdk", "-c", "read -P 7 25769803776 64k", "-c", "read -P 0 27G 1G", "a.vmdk"];
        let read = maker().io().folder(scratch.path()).args(read).must().out();
        assert!(!read.contains("failed"), "{read}");
    }
}
