//! What others read from our images who share no code with qemu: libyal's libraries, 7-Zip, nbdkit, cryptsetup, and the
//! kernel.

use crate::devices::Loop;
use crate::formats::{FORMATS, Format, SECRET};
use crate::judge::{content, ours, put, quietly, same, seed};
use instar_testkit::build::partition::crc32;
use instar_testkit::images::each;
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Run};
use instar_tests::report::Report;
use std::collections::BTreeSet;
use std::fs::read;
use std::path::Path;

/// Python that comes with the packages of the system, and what it is told: a library, an image, and where to.
const PYTHON: &str = "/usr/bin/python3";
const LIBYAL: &str = r#"
import sys
name, image, to = sys.argv[1:]
disk = getattr(__import__(name), "handle" if name == "pyvmdk" else "file")()
disk.open(image)
if name == "pyvmdk":
    disk.open_extent_data_files()
at, size = 0, disk.get_media_size()
with open(to, "wb") as out:
    while at < size:
        part = disk.read_buffer_at_offset(min(1 << 20, size - at), at)
        assert part, "nothing at %d of %d" % (at, size)
        out.write(part)
        at += len(part)
"#;

/// An image to be made: its format, its options, and whether it is packed.
type Kind = (&'static str, &'static str, bool);

/// Who reads an image.
#[derive(Clone, Copy)]
enum Reader {
    /// A library of libyal's.
    Libyal(&'static str),
    /// 7-Zip, with its name of the format.
    Zip(&'static str),
    /// The LUKS filter of nbdkit.
    Nbdkit,
}

impl Reader {
    /// Those who read such images.
    fn all(kind: Kind) -> Vec<Reader> {
        let (format, options, packed) = kind;
        // 7-Zip does not unpack the clusters of qcow and qcow2, nor does libyal those packed by zstd.
        let (is_zstd, is_extended) = (options.contains("zstd"), options.contains("extended_l2"));
        match format {
            "qcow2" if is_zstd || is_extended => vec![],
            // To libyal, the mark of a cluster that is zero is a place, in the real program's images as well.
            "qcow2" if options.contains("prealloc") => vec![Reader::Zip("qcow")],
            "qcow" | "qcow2" if packed => vec![Reader::Libyal("pyqcow")],
            "qcow" | "qcow2" => vec![Reader::Libyal("pyqcow"), Reader::Zip("qcow")],
            "vmdk" => vec![Reader::Libyal("pyvmdk"), Reader::Zip("vmdk")],
            "vpc" => vec![Reader::Libyal("pyvhdi"), Reader::Zip("vhd")],
            "vhdx" => vec![Reader::Libyal("pyvhdi"), Reader::Zip("vhdx")],
            "vdi" => vec![Reader::Zip("vdi")],
            "luks" => vec![Reader::Nbdkit],
            _ => vec![],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Reader::Libyal(name) => name,
            Reader::Zip(_) => "7zz",
            Reader::Nbdkit => "nbdkit",
        }
    }

    /// Whether it can be had.
    fn is_there(self) -> bool {
        let run = match self {
            Reader::Libyal(name) => Run::new(PYTHON).args(["-c", &format!("import {name}")]),
            Reader::Zip(_) => Run::new("7zz").arg("i"),
            Reader::Nbdkit => Run::new("nbdkit").args(["--filter=luks", "null", "--version"]),
        };
        is_had(&run)
    }

    /// What it reads from an image.
    fn read(self, folder: &Path, image: &str) -> Result<Vec<u8>, String> {
        let out = "others.raw";
        let _ = std::fs::remove_file(folder.join(out));
        let run = match self {
            Reader::Libyal(name) => Run::new(PYTHON).args(["-c", LIBYAL, name, image, out]),
            Reader::Zip(kind) => Run::new("sh").args(["-c", "7zz e -so -t$1 $2 >$3", "sh", kind, image, out]),
            Reader::Nbdkit => {
                let copy = format!("/usr/bin/qemu-img convert -f raw -O raw \"$uri\" {out}");
                Run::new("nbdkit").args([
                    "-U",
                    "-",
                    "file",
                    image,
                    "--filter=luks",
                    "passphrase=123456",
                    "--run",
                    &copy,
                ])
            }
        };
        let ran = run.folder(folder).go();
        if ran.end != End::Code(0) {
            return Err(format!("  {} ends with {:?}: {}{}", self.name(), ran.end, ran.out(), ran.err()));
        }
        read(folder.join(out)).map_err(|e| e.to_string())
    }
}

/// Whether a program can be had.
fn is_had(run: &Run) -> bool {
    Run::new("sh").args(["-c", &format!("{} >/dev/null 2>&1", run.line())]).go().end == End::Code(0)
}

const KINDS: &[Kind] = &[
    ("qcow2", "", false),
    ("qcow2", "", true),
    ("qcow2", "compat=0.10", false),
    ("qcow2", "cluster_size=512", false),
    ("qcow2", "cluster_size=2M", true),
    ("qcow2", "refcount_bits=1", false),
    ("qcow2", "preallocation=metadata", false),
    ("qcow", "", false),
    ("qcow", "", true),
    ("vmdk", "", false),
    ("vmdk", "zeroed_grain=on", false),
    ("vmdk", "subformat=monolithicFlat", false),
    ("vmdk", "subformat=twoGbMaxExtentSparse", false),
    ("vmdk", "subformat=twoGbMaxExtentFlat", false),
    ("vmdk", "subformat=streamOptimized", false),
    ("vmdk", "subformat=streamOptimized", true),
    ("vpc", "", false),
    ("vpc", "subformat=fixed", false),
    ("vpc", "force_size=on", false),
    ("vhdx", "", false),
    ("vhdx", "block_size=1M", false),
    ("vhdx", "subformat=fixed", false),
    ("vdi", "", false),
    ("vdi", "static=on", false),
    ("luks", "", false),
    ("luks", "cipher-alg=aes-128,hash-alg=sha512", false),
    ("luks", "hash-alg=sha1", false),
];

/// Makes an image of a disk: at once, or by filling an empty one.
fn make(folder: &Path, kind: Kind, len: u64, turn: u64) -> Result<(), String> {
    let (name, options, packed) = kind;
    let format: &Format = FORMATS.iter().find(|format| format.name == name).expect("a format");
    let options: Vec<String> = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    let asked = format.asked(&options);
    let run = || ours(turn).folder(folder);
    let pack = packed.then_some("-c");
    // Neither is anything packed anew, nor is a stream written twice.
    if turn.is_multiple_of(2) || packed || options.iter().any(|option| option.ends_with("streamOptimized")) {
        let run = run().arg("convert").args(pack).args(asked).args(["-f", "raw", "-O", name, "in.raw", "made.img"]);
        return quietly(&run).map(drop);
    }
    quietly(&run().args(["create", "-q"]).args(asked).args(["-f", name, "made.img", &len.to_string()]))?;
    let to = match name {
        "luks" => vec!["--object", SECRET, "--target-image-opts"],
        _ => vec!["-O", name],
    };
    let target = match name {
        "luks" => "driver=luks,key-secret=sec0,file.filename=made.img",
        _ => "made.img",
    };
    quietly(&run().args(["convert", "-n"]).args(to).args(["-f", "raw", "in.raw", target])).map(drop)
}

#[test]
fn others_read_what_we_write() {
    let scratch = Scratch::new("readers");
    let report = Report::new("writes readers");
    let missing: BTreeSet<&str> =
        KINDS.iter().flat_map(|kind| Reader::all(*kind)).filter(|r| !r.is_there()).map(Reader::name).collect();
    missing.iter().for_each(|name| skipped(&format!("our images read by {name}: it is not there")));
    let cases: Vec<(Kind, u64)> = KINDS.iter().flat_map(|kind| (0..2).map(|turn| (*kind, seed() + turn))).collect();
    each(&cases, |number, (kind, turn)| {
        let folder = scratch.folder(&format!("case{number}"));
        let mut dice = Dice::new(*turn + number as u64);
        // 7-Zip does not know of a VHDX that has no whole MiB.
        let step = if kind.0 == "vhdx" { 1 << 20 } else { 512 };
        let len = (5 << 20) + dice.below(4 << 20) / step * step;
        let disk = content(&mut dice, len);
        put(&folder.join("in.raw"), &disk);
        let judge = || {
            make(&folder, *kind, len, *turn)?;
            for reader in Reader::all(*kind).into_iter().filter(|reader| !missing.contains(reader.name())) {
                report.tried();
                let got = reader.read(&folder, "made.img")?;
                same(&disk, &got).map_err(|why| format!("  by {}:\n{why}", reader.name()))?;
                // Only a VHD is longer than asked for: its disk has cylinders.
                if kind.0 != "vpc" && got.len() != disk.len() {
                    return Err(format!("  {} reads {} bytes of {len}", reader.name(), got.len()));
                }
            }
            Ok(())
        };
        if let Err(why) = judge() {
            report.fault(format!("{kind:?}, seed {turn}, {len} bytes\n{why}"));
        }
        let _ = std::fs::remove_dir_all(folder);
    });
    report.end();
}

/// Options of containers that the kernel has ciphers for, and what cryptsetup calls the cipher.
const CONTAINERS: &[(&str, &str, &str)] = &[
    ("", "aes", "xts-plain64"),
    ("cipher-alg=aes-128,hash-alg=sha512", "aes", "xts-plain64"),
    ("cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256", "aes", "cbc-essiv:sha256"),
    ("cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha1", "aes", "cbc-plain"),
];

#[test]
fn cryptsetup_opens_our_containers() {
    if !is_had(&Run::new("cryptsetup").arg("--version")) {
        return skipped("our containers opened by cryptsetup: it is not there");
    }
    let scratch = Scratch::new("cryptsetup");
    let folder = scratch.path();
    scratch.put("right", "123456");
    scratch.put("wrong", "123457");
    put(&folder.join("in.raw"), &[7; 65536]);
    for (turn, (options, cipher, mode)) in (0..).zip(CONTAINERS) {
        let _ = std::fs::remove_file(folder.join("made.img"));
        make(folder, ("luks", options, false), 65536, turn).unwrap();
        let run = |words: &[&str]| Run::new("cryptsetup").folder(folder).args(words).arg("made.img").go();
        assert_eq!(run(&["isLuks"]).code(), Some(0), "{options}");
        let told = run(&["luksDump"]).out();
        let field = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').trim().to_owned()
        };
        assert_eq!((field("Cipher name").as_str(), field("Cipher mode").as_str()), (*cipher, *mode), "{told}");
        let open = |key| run(&["open", "--test-passphrase", "--type", "luks1", "--key-file", key]);
        assert_eq!(open("right").code(), Some(0), "{options}: {}", open("right").err());
        assert_eq!(open("wrong").code(), Some(2), "{options}: another passphrase opens it");
    }
}

const SECTOR: usize = 512;
/// Partitions: their first sectors and how many they have.
const PARTITIONS: [(u64, u64); 3] = [(64, 1000), (2048, 4097), (8192, 77)];

/// Makes a disk one with a master boot record.
fn mbr(disk: &mut [u8]) {
    disk[..SECTOR].fill(0);
    for (index, (start, count)) in PARTITIONS.iter().enumerate() {
        let entry = &mut disk[446 + 16 * index..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&(*start as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(*count as u32).to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// Makes a disk one with two GUID partition tables.
fn gpt(disk: &mut [u8]) {
    let (last, mut entries) = (disk.len() / SECTOR - 1, vec![0; 128 * 128]);
    for (index, (start, count)) in PARTITIONS.iter().enumerate() {
        let entry = &mut entries[128 * index..][..128];
        entry[..16].copy_from_slice(b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4");
        entry[16] = index as u8 + 1;
        entry[32..40].copy_from_slice(&start.to_le_bytes());
        entry[40..48].copy_from_slice(&(start + count - 1).to_le_bytes());
    }
    let header = |own: usize, other: usize, table: usize| {
        let mut header = vec![0; SECTOR];
        header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (at, word) in [(24, own), (32, other), (40, 34), (48, last - 33), (72, table)] {
            header[at..at + 8].copy_from_slice(&(word as u64).to_le_bytes());
        }
        header[56..72].copy_from_slice(b"sixteen bytes id");
        for (at, word) in [(80, 128), (84, 128), (88, crc32(&entries))] {
            header[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let sum = crc32(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    };
    let (first, second) = (header(1, last, 2), header(last, 1, last - 32));
    let mut put = |sector: usize, bytes: &[u8]| disk[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
    put(0, &[0; SECTOR]);
    put(1, &first);
    put(2, &entries);
    put(last - 32, &entries);
    put(last, &second);
    let entry = [0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    disk[446..462].copy_from_slice(&entry);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// What libblkid says of the partitions of a device or file: how the kernel would see them.
fn told(folder: &Path, name: &str) -> Result<(), String> {
    let ran = Run::new("partx").folder(folder).args(["--show", "--noheadings", "-o", "START,SECTORS", name]).go();
    let rows: Vec<Vec<u64>> =
        ran.out().lines().map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect()).collect();
    let is_same = rows == PARTITIONS.map(|(start, count)| vec![start, count]);
    if is_same { Ok(()) } else { Err(format!("  partitions {rows:?}: {}{}", ran.out(), ran.err())) }
}

/// What the kernel says of the partitions of a device, and what is in them.
fn scanned(device: &str, disk: &[u8]) -> Result<(), String> {
    let name = device.rsplit('/').next().unwrap_or_default();
    for (index, (start, count)) in PARTITIONS.iter().enumerate() {
        let part = format!("{name}p{}", index + 1);
        let told = |what: &str| {
            let text = std::fs::read_to_string(format!("/sys/block/{name}/{part}/{what}"));
            text.map_err(|e| format!("  {part}: {e}")).map(|text| text.trim().to_owned())
        };
        if (told("start")?, told("size")?) != (start.to_string(), count.to_string()) {
            return Err(format!("  {part} is {} sectors from {} on", told("size")?, told("start")?));
        }
        let range = *start as usize * SECTOR..(start + count) as usize * SECTOR;
        // Its own device need not be there, as where nobody makes any.
        if let Ok(bytes) = read(format!("/dev/{part}")) {
            same(&disk[range], &bytes).map_err(|why| format!("  {part}:\n{why}"))?;
        }
    }
    same(disk, &read(device).map_err(|e| format!("  {device}: {e}"))?)
}

#[test]
fn linux_finds_the_partitions_of_what_we_write() {
    let scratch = Scratch::new("partitions");
    let folder = scratch.path();
    let report = Report::new("writes partitions");
    let sources = [("qcow2", mbr as fn(&mut [u8])), ("vmdk", gpt), ("vhdx", mbr), ("qcow2", gpt)];
    for (turn, (through, table)) in (seed()..).zip(sources) {
        let mut disk = content(&mut Dice::new(turn), 9 << 20);
        table(&mut disk);
        put(&folder.join("in.raw"), &disk);
        // A kernel that is built without them finds no partitions in what nobody of us has written, either.
        let scans = Loop::of(&folder.join("in.raw")).map(|device| scanned(&device.0, &disk).is_ok());
        let judge = || {
            let _ = std::fs::remove_file(folder.join("made.img"));
            make(folder, (through, "", false), 9 << 20, turn)?;
            let words = ["convert", "-f", through, "-O", "raw", "made.img", "out.raw"];
            quietly(&ours(turn).folder(folder).args(words))?;
            told(folder, "out.raw")?;
            match Loop::of(&folder.join("out.raw")) {
                Some(device) if scans == Some(true) => scanned(&device.0, &disk),
                Some(device) => same(&disk, &read(&device.0).map_err(|e| format!("  {}: {e}", device.0))?),
                None => same(&disk, &read(folder.join("out.raw")).map_err(|e| e.to_string())?),
            }
        };
        report.tried();
        judge().unwrap_or_else(|why| report.fault(format!("through {through}, seed {turn}\n{why}")));
        if scans != Some(true) && turn == seed() {
            skipped("partitions found by the kernel: it has no loop devices, or looks for none");
        }
    }
    report.end();
}
