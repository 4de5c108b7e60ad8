//! New containers: their headers against those that the oracle made, their disks against what it reads in them.

use super::Luks;
use super::disk::Header1;
use super::unlock::tests::plain_two;
use crate::qcow2::Qcow2;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use instar_image::former::Former;
use instar_image::pump::{Carrier, Manner};
use instar_image::stage::Stage;
use instar_image::target::Facts;
use instar_image::target::{Rest, What};
use instar_image::text::until_nul;
use instar_image::{Chain, Drive, Error, Fact, File, Format, Kind, Options, Secret};
use instar_testkit::build::mutate::Noise;
use instar_testkit::content::content;
use instar_testkit::folder::Folder;
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::place::Scratch;
use instar_testkit::workshop::{Order, bytes};
use zerocopy::FromBytes;

extern crate std;

const OBJECT: [&str; 2] = ["--object", "secret,id=key,data=open"];
const SIZE: u64 = 192 << 10;

fn key() -> Option<Secret> {
    Some(Secret(b"open".to_vec()))
}

/// Options as they stand on a command line.
fn options(words: &str) -> Fact {
    let mut options = Fact::fields([("key-secret", "key".into())]);
    for (name, value) in words.split(',').filter_map(|word| word.split_once('=')) {
        match value.parse::<u64>() {
            Ok(number) => options.add(name, number),
            Err(_) if matches!(value, "on" | "off") && name != "preallocation" => options.add(name, value == "on"),
            Err(_) => options.add(name, value),
        }
    }
    options
}

fn order(words: &str) -> Order<'static> {
    Order { options: options(words), key: key(), ..Order::plain(&Luks, SIZE) }
}

/// One that was made of these options, and derives keys in no time.
fn made(scratch: &Scratch, words: &str) -> Vec<u8> {
    let folder = Folder::new(scratch.path());
    order(&format!("iter-time=1,{words}")).create(&folder, "disk.luks").unwrap_or_else(|e| panic!("{words}: {e:?}"));
    let file = bytes(scratch.path(), "disk.luks");
    let header = Header1::read_from_prefix(&file).unwrap().0;
    let want = match u64::from(header.payload_offset.get()) {
        0 => 4040 * 512,
        sectors => sectors * 512 + SIZE,
    };
    assert_eq!(file.len() as u64, want, "{words}");
    file
}

fn text(field: &[u8]) -> String {
    String::from_utf8(until_nul(field).to_vec()).unwrap()
}

/// What is in a header and is not random.
fn summary(file: &[u8]) -> String {
    let header = Header1::read_from_prefix(file).unwrap().0;
    let slots: Vec<String> = header.slots.iter().map(|slot| slot.key_material_offset.get().to_string()).collect();
    format!(
        "{} {} {} {} {} {}",
        text(&header.cipher_name),
        text(&header.cipher_mode),
        text(&header.hash_spec),
        header.payload_offset,
        header.key_bytes,
        slots[1],
    )
}

/// Options, and what stood in the headers that qemu-img 10.0.2 made with them.
const HEADERS: &[(&str, &str)] = &[
    ("", "aes xts-plain64 sha256 4040 64 512"),
    ("cipher-alg=aes-128,cipher-mode=ecb", "aes ecb-plain64 sha256 1032 16 136"),
    ("cipher-alg=aes-128,cipher-mode=cbc", "aes cbc-plain64 sha256 1032 16 136"),
    ("cipher-alg=aes-128,cipher-mode=ctr", "aes ctr-plain64 sha256 1032 16 136"),
    ("cipher-alg=aes-192", "aes xts-plain64 sha256 3016 48 384"),
    ("cipher-alg=cast5-128,cipher-mode=cbc", "cast5 cbc-plain64 sha256 1032 16 136"),
    ("cipher-alg=cast5-128,cipher-mode=ctr", "cast5 ctr-plain64 sha256 1032 16 136"),
    ("cipher-alg=serpent-128", "serpent xts-plain64 sha256 2056 32 264"),
    ("cipher-alg=serpent-256,cipher-mode=cbc,ivgen-alg=essiv", "serpent cbc-essiv:sha256 sha256 2056 32 264"),
    ("cipher-alg=twofish-192", "twofish xts-plain64 sha256 3016 48 384"),
    ("cipher-alg=twofish-256,cipher-mode=ctr", "twofish ctr-plain64 sha256 2056 32 264"),
    ("ivgen-alg=plain", "aes xts-plain sha256 4040 64 512"),
    ("ivgen-alg=plain,ivgen-hash-alg=sha1", "aes xts-plain:sha1 sha256 4040 64 512"),
    ("ivgen-alg=essiv", "aes xts-essiv:sha256 sha256 4040 64 512"),
    ("ivgen-alg=essiv,ivgen-hash-alg=md5", "aes xts-essiv:md5 sha256 4040 64 512"),
    ("cipher-mode=cbc,ivgen-alg=essiv,hash-alg=md5", "aes cbc-essiv:sha256 md5 2056 32 264"),
    ("hash-alg=sha512", "aes xts-plain64 sha512 4040 64 512"),
    ("hash-alg=ripemd160", "aes xts-plain64 ripemd160 4040 64 512"),
    ("hash-alg=sm3", "aes xts-plain64 sm3 4040 64 512"),
];

