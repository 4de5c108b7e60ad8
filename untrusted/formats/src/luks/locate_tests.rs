//! Where LUKS says that bytes are: containers of both versions, held against what qemu-img and cryptsetup make of them.

use super::Luks;
use super::unlock::tests::{PASSWORD, plain_two};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::{Chain, File, Format, Kind, Options, Secret};
use instar_testkit::build::mutate::Noise;
use instar_testkit::content::content;
use instar_testkit::folder::Folder;
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::place::Scratch;

extern crate std;

const OBJECT: [&str; 2] = ["--object", "secret,id=key,data=open"];

fn options() -> Options {
    Options { key: Some(Secret(PASSWORD.to_vec())), ..Options::default() }
}

/// Fills a container through qemu-io; `image` is what it is told of it.
fn scribble(scratch: &Scratch, image: &str, seed: u64) {
    let mut noise = Noise::new(seed);
    let mut words: Vec<String> = Vec::new();
    for _ in 0..8 {
        let (at, len) = (noise.below(100) * 512, (1 + noise.below(90)) * 512);
        words.extend(["-c".into(), format!("write -P {} {at} {len}", 1 + noise.below(255))]);
    }
    maker().io().folder(scratch.path()).args(OBJECT).args(words).args(["--image-opts", image]).must();
}

#[test]
fn version_1_is_read_as_by_the_oracle() {
    let image = "driver=luks,key-secret=key,file.filename=disk.luks";
    // Few, as every key takes seconds to derive. A container that is cut ends with what zeroes decrypt to.
    let essiv = ",cipher-alg=serpent-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256";
    for (seed, (more, cut)) in [("", 612), (essiv, 0)].into_iter().enumerate() {
        let scratch = Scratch::new("luks-map");
        let words = format!("key-secret=key,iter-time=1{more}");
        let create = maker().img().folder(scratch.path()).args(["create", "-q"]).args(OBJECT);
        create.args(["-f", "luks", "-o", &words, "disk.luks", "100k"]).must();
        scribble(&scratch, image, seed as u64);
        let path = scratch.path().join("disk.luks");
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        let io = Folder::new(scratch.path());
        let opened = Luks.open(File::new(&io, &io.open(b"disk.luks").unwrap()), &options()).unwrap();
        let layer = opened.layer().unwrap();
        assert!(!layer.is_open());
        let ours = content(&Chain::single(layer), &io, cut).unwrap();
        let convert = maker().img().folder(scratch.path()).args(["convert", "-O", "raw"]).args(OBJECT);
        convert.args(["--image-opts", image, "out.raw"]).must();
        assert!(ours == std::fs::read(scratch.path().join("out.raw")).unwrap(), "{more} without {cut} bytes");
    }
}

#[test]
fn a_header_of_its_own_leaves_the_payload_at_the_beginning() {
    if !newest().since("10.0.13") {
        return;
    }
    let scratch = Scratch::new("luks-map");
    let create = newest().img().folder(scratch.path()).args(["create", "-q"]).args(OBJECT);
    create.args(["-f", "luks", "-o", "detached-header=on,key-secret=key,iter-time=1", "head.luks"]).must();
    scratch.put("disk.luks", vec![0; 64 << 10]);
    let image = "driver=luks,key-secret=key,file.filename=disk.luks,header.driver=file,header.filename=head.luks";
    let words = ["-c", "write -P 7 0 64k", "-c", "write -P 9 10k 20k", "--image-opts", image];
    newest().io().folder(scratch.path()).args(OBJECT).args(words).must();
    let io = Folder::new(scratch.path());
    let beside = Some(io.open(b"head.luks").unwrap());
    let disk = File::new(&io, &io.open(b"disk.luks").unwrap());
    let opened = Luks.open(disk, &Options { beside, ..options() }).unwrap();
    let mut plain = vec![7; 64 << 10];
    plain[10 << 10..30 << 10].fill(9);
    assert!(content(&Chain::single(opened.layer().unwrap()), &io, 1).unwrap() == plain);
}

#[test]
fn version_2_has_longer_sectors() {
    let (bytes, plain) = plain_two(8);
    let io = MemIo::new(bytes);
    let opened = Luks.open(File::new(&io, &io.top()), &options()).unwrap();
    assert!(content(&Chain::single(opened.layer().unwrap()), &io, 1).unwrap() == plain);
    // dm-crypt does not count sectors from the middle of one either.
    let io = MemIo::new(plain_two(3).0);
    let refused = Luks.open(File::new(&io, &io.top()), &options()).unwrap().layer();
    assert_eq!(refused.err().unwrap().kind, Kind::Unsupported);
}

#[test]
fn who_has_no_key_is_refused() {
    let io = MemIo::new(plain_two(8).0);
    for (key, words) in [
        (None, "Parameter '{}' is required for cipher"),
        (Some(&b"falsch"[..]), "Invalid password, cannot unlock any keyslot"),
    ] {
        let options = Options { key: key.map(|key| Secret(key.to_vec())), ..Options::default() };
        let image = Luks.open(File::new(&io, &io.top()), &options).unwrap();
        for error in [image.unlock().unwrap_err(), image.layer().err().unwrap()] {
            assert_eq!((error.kind, &error.what.0[..]), (Kind::Key, words.as_bytes()));
        }
    }
}
