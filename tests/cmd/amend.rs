//! `amend`: held against the real program, and its native answers.

use crate::against::differences;
use instar_testkit::oracle::{maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Run};
use instar_tests::report::Report;
use std::fs;
use std::path::Path;

/// The images; each line is about a copy of one.
const IMAGES: &[&str] = &[
    "v3 qcow2 -o compat=1.1",
    "v2 qcow2 -o compat=0.10",
    "lazy qcow2 -o lazy_refcounts=on",
    "wide qcow2 -o refcount_bits=64",
    "apart qcow2 -o data_file=apart.data",
    "rawly qcow2 -o data_file=rawly.data,data_file_raw=on",
    "extended qcow2 -o extended_l2=on",
    "plain raw",
    "other vdi",
    "box luks --object secret,id=one,data=one -o key-secret=one,iter-time=10",
    "sealed qcow2 --object secret,id=one,data=one -o \
     encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=10",
];

/// An image, and the words about it; `@` is its name.
const LINES: &[&str] = &[
    "v3 -f qcow2 -o compat=1.1 @",
    "v3 -o compat=v2 @",
    "v3 -o compat=9 @",
    "v2 -o lazy_refcounts=on @",
    "v2 -o lazy_refcounts=off @",
    "v2 -o compat=v3,lazy_refcounts=on,size=2M @",
    "lazy -o compat=0.10 @",
    "wide -o compat=0.10 @",
    "wide -o compat=0.10,refcount_bits=16 @",
    "v2 -o refcount_bits=8 @",
    "v3 -o refcount_bits=3 @",
    "v3 -q -p -o refcount_bits=64 @",
    "v3 -o data_file=x @",
    "v3 -o data_file_raw=on @",
    "apart -o data_file=x @",
    "apart -o data_file= @",
    "apart -o compat=0.10 @",
    "apart -o size=2M @",
    "rawly -o data_file_raw=off @",
    "rawly -o data_file_raw=on @",
    "extended -o compat=0.10 @",
    "v3 -o cluster_size=4k @",
    "v3 -o foo=1,cluster_size=4k @",
    "v3 -o nosuch=1 @",
    "v3 -o size=abc @",
    "v3 -o size=1000 @",
    "v3 -o size=512k @",
    "v3 -o size=3M,compat=0.10 @",
    "v3 -o encrypt.state=active @",
    "v3 -o backing_file=plain @",
    "v3 -o lazy_refcounts=maybe @",
    "v3 -o help @",
    "plain -f raw -o size=2M @",
    "other -o size=2M @",
    "v3 -f raw -o help",
    "v3 -f nosuch -o help",
    "v3 -f luks -o help",
    "v3 -o compat=1.1 nosuch",
    "v3 -t nosuch -o compat=1.1 @",
    "box OBJECTS -o state=active,new-secret=two,iter-time=10 --image-opts driver=luks,file.filename=@,key-secret=one",
    "box OBJECTS -o state=active,new-secret=gone --image-opts driver=luks,file.filename=@,key-secret=one",
    "box OBJECTS -o state=active,new-secret=two,keyslot=0 --image-opts driver=luks,file.filename=@,key-secret=one",
    "box OBJECTS -o state=active,new-secret=two,keyslot=-1 --image-opts driver=luks,file.filename=@,key-secret=one",
    "box OBJECTS --force -o state=inactive,keyslot=0 --image-opts driver=luks,file.filename=@,key-secret=one",
    "box OBJECTS -o state=inactive,old-secret=one --image-opts driver=luks,file.filename=@,key-secret=one",
    "box OBJECTS -o state=inactive,old-secret=two --image-opts driver=luks,file.filename=@,key-secret=two",
    "box OBJECTS -o size=2M --image-opts driver=luks,file.filename=@,key-secret=one",
    "sealed OBJECTS -o encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=10 --image-opts \
     driver=qcow2,file.filename=@,encrypt.key-secret=one",
    "sealed OBJECTS -o encrypt.new-secret=two --image-opts driver=qcow2,file.filename=@,encrypt.key-secret=one",
    "sealed OBJECTS -o compat=0.10 --image-opts driver=qcow2,file.filename=@,encrypt.key-secret=one",
];

fn make(folder: &Path) {
    for image in IMAGES {
        let words: Vec<&str> = image.split_whitespace().collect();
        let (name, format, options) = (words[0], words[1], &words[2..]);
        let img = maker().img().folder(folder).args(["create", "-q", "-f", format]).args(options);
        img.args([name, "1M"]).must();
    }
}