/// Writes noise to parts of a disk as whoever moves bytes does; the disk afterwards.
fn scribble(folder: &Folder, name: &str, seed: u64) -> Vec<u8> {
    let (file, options) =
        (folder.open_to_write(name.as_bytes()).unwrap(), Options { key: key(), ..Options::default() });
    let opened = Luks.open(File::new(folder, &file), &options).unwrap();
    let mut disk = content(&Chain::single(opened.layer().unwrap()), folder, seed).unwrap();
    let (mut target, mut noise) = (opened.target().unwrap(), Noise::new(seed));
    let cipher = target.cipher().unwrap();
    assert_eq!((target.size(), disk.len() as u64), (SIZE, SIZE));
    for _ in 0..12 {
        let at = noise.below(SIZE / 512) * 512;
        let room = (target.unit() - at % target.unit()).min(SIZE - at);
        let len = 512 + noise.below(room / 512) * 512;
        let mut part: Vec<u8> = (0..len).map(|_| noise.below(256) as u8).collect();
        disk[at as usize..(at + len) as usize].copy_from_slice(&part);
        let spot = target.reserve(folder, at, len, What::Data).unwrap().unwrap();
        assert_eq!(spot.rest, Rest::There);
        cipher.encrypt(spot.tweak.unwrap() / 512, &mut part);
        folder.write(spot.place, &part).unwrap();
    }
    assert!(target.reserve(folder, SIZE - 512, 1024, What::Data).is_err());
    target.seal(folder).unwrap();
    disk
}

/// Two threads share the work.
#[test]
fn headers_and_disks_are_those_of_the_oracle() {
    hold_against_oracle(0);
}

#[test]
fn headers_and_disks_are_those_of_the_oracle_too() {
    hold_against_oracle(1);
}

fn hold_against_oracle(first: usize) {
    for (seed, (words, header)) in HEADERS.iter().enumerate().skip(first).step_by(2) {
        let scratch = Scratch::new("luks-new");
        assert_eq!(summary(&made(&scratch, words)), *header, "{words}");
        let folder = Folder::new(scratch.path());
        let disk = scribble(&folder, "disk.luks", seed as u64);
        let opened = folder.open(b"disk.luks").unwrap();
        let ours = Luks.open(File::new(&folder, &opened), &Options { key: key(), ..Options::default() }).unwrap();
        assert!(content(&Chain::single(ours.layer().unwrap()), &folder, 2).unwrap() == disk, "{words}");
        let old = version("5.2").filter(|_| !words.contains("sm3"));
        for oracle in [Some(newest()), old].into_iter().flatten() {
            let convert = oracle.img().folder(scratch.path()).args(["convert", "-O", "raw"]).args(OBJECT);
            convert.args(["--image-opts", "driver=luks,key-secret=key,file.filename=disk.luks", "out.raw"]).must();
            assert!(bytes(scratch.path(), "out.raw") == disk, "{words}");
        }
    }
}

#[test]
fn all_that_is_not_random_is_the_same() {
    let scratch = Scratch::new("luks-new");
    let ours = made(&scratch, "");
    let create = maker().img().folder(scratch.path()).args(["create", "-q", "-f", "luks"]).args(OBJECT);
    create.args(["-o", "key-secret=key,iter-time=1", "theirs.luks", &SIZE.to_string()]).must();
    let mut both = [ours, bytes(scratch.path(), "theirs.luks")];
    for file in &mut both {
        // Digest, salts, identity, iterations and material; what remains of the identity is its form.
        for (at, len) in
            [(112, 56), (168, 8), (177, 4), (183, 3), (187, 1), (188, 3), (192, 12), (212, 36), (4096, 256_000)]
        {
            file[at..at + len].fill(0);
        }
    }
    assert!(both[0] == both[1]);
}

