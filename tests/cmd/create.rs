//! `create`, held against every version of the real program; its own words; and what it leaves behind.

use crate::copies::compare;
use instar_testkit::holder::{Way, hold};
use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{Ran, Run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;

const LINES: &[&str] = &[
    "o 1M",
    "-q o 1M",
    "-f raw o 1000",
    "-f raw o 0",
    "-f raw -o size=1M,size=2M o",
    "-f raw -o preallocation=full o 300k",
    "-f raw -o preallocation=falloc,nocow=yes,extent_size_hint=0 o 300k",
    "-f raw -o preallocation=foo o 1M",
    "-f file o 1M",
    "-f host_device o 1M",
    "-f raw file:o 1M",
    "-f raw file:./o:x 1M",
    "-f raw a:b 1M",
    "-f bochs a:b 1M",
    "-f nosuch a:b 1M",
    "-f raw no/such 1M",
    "-f raw dir 1M",
    "-f raw dir/ 1M",
    "-f raw fifo 1M",
    "-f raw dangling 1M",
    "-f raw link.raw 1M",
    "-f raw hard1 1M",
    "-f raw big.raw 1M",
    "-f raw /dev/null 1M",
    "-f raw -b a.raw o 1M",
    "-f raw -F raw o 1M",
    "-f vpc -b a.raw -F raw o 1M",
    "-f qcow2 small.raw 1M",
    "-f qcow2 ./o:x 1M",
    "-f qcow2 o 1M x",
    "-f qcow2 o",
    "-u -f qcow2 o",
    "-f qcow2 -u -b a.raw -F raw o",
    "-f qcow2 -u -b nope -F raw o 1M",
    "-f qcow2 -u -b a.raw o 1M",
    "-f qcow2 -u -b a.raw -F nosuch o 1M",
    "-f qcow2 -b a.raw -F raw o",
    "-f qcow2 -b odd.raw -F raw o",
    "-f qcow2 -b empty.raw -F raw o",
    "-f qcow2 -b a.raw -F raw o 1M",
    "-f qcow2 -b a.raw -F raw -o size=3M o",
    "-f qcow2 -b a.raw -F raw -o backing_file=odd.raw,backing_fmt=qcow2 o",
    "-f qcow2 -b ../a.raw -F raw dir/o",
    "-f qcow2 -b a.raw -F raw dir/o",
    "-f qcow2 -b file:a.raw -F raw o",
    "-f qcow2 -b foo:x -F raw o",
    "-f qcow2 -b a.raw o",
    "-f qcow2 -b d.qcow2 o",
    "-f qcow2 -o compat=0.10,refcount_bits=4 o 1M",
    "-f qcow2 -o compat=0.10,lazy_refcounts=on -F raw o 1M",
    "-f qcow2 -o compat=0.10,refcount_bits=4,data_file=x o 1M",
    "-f qcow2 -o extended_l2=on,preallocation=metadata o 100k",
    "-f qcow2 -o extended_l2=on,data_file=x,data_file_raw=on o 1000",
    "-f qcow2 -o data_file=x,preallocation=metadata o 1000",
    "-f qcow2 -b d.vmdk o 1M",
    "-f qcow2 -b d.qcow2 -F qcow2 o",
    "-f qcow2 -b top.qcow2 -F qcow2 o 1M",
    "-f qcow2 -b enc.qcow2 -F qcow2 o",
    "-f qcow2 -b d.luks -F luks o",
    "-f qcow2 -b miss.qcow2 -F qcow2 o",
    "-f qcow2 -b badfmt.qcow2 -F qcow2 o",
    "-f qcow2 -b a.raw -F qcow2 o",
    "-f qcow2 -b a.raw -F nosuch o",
    "-f qcow2 -b nope -F raw o",
    "-f qcow2 -b dir -F raw o",
    "-f qcow2 -b o -F raw o",
    "-f qcow2 -b ./o -F raw o",
    "-f qcow2 -o backing_file= o 1M",
    "-f qcow2 -o backing_fmt=raw o 1M",
    "-f qcow2 -o cluster_size=4k,refcount_bits=0x8,lazy_refcounts=y o 5M",
    "-f qcow2 -o nolazy_refcounts,compat=0.10 o 5M",
    "-f qcow2 -o preallocation=metadata o 5M",
    "-f qcow2 -o preallocation=full o 0",
    "-f qcow2 -o preallocation=falloc,compat=0.10,cluster_size=4k o 0",
    "-f qcow2 -o preallocation=full,cluster_size=512,refcount_bits=64 o 300k",
    "-f qcow2 -o data_file=d o 1M",
    "-f qcow2 -o data_file=d dir/o 1M",
    "-f qcow2 -o data_file=small.raw o 1M",
    "-f qcow2 -o data_file=d,data_file_raw=on o 1M",
    "-f qcow2 -o keep_data_file=on o 1M",
    "-f qcow2 -o data_file=small.raw,keep_data_file=on o 1M",
    "-f qcow2 -o data_file=small.raw,keep_data_file=on,data_file_raw=on o 1M",
    "-f qcow2 -o data_file=small.raw,keep_data_file=on,data_file_raw=on o 64k",
    "-f qcow2 -o data_file=small.raw,keep_data_file=on,preallocation=metadata o 1000000",
    "-f qcow2 -o data_file=small.raw,keep_data_file=on,preallocation=falloc o 1M",
    "-f qcow2 -o data_file=small.raw,keep_data_file=on,data_file_raw=on,preallocation=full o 1M",
    "-f qcow2 -o data_file=d,keep_data_file=on,data_file_raw=on o 1M",
    "-f qcow2 -o encrypt.format=luks,encrypt.key-secret=nope o 1M",
    "-f qcow2 -o size=abc o",
    "-f qcow2 -o size=1M o 1M",
    "-f qcow2 -o nosuch=1 o 1M",
    "-f qcow2 -o help o",
    "-f qcow2 -o help",
    "-f vdi -o help /dev/null",
    "-f bochs -o help o",
    "-f nosuch -o help",
    "-o ? o",
    "-f qed o 16M",
    "-f qed -o cluster_size=4k,table_size=1 -b a.raw -F raw o",
    "-f qcow o 16M",
    "-f luks -o key-secret=sec9 o 1M",
    "-f vdi -o preallocation=foo o 1M",
];

#[test]
fn what_is_made_is_what_the_real_program_makes() {
    // What a failure leaves behind is ours not to leave.
    let of = |line: &&str| !line.contains("data_file=no");
    let lines: Vec<&str> = LINES.iter().copied().filter(of).collect();
    compare("cmd create", "create", &lines);
}

fn native(scratch: &Scratch, line: &str) -> Ran {
    run(scratch, line).go()
}

fn run(scratch: &Scratch, line: &str) -> Run {
    let cell = Cell::all()[line.len() % Cell::all().len()];
    program().native(cell).folder(scratch.path()).arg("create").args(line.split_whitespace())
}

fn info(scratch: &Scratch, name: &str) -> Value {
    let told = maker().img().folder(scratch.path()).args(["info", "-U", "--output=json", name]).must();
    serde_json::from_slice(&told.stdout).expect("a document")
}

#[test]
fn the_instar_face_tells_what_it_made() {
    let scratch = Scratch::new("create");
    let told = native(&scratch, "-f qcow2 a 64M");
    assert_eq!((told.out().as_str(), told.code()), ("Created: a (qcow2, 64 MiB, units of 65536 bytes)\n", Some(0)));
    assert_eq!(native(&scratch, "-q -f vdi v 3M").out(), "");
    let told = native(
        &scratch,
        "--output=json -f qcow2 --cluster-size 4k --refcount-bits 8 --extended-l2 -o extended_l2=off b 10M",
    );
    let page: Value = serde_json::from_slice(&told.stdout).expect("a document");
    let keys: Vec<&String> = page.as_object().expect("an object").keys().collect();
    let want =
        ["file_size_after", "filename", "format", "metadata_bytes_written", "resolved_unit_size", "virtual_size"];
    assert_eq!(keys.len(), want.len());
    assert!(want.iter().all(|key| page.get(key).is_some()), "{page}");
    assert_eq!((page["resolved_unit_size"].as_u64(), page["virtual_size"].as_u64()), (Some(4096), Some(10 << 20)));
    assert_eq!(page["file_size_after"].as_u64(), fs::metadata(scratch.path().join("b")).ok().map(|about| about.len()));
    let specific = &info(&scratch, "b")["format-specific"]["data"];
    assert_eq!((specific["refcount-bits"].as_u64(), specific["extended-l2"].as_bool()), (Some(8), Some(false)));
    native(&scratch, "-f qcow2 --compat 0.10 --preallocation metadata c 1M");
    assert_eq!(info(&scratch, "c")["format-specific"]["data"]["compat"], "0.10");
    native(&scratch, "-f qcow2 --lazy-refcounts l 1M");
    assert_eq!(info(&scratch, "l")["format-specific"]["data"]["lazy-refcounts"], true);
    native(&scratch, "-f vmdk --grain-size 128k m 1M");
    assert_eq!(info(&scratch, "m")["format-specific"]["data"]["extents"][0]["cluster-size"], 128 << 10);
    let noise: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(scratch.path().join("noise"), noise).expect("a file");
    let stream = "-f raw -O vmdk -o subformat=streamOptimized,grain_size=2M noise stream";
    program().native(Cell::all()[0]).folder(scratch.path()).arg("convert").args(stream.split(' ')).must();
    maker().img().folder(scratch.path()).args(["compare", "-f", "raw", "-F", "vmdk", "noise", "stream"]).must();
    for line in ["-f vmdk --grain-size 100k n 1M", "-f vmdk --subformat monolithicFlat --grain-size 64k n 1M"] {
        let told = native(&scratch, line);
        assert_eq!((told.code(), told.out().as_str()), (Some(1), ""), "{line}");
    }
    let told = native(&scratch, "--output=json -f qcow2 -b nope -F raw n");
    assert!(told.code() == Some(1) && told.out().is_empty() && told.err().lines().count() == 1, "{}", told.err());
}

#[test]
fn a_wrong_name_for_what_is_below_loses_against_its_bytes() {
    let scratch = Scratch::new("create");
    native(&scratch, "-q -f vdi v 3M");
    fs::write(scratch.path().join("plain"), vec![b'x'; 5000]).expect("a file");
    assert_eq!(native(&scratch, "-f qcow2 -b v -F qcow2 o").code(), Some(0));
    let told = info(&scratch, "o");
    assert_eq!((&told["backing-filename-format"], told["virtual-size"].as_u64()), (&"vdi".into(), Some(3 << 20)));
    // Raw is what the user says is raw, whatever its bytes look like.
    assert_eq!(native(&scratch, "-f qcow2 -b v -F raw o").code(), Some(0));
    assert_eq!(info(&scratch, "o")["backing-filename-format"], "raw");
    // Who says nothing is asked to, unless nobody looks.
    let told = native(&scratch, "-f qcow2 -b v p");
    assert_eq!(told.err(), "instar: p: Backing file specified without backing format; Detected format of vdi.\n");
    assert_eq!(native(&scratch, "-u -f qcow2 -b v p 1M").code(), Some(0));
    let told = native(&scratch, "-f qcow2 -b plain -F vdi q");
    assert!(told.code() == Some(1) && !scratch.path().join("q").exists(), "{}", told.err());
    let told = native(&scratch, "-f qcow2 q 7E");
    let words = "instar: q: The image size is too large for file format 'qcow2' (try using a larger cluster size)\n";
    assert_eq!(told.err(), words);
}

#[test]
fn all_files_of_an_image_appear_or_none() {
    let scratch = Scratch::new("create");
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(scratch.path()).expect("the folder").flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    let line = "-f vmdk -o subformat=twoGbMaxExtentSparse o.vmdk 5G";
    assert_eq!(native(&scratch, line).code(), Some(0));
    assert_eq!(names(), ["o-s001.vmdk", "o-s002.vmdk", "o-s003.vmdk", "o.vmdk"]);
    maker().img().folder(scratch.path()).args(["check", "o.vmdk"]).must();
    // In the way of the last of them stands what cannot be replaced.
    let before = fs::read(scratch.path().join("o-s001.vmdk")).expect("a file");
    let inode = fs::metadata(scratch.path().join("o-s001.vmdk")).expect("a file").ino();
    fs::remove_file(scratch.path().join("o-s003.vmdk")).expect("gone");
    fs::create_dir(scratch.path().join("o-s003.vmdk")).expect("a folder");
    let told = native(&scratch, "-f vmdk -o subformat=twoGbMaxExtentSparse o.vmdk 6G");
    assert_eq!(told.code(), Some(1), "{}", told.out());
    assert_eq!(names(), ["o-s001.vmdk", "o-s002.vmdk", "o-s003.vmdk", "o.vmdk"]);
    assert_eq!(fs::read(scratch.path().join("o-s001.vmdk")).expect("a file"), before);
    assert_eq!(fs::metadata(scratch.path().join("o-s001.vmdk")).expect("a file").ino(), inode);
    // The data file comes with the image, or neither does.
    fs::create_dir(scratch.path().join("sub")).expect("a folder");
    assert_eq!(native(&scratch, "-q -f qcow2 -o data_file=d sub/o 1M").code(), Some(0));
    assert!(scratch.path().join("sub/d").exists(), "a data file is found from where its image is");
    assert_eq!(native(&scratch, "-q -f qcow2 -o data_file=no/such x 1M").code(), Some(1));
    assert_eq!(native(&scratch, "-q -f qcow2 -o data_file=x x 1M").code(), Some(1));
    assert!(!scratch.path().join("x").exists());
}

#[test]
fn the_same_command_makes_the_same_bytes_if_it_is_asked_to() {
    let scratch = Scratch::new("create");
    let make = |line: &str| {
        run(&scratch, line).must();
        fs::read(scratch.path().join("o")).expect("an image")
    };
    for format in ["vdi", "vhdx", "qcow2", "vmdk"] {
        let line = format!("-f {format} --reproducible o 3M");
        assert!(make(&line) == make(&line), "{format}");
    }
    assert!(make("-f vdi o 3M") != make("-f vdi o 3M"));
    assert!(make("-f vdi --reproducible o 3M") != make("-f vdi --reproducible o 4M"));
    let dated = |date: &str| {
        run(&scratch, "-f vdi o 3M").env("SOURCE_DATE_EPOCH", date).must();
        fs::read(scratch.path().join("o")).expect("an image")
    };
    assert!(dated("5") == dated("5") && dated("5") != dated("6"));
    let sealed = "--object secret,id=s,data=x -f luks -o key-secret=s,iter-time=10 --reproducible p 1M";
    assert_eq!(native(&scratch, sealed).code(), Some(1), "keys that everybody knows are none");
}

#[test]
fn what_is_in_use_is_not_made_anew() {
    let scratch = Scratch::new("create");
    native(&scratch, "-q -f qcow2 o 1M");
    let which = || fs::metadata(scratch.path().join("o")).expect("an image").ino();
    let before = which();
    let holder = hold(maker(), Way::Writes, "qcow2", scratch.path(), "o");
    let told = native(&scratch, "-f qcow2 o 1M");
    let words = "instar: o: Failed to get \"write\" lock; Is another process using the image [o]?\n";
    assert_eq!((told.code(), told.err().as_str()), (Some(1), words));
    assert_eq!(which(), before);
    drop(holder);
}

#[test]
fn a_device_that_was_in_use_holds_a_clean_image() {
    let scratch = Scratch::new("create");
    let disk = scratch.path().join("disk");
    fs::write(&disk, vec![0xee; 4 << 20]).expect("a disk");
    let Some(device) = Run::new("losetup").args(["-f", "--show"]).arg(&disk).go().code_is(0) else {
        return skipped("images on devices: no loop device can be had");
    };
    let device = device.trim().to_owned();
    let told = native(&scratch, &format!("-f qcow2 {device} 1M"));
    let checked = maker().img().args(["check", "-f", "qcow2", &device]).go();
    let twice = native(&scratch, &format!("-f raw {device} 1G"));
    Run::new("losetup").args(["-d", &device]).must();
    assert_eq!((told.code(), checked.code()), (Some(0), Some(0)), "{}{}", told.err(), checked.err());
    assert!(twice.err().ends_with("Cannot grow device files\n"), "{}", twice.err());
}

/// What a program said, if it ended well.
trait Said {
    fn code_is(self, code: i32) -> Option<String>;
}

impl Said for Ran {
    fn code_is(self, code: i32) -> Option<String> {
        (self.code() == Some(code)).then(|| self.out())
    }
}