fn words(line: &str) -> Vec<String> {
    let objects = "--object secret,id=one,data=one --object secret,id=two,data=two";
    let (_, line) = line.split_once(' ').expect("an image and words");
    line.replace("OBJECTS", objects).replace('@', "image").split_whitespace().map(str::to_owned).collect()
}

/// What qemu-img says of the image itself; of one with keys, which are others every time, nothing.
fn told(folder: &Path, line: &str) -> String {
    if line.starts_with("box") || line.starts_with("sealed") {
        return String::new();
    }
    let out = maker().img().folder(folder).args(["info", "--output=json", "image"]).go().out();
    let mut told: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
    for key in ["children", "actual-size"] {
        told.as_object_mut().map(|told| told.remove(key));
    }
    told.to_string()
}

#[test]
fn every_answer_is_the_real_programs() {
    let scratch = Scratch::new("amend");
    let folder = scratch.path();
    make(folder);
    let report = Report::new("cmd amend");
    for (number, line) in LINES.iter().enumerate() {
        for oracle in oracles() {
            let cell = Cell::all()[(number + oracle.version.len()) % Cell::all().len()];
            let go = |run: Run| {
                let image = line.split_whitespace().next().expect("an image");
                fs::copy(folder.join(image), folder.join("image")).expect("a copy");
                let ran = run.folder(folder).arg("amend").args(words(line)).go();
                (ran, told(folder, line))
            };
            let run = program().quirky(&oracle.version, cell);
            let ((want, theirs), (got, ours)) = (go(oracle.img()), go(run.clone()));
            report.tried();
            let mut differs = differences(&want, &got, |bytes| bytes.to_vec());
            if ours != theirs {
                differs += &format!("  it is now\n{ours}\nnot\n{theirs}\n");
            }
            if !differs.is_empty() {
                report.fault(format!("{} {line}\n{differs}", oracle.version));
            }
        }
    }
    report.end();
}

#[test]
fn the_native_answers_tell_whether_anything_changed() {
    let scratch = Scratch::new("amend native");
    let folder = scratch.path();
    make(folder);
    for cell in Cell::all() {
        let run = |words: &[&str]| program().native(*cell).folder(folder).arg("amend").args(words).go();
        fs::copy(folder.join("v3"), folder.join("image")).expect("a copy");
        let before = fs::read(folder.join("image")).expect("an image");
        let ran = run(&["-o", "compat=1.1,refcount_bits=16,size=1M", "image"]);
        assert_eq!((ran.end, ran.out().as_str()), (End::Code(0), "No change.\n"), "{}", ran.err());
        assert!(fs::read(folder.join("image")).expect("an image") == before);
        let ran = run(&["-o", "compat=0.10", "image"]);
        assert_eq!((ran.end, ran.out().as_str()), (End::Code(0), "Image amended.\n"), "{}", ran.err());
        let ran = run(&["--output=json", "-o", "compat=1.1,lazy_refcounts=on", "image"]);
        let answer: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!(answer["action"], "amended", "{}", ran.out());
        assert_eq!(answer["compat"], "1.1", "{}", ran.out());
        assert_eq!(answer["lazy_refcounts"], true, "{}", ran.out());
        let ran = run(&["--output=json", "-o", "compat=1.1", "image"]);
        let answer: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!((&answer["action"], &answer["format"]), (&"noop".into(), &"qcow2".into()), "{}", ran.out());
        for (list, said) in [
            ("size=512k", "resize --shrink"),
            ("compat=0.10,lazy_refcounts=on", "Lazy refcounts only supported"),
            ("refcount_bits=5", "power of two"),
            ("backing_file=x", "Cannot amend the backing file"),
        ] {
            let before = fs::read(folder.join("image")).expect("an image");
            let ran = run(&["-o", list, "image"]);
            assert_eq!(ran.end, End::Code(1), "{list}");
            assert!(ran.err().contains(said) && ran.out().is_empty(), "{list}: {}", ran.err());
            assert!(fs::read(folder.join("image")).expect("an image") == before, "{list}");
        }
        // The mark of one who has not closed it.
        let mut image = before;
        image[79] |= 1;
        fs::write(folder.join("image"), &image).expect("an image");
        let ran = run(&["-o", "lazy_refcounts=on", "image"]);
        assert_eq!(ran.end, End::Code(1));
        assert!(ran.err().contains("check -r all"), "{}", ran.err());
        assert!(fs::read(folder.join("image")).expect("an image") == image);
    }
}