#[test]
fn a_header_may_lie_apart() {
    let scratch = Scratch::new("luks-new");
    assert_eq!(summary(&made(&scratch, "detached-header=on")), "aes xts-plain64 sha256 0 64 512");
    let folder = Folder::new(scratch.path());
    let both = Order { beside: Some("head.luks"), ..order("iter-time=1,detached-header=on") };
    both.create(&folder, "disk.luks").unwrap();
    assert_eq!(summary(&bytes(scratch.path(), "head.luks")), "aes xts-plain64 sha256 0 64 512");
    assert_eq!(bytes(scratch.path(), "disk.luks").len() as u64, SIZE);
    let beside = Some(folder.open(b"head.luks").unwrap());
    let disk = File::new(&folder, &folder.open_to_write(b"disk.luks").unwrap());
    let opened = Luks.open(disk, &Options { beside, key: key(), ..Options::default() }).unwrap();
    let (mut target, mut part) = (opened.target().unwrap(), vec![7; 1024]);
    let spot = target.reserve(&folder, 512, 1024, What::Data).unwrap().unwrap();
    assert_eq!((spot.place.at, spot.tweak), (512, Some(512)));
    target.cipher().unwrap().encrypt(1, &mut part);
    folder.write(spot.place, &part).unwrap();
    if newest().since("10.0.13") {
        let image = "driver=luks,key-secret=key,file.filename=disk.luks,header.driver=file,header.filename=head.luks";
        let convert = newest().img().folder(scratch.path()).args(["convert", "-O", "raw"]).args(OBJECT);
        convert.args(["--image-opts", image, "out.raw"]).must();
        assert_eq!(bytes(scratch.path(), "out.raw")[512..1536], [7; 1024]);
    }
}

fn refused(order: Order<'_>) -> (Kind, String) {
    let scratch = Scratch::new("luks-new");
    let Error { kind, what, args, .. } = order.create(&Folder::new(scratch.path()), "disk.luks").unwrap_err();
    let mut words = String::from_utf8(what.0).unwrap();
    for arg in args {
        let said = format!("{arg:?}");
        let said = said.split(['(', ')', '"']).rfind(|part| !part.is_empty()).unwrap_or_default().to_string();
        words = words.replacen("{}", &said, 1);
    }
    (kind, words)
}

#[test]
fn what_cannot_be_made_is_refused_in_the_oracle_s_words() {
    for (words, sentence) in [
        ("cipher-alg=nosuch,cipher-mode=nosuch", "Parameter 'cipher-alg' does not accept value 'nosuch'"),
        ("cipher-mode=nosuch", "Parameter 'cipher-mode' does not accept value 'nosuch'"),
        ("ivgen-alg=nosuch", "Parameter 'ivgen-alg' does not accept value 'nosuch'"),
        ("ivgen-hash-alg=nosuch", "Parameter 'ivgen-hash-alg' does not accept value 'nosuch'"),
        ("hash-alg=nosuch", "Parameter 'hash-alg' does not accept value 'nosuch'"),
        ("preallocation=nosuch,cipher-alg=nosuch", "invalid parameter value: nosuch"),
        ("cipher-alg=des,ivgen-alg=essiv", "Algorithm 'des' not supported"),
        ("cipher-alg=3des", "Algorithm '3des' not supported"),
        ("cipher-alg=sm4", "Algorithm 'sm4' not supported"),
        ("cipher-alg=cast5-128", "Unsupported cipher mode xts"),
        ("cipher-alg=cast5-128,ivgen-alg=essiv", "Cipher cast5-128 not supported with essiv"),
        ("cipher-alg=cast5-128,ivgen-alg=essiv,ivgen-hash-alg=md5", "Unsupported cipher mode xts"),
        ("ivgen-alg=essiv,ivgen-hash-alg=sha1", "No AES cipher with key size 20 available"),
        (
            "cipher-alg=twofish-256,ivgen-alg=essiv,ivgen-hash-alg=sha512",
            "No Twofish cipher with key size 64 available",
        ),
        (
            "cipher-alg=serpent-128,ivgen-alg=essiv,ivgen-hash-alg=sha384",
            "No Serpent cipher with key size 48 available",
        ),
    ] {
        assert_eq!(refused(order(words)), (Kind::Unsupported, sentence.to_string()), "{words}");
    }
    let locked = |options| Order { options, ..order("") };
    let none = "Parameter 'key-secret' is required for cipher".to_string();
    assert_eq!(refused(locked(Fact::fields([]))), (Kind::Key, none.clone()));
    assert_eq!(refused(locked(Fact::fields([("cipher-alg", "des".into())]))), (Kind::Key, none));
    for (size, sentence) in [
        (9_223_372_036_854_775_807, "The requested file size is too large"),
        (9_223_372_036_852_707_328, "The requested file size is too large"),
        (9_223_372_036_852_700_000, "offset(9223372036854768480) exceeds maximum(9223372035781033984)"),
        (9_223_372_035_778_965_505, "offset(9223372035781033985) exceeds maximum(9223372035781033984)"),
    ] {
        assert_eq!(refused(Order { size, ..order("") }), (Kind::TooBig, sentence.to_string()), "{size}");
    }
}

fn iterations(words: &str) -> (u32, u32) {
    let scratch = Scratch::new("luks-new");
    order(words).create(&Folder::new(scratch.path()), "disk.luks").unwrap();
    let header = Header1::read_from_prefix(&bytes(scratch.path(), "disk.luks")).unwrap().0;
    (header.mk_digest_iter.get(), header.slots[0].iterations.get())
}

#[test]
fn iterations_are_as_many_as_there_is_time_for() {
    // A key of 64 bytes takes two blocks of SHA-256, or one of SHA-512; a digest of 20 bytes takes one.
    assert_eq!(iterations("reproducible=on,iter-time=10"), (2500, 10_000));
    assert_eq!(iterations("reproducible=on,iter-time=1"), (1000, 1000));
    assert_eq!(iterations("reproducible=on,iter-time=0"), (1000, 1000));
    assert_eq!(iterations("reproducible=on,iter-time=4,cipher-alg=aes-128"), (1000, 8000));
    assert_eq!(iterations("reproducible=on,iter-time=4,hash-alg=sha512"), (1000, 8000));
    let (digest, slot) = iterations("iter-time=400,cipher-alg=aes-128");
    assert!(slot > 8 * 1000 && slot / 8 == digest, "{slot} and {digest}");
    let long = "reproducible=on,iter-time=18446744073709551615";
    let sentence = "PBKDF iterations 2000000 too large to scale: Numerical result out of range";
    assert_eq!(refused(order(long)), (Kind::TooBig, sentence.to_string()));
    let sentence = "PBKDF iterations 5000000000 larger than 4294967295: Numerical result out of range";
    assert_eq!(refused(order("reproducible=on,iter-time=20000000")), (Kind::TooBig, sentence.to_string()));
}

#[test]
fn the_same_seed_makes_the_same_container() {
    let (one, other) = (Scratch::new("luks-new"), Scratch::new("luks-new"));
    assert!(made(&one, "reproducible=on") == made(&other, "reproducible=on"));
}

#[test]
fn space_is_set_aside() {
    use std::os::unix::fs::MetadataExt;
    for (how, least, most) in [("off", 256, 400), ("metadata", 256, 400), ("falloc", 2212, 2300), ("full", 2212, 2300)]
    {
        let scratch = Scratch::new("luks-new");
        let file = made(&scratch, &format!("preallocation={how}"));
        assert_eq!(summary(&file), HEADERS[0].1);
        let space = std::fs::metadata(scratch.path().join("disk.luks")).unwrap().blocks() / 2;
        assert!((least..=most).contains(&space), "{how}: {space} KiB");
    }
}

/// The oracle comes to grief over keys of 24 bytes whose copies do not fill their last sector; cryptsetup does not.
#[test]
fn keys_that_do_not_fill_sectors_open() {
    for words in ["cipher-alg=aes-192,cipher-mode=cbc", "cipher-alg=serpent-192,cipher-mode=cbc,ivgen-alg=essiv"] {
        let scratch = Scratch::new("luks-new");
        assert!(summary(&made(&scratch, words)).ends_with("1544 24 200"), "{words}");
        scribble(&Folder::new(scratch.path()), "disk.luks", 1);
        scratch.put("password", "open");
        let path = scratch.path().join("disk.luks");
        let open = std::process::Command::new("cryptsetup")
            .args(["open", "--test-passphrase", "--type", "luks1", "--key-file"])
            .args([scratch.path().join("password"), path])
            .output();
        let Ok(open) = open else { return };
        let said = String::from_utf8_lossy(&open.stderr);
        // It asks the kernel for what it cannot decrypt itself.
        assert!(open.status.success() || said.contains("device-mapper"), "{words}: {said}");
    }
}

/// Sectors of version 2 may be longer than what is written: what is around it is encrypted again.
#[test]
fn long_sectors_are_written_in_parts() {
    let (scratch, (file, plain)) = (Scratch::new("luks-new"), plain_two(8));
    let parts = [(512, 512), (1024, 3584), (4096, 4096), (3584, 1024), (0, 8192), (7680, 512)];
    for (from, len) in parts {
        scratch.put("disk.luks", &file);
        let folder = Folder::new(scratch.path());
        let disk = File::new(&folder, &folder.open_to_write(b"disk.luks").unwrap());
        let opened = Luks.open(disk, &Options { key: key(), ..Options::default() }).unwrap();
        let mut target = opened.target().unwrap();
        let own = Chain::single(opened.layer().unwrap());
        let former = Former { own, below: Chain { layers: Vec::new() }, is_known: true, next: None };
        let manner = Manner { sparse: 0, is_zero: false, is_clean: true, offload: false, by_hand: false };
        let mut stage = Stage::new(&Facts::of(&*target, false), Some(&former), &folder, manner);
        stage.begin(0);
        stage.blank(from, len).unwrap();
        stage.gathered();
        stage.reserve(&mut *target).unwrap();
        stage.write().unwrap();
        let mut want = plain.clone();
        want[from as usize..(from + len) as usize].fill(0);
        assert!(content(&former.own, &folder, 3).unwrap() == want, "{len} bytes at {from}");
    }
}

/// Options of qcow2, and where qemu-img 10.0.2 put the header into an image of 3 MiB; and the length of that.
const INSIDE: &[(&str, u64, u64)] = &[
    ("cluster_size=65536", 0x40000, 0x24_0000),
    ("cluster_size=512", 0xa00, 0x1f_b800),
    ("cluster_size=4096", 0x4000, 0x1f_d000),
    ("cluster_size=2097152", 0x80_0000, 0xa0_0000),
    ("cluster_size=512,refcount_bits=1", 0xa00, 0x1f_9a00),
    ("preallocation=metadata", 0x35_0000, 0x55_0000),
    ("preallocation=full", 0x35_0000, 0x55_0000),
    ("compat=0.10", 0x4_0000, 0x24_0000),
];

#[test]
fn a_header_lies_inside_qcow2_where_the_oracle_has_it() {
    for (words, at, len) in INSIDE {
        let scratch = Scratch::new("luks-new");
        let folder = Folder::new(scratch.path());
        let locked = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1,encrypt.cipher-alg=aes-256";
        let order =
            Order { options: options(&format!("{locked},{words}")), key: key(), ..Order::plain(&Qcow2, 3 << 20) };
        order.create(&folder, "disk.qcow2").unwrap();
        let file = bytes(scratch.path(), "disk.qcow2");
        assert_eq!(file.len() as u64, *len, "{words}");
        assert_eq!(summary(&file[*at as usize..]), HEADERS[0].1, "{words}");
        assert_eq!(text(&file[*at as usize..][..4]), "LUKS");
        for oracle in [maker(), newest()] {
            let image = "driver=qcow2,encrypt.key-secret=key,file.filename=disk.qcow2";
            oracle.img().folder(scratch.path()).args(["check", "-q"]).args(OBJECT).args(["--image-opts", image]).must();
            let io = oracle.io().folder(scratch.path()).args(OBJECT).args(["--image-opts", image]);
            io.args(["-c", "write -P 5 1M 100k", "-c", "read -P 5 1M 100k"]).must();
        }
    }
}

#[test]
fn all_that_is_not_random_is_the_same_inside_qcow2() {
    let scratch = Scratch::new("luks-new");
    let locked = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1,cluster_size=512";
    let order = Order { options: options(locked), key: key(), ..Order::plain(&Qcow2, SIZE) };
    order.create(&Folder::new(scratch.path()), "ours").unwrap();
    let create = maker().img().folder(scratch.path()).args(["create", "-q", "-f", "qcow2"]).args(OBJECT);
    create.args(["-o", locked, "theirs", &SIZE.to_string()]).must();
    let at = 0x800;
    let mut both = ["ours", "theirs"].map(|name| bytes(scratch.path(), name));
    for file in &mut both {
        assert_eq!(text(&file[at..at + 4]), "LUKS");
        for (from, len) in [(112, 92), (212, 36), (4096, 256_000)] {
            file[at + from..at + from + len].fill(0);
        }
    }
    assert!(both[0] == both[1]);
}
