//! qcow2 headers, extensions, snapshots and bitmaps: what is told, and what is refused with which words.

use super::Qcow2;
use super::disk::{EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE, EXT_FEATURE_NAMES};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Options, Purpose, info};
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::mem::MemIo;

const CLUSTER: usize = 4096;

/// Version 3, clusters of 4 KiB: header, refcount table, refcount block, L1 table, and room for three more.
fn good() -> Vec<u8> {
    let mut bytes = vec![0; 7 * CLUSTER];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &12u32.to_be_bytes());
    put(24, &(4u64 << 20).to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &112u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    bytes
}

fn extension(magic: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn with(extensions: &[Vec<u8>]) -> Vec<u8> {
    patched(&good(), 112, &extensions.concat())
}

fn open(io: &MemIo, options: &Options) -> Result<info::Image, String> {
    let opened = Qcow2.open(File::new(io, &io.top()), options);
    match opened {
        Ok(image) => {
            image.snapshots(&mut |_| Ok(())).unwrap();
            Ok(image.describe(true).unwrap())
        }
        Err(error) => Err(String::from_utf8(error.what.0).unwrap()),
    }
}

fn told(bytes: Vec<u8>) -> Result<info::Image, String> {
    open(&MemIo::new(bytes), &Options::default())
}

fn specific(image: &info::Image, name: &str) -> Option<Fact> {
    image.specific.as_ref().unwrap().get(name).cloned()
}

fn snapshots(bytes: Vec<u8>) -> Vec<Vec<info::Snapshot>> {
    let io = MemIo::new(bytes);
    let image = Qcow2.open(File::new(&io, &io.top()), &Options::default()).unwrap();
    let mut batches = Vec::new();
    image
        .snapshots(&mut |batch| {
            batches.push(batch);
            Ok(())
        })
        .unwrap();
    batches
}

#[test]
fn version_3_is_told() {
    let image = told(good()).unwrap();
    assert_eq!((image.virtual_size, image.cluster_size), (4 << 20, Some(4096)));
    assert_eq!(image.limits, info::Limits { write_zeroes: 4096, discard: 4096, request: 1 });
    for (name, value) in [("compat", "1.1".into()), ("refcount-bits", 16u64.into()), ("corrupt", false.into())] {
        assert_eq!(specific(&image, name), Some(value));
    }
    assert!(specific(&image, "data-file-raw").is_none() && specific(&image, "bitmaps").is_none());
    assert!(image.findings.iter().all(|f| f.ok));
}

#[test]
fn version_2_says_less_and_has_no_feature_bits() {
    let image = told(patched(&patched(&good(), 4, &[0, 0, 0, 2]), 72, &[0; 8])).unwrap();
    assert_eq!(specific(&image, "compat"), Some("0.10".into()));
    assert!(specific(&image, "lazy-refcounts").is_none() && specific(&image, "extended-l2").is_none());
}

#[test]
fn feature_bits_are_told() {
    let bits = |bits: u8| told(patched(&good(), 79, &[bits])).unwrap();
    assert_eq!(bits(1).dirty, Some(true));
    assert_eq!(specific(&bits(2), "corrupt"), Some(true.into()));
    assert_eq!(specific(&bits(4), "data-file-raw"), Some(false.into()));
    let zstd = told(patched(&patched(&good(), 79, &[8]), 104, &[1])).unwrap();
    assert_eq!(specific(&zstd, "compression-type"), Some("zstd".into()));
    let lazy = told(patched(&good(), 87, &[1])).unwrap();
    assert_eq!(specific(&lazy, "lazy-refcounts"), Some(true.into()));
    let strange = told(patched(&good(), 80, &[1])).unwrap();
    assert!(strange.findings.iter().any(|f| f.check == "unknown-features".into() && !f.ok));
}

#[test]
fn header_refusals_use_the_oracles_words() {
    let cases: &[(usize, &[u8], &str)] = &[
        (0, b"QFIX", "Image is not in qcow2 format"),
        (4, &[0, 0, 0, 4], "Unsupported qcow2 version {}"),
        (20, &[0, 0, 0, 8], "Unsupported cluster size: 2^{}"),
        (20, &[0, 0, 0, 22], "Unsupported cluster size: 2^{}"),
        (100, &[0, 0, 0, 103], "qcow2 header too short"),
        (100, &[0, 0, 16, 1], "qcow2 header exceeds cluster size"),
        (8, &[0, 0, 0, 0, 0, 0, 16, 1], "Invalid backing file offset"),
        (104, &[2], "qcow2: unknown compression type: {}"),
        (104, &[1], "qcow2: Compression type incompatible feature bit must be set"),
        (79, &[8], "qcow2: Compression type incompatible feature bit must not be set"),
        (79, &[16], "Unsupported subcluster size: {}"),
        (96, &[0, 0, 0, 7], "Reference count entry width too large; may not exceed 64 bits"),
        (56, &[0; 4], "Image does not contain a reference count table"),
        (56, &[0, 0, 8, 1], "Reference count table too large"),
        (48, &[0xff; 8], "Reference count table offset invalid"),
        (60, &[0, 1, 0, 1], "Snapshot table too large"),
        (64, &[0, 0, 0, 0, 0, 0, 0, 1], "Snapshot table offset invalid"),
        (36, &[0, 64, 0, 1], "Active L1 table too large"),
        (40, &[0, 0, 0, 0, 0, 0, 0, 1], "Active L1 table offset invalid"),
        (24, &[0x40, 0, 0, 0, 0, 0, 0, 0], "Image is too big"),
        (36, &[0, 0, 0, 1], "L1 table is too small"),
        (40, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0], "Could not read L1 table: Input/output error"),
        (32, &[0, 0, 0, 3], "Unsupported encryption method {}"),
        (48, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0], "Could not initialize refcount handling: Input/output error"),
        (32, &[0, 0, 0, 2], "Missing CRYPTO header for crypt method 2"),
        (24, &[0xff; 8], "Could not refresh total sector count: File too large"),
        (8, &[0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 4, 0], "Backing file name too long"),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(told(patched(&good(), *at, bytes)).unwrap_err(), *phrase);
    }
}

#[test]
fn unknown_features_have_the_names_of_the_last_table() {
    let row = |bit: u8, name: &str| {
        let mut row = vec![0, bit];
        row.extend(name.as_bytes());
        row.resize(48, 0);
        row
    };
    let table = extension(EXT_FEATURE_NAMES, &[row(7, "seven"), row(6, "six"), row(6, "again")].concat());
    let names = |extensions: &[Vec<u8>]| {
        let io = MemIo::new(patched(&with(extensions), 78, &[1, 0xc0]));
        let refused = Qcow2.open(File::new(&io, &io.top()), &Options::default());
        refused.err().map(|error| error.args[0].clone()).unwrap()
    };
    assert_eq!(names(core::slice::from_ref(&table)), "seven, six, Unknown incompatible feature: 100".into());
    let earlier = extension(EXT_FEATURE_NAMES, &row(8, "eight"));
    assert_eq!(names(&[earlier, table.clone()]), "seven, six, Unknown incompatible feature: 100".into());
    let broken = extension(EXT_BACKING_FORMAT, &[b'x'; 16]);
    assert_eq!(names(&[broken, table]), "Unknown incompatible feature: 1c0".into());
    assert_eq!(names(&[]), "Unknown incompatible feature: 1c0".into());
}

#[test]
fn backing_file_has_a_name_and_perhaps_a_format() {
    let backed = |format: &[u8], name: &[u8]| {
        let bytes = patched(&with(&[extension(EXT_BACKING_FORMAT, format)]), 1024, name);
        let bytes = patched(&patched(&bytes, 8, &1024u64.to_be_bytes()), 16, &(name.len() as u32).to_be_bytes());
        told(bytes).unwrap().backing.map(|b| (b.name.0, b.format.map(|f| f.0)))
    };
    assert_eq!(backed(b"raw", b"base.img"), Some((b"base.img".to_vec(), Some(b"raw".to_vec()))));
    assert_eq!(backed(b"\0raw", b"ba\0se"), Some((b"ba".to_vec(), None)));
    assert_eq!(backed(b"raw", b"\0"), None);
}

#[test]
fn extensions_end_inside_the_first_cluster() {
    let room = (CLUSTER - 112 - 8) as u32;
    let sized = |len: u32| {
        let header = [1u32.to_be_bytes(), len.to_be_bytes()].concat();
        told(patched(&good(), 112, &header)).map(|_| ())
    };
    assert_eq!(sized(room), Ok(()));
    for len in [room + 1, u32::MAX] {
        assert_eq!(sized(len).unwrap_err(), "Header extension too large");
    }
}

#[test]
fn data_file_is_opened_only_when_asked_for() {
    let bytes = patched(&with(&[extension(EXT_DATA_FILE, b"guest.data")]), 79, &[4]);
    let io = MemIo::new(bytes.clone()).with("guest.data", vec![0; 512]);
    let image = open(&io, &Options::default()).unwrap();
    assert_eq!(specific(&image, "data-file"), Some("guest.data".into()));
    assert!(io.asked.borrow().is_empty());
    let asking = Options { purpose: Purpose::DescribeWhole, ..Options::default() };
    open(&io, &asking).unwrap();
    assert_eq!(*io.asked.borrow(), [b"guest.data"]);
    assert_eq!(open(&MemIo::new(bytes), &asking).unwrap_err(), "no such file");
    let nameless = MemIo::new(patched(&good(), 79, &[4]));
    assert_eq!(open(&nameless, &asking).unwrap_err(), "'data-file' is required for this image");
    let raw = MemIo::new(patched(&good(), 95, &[2]));
    assert_eq!(open(&raw, &asking).unwrap_err(), "data-file-raw requires a data file");
}

#[test]
fn encryption_is_told() {
    let aes = told(patched(&good(), 35, &[1])).unwrap();
    assert_eq!(specific(&aes, "encrypt").unwrap().get("format"), Some(&"aes".into()));
    assert!(aes.encrypted && aes.limits.request == 512);
    assert!(aes.findings.iter().any(|f| f.check == "encryption".into() && !f.ok));
    let crypto = |at: u64, len: u64| extension(EXT_CRYPTO, &[at.to_be_bytes(), len.to_be_bytes()].concat());
    let cases = [
        (0, crypto(4096, 4096), "CRYPTO header extension only expected with LUKS encryption method"),
        (2, extension(EXT_CRYPTO, &[0; 8]), "CRYPTO header extension size {}, but expected size 16"),
        (2, crypto(1, 592), "Encryption header offset '{}' is not a multiple of cluster size '{}'"),
        (2, crypto(4096, 591), "Request for data outside of extension header"),
        (2, crypto(1 << 63, 592), "Could not read encryption header: Input/output error"),
        (2, crypto(4096, 592), "Volume is not in LUKS format"),
    ];
    for (method, extension, phrase) in cases {
        assert_eq!(told(patched(&with(&[extension]), 35, &[method])).unwrap_err(), phrase);
    }
}

fn snapshot(id: &[u8], name: &[u8], extra: &[u8]) -> Vec<u8> {
    let mut entry = vec![0; 40];
    entry[12..14].copy_from_slice(&(id.len() as u16).to_be_bytes());
    entry[14..16].copy_from_slice(&(name.len() as u16).to_be_bytes());
    entry[32..36].copy_from_slice(&9u32.to_be_bytes());
    entry[36..40].copy_from_slice(&(extra.len() as u32).to_be_bytes());
    entry.extend([extra, id, name].concat());
    entry.resize(entry.len().next_multiple_of(8), 0);
    entry
}

fn with_snapshots(count: u32, entries: &[u8]) -> Vec<u8> {
    let bytes = patched(&good(), 4 * CLUSTER, entries);
    patched(&patched(&bytes, 60, &count.to_be_bytes()), 64, &(4 * CLUSTER as u64).to_be_bytes())
}

#[test]
fn snapshots_are_told_as_far_as_their_extra_data_goes() {
    let extra = [1000u64.to_be_bytes(), 4096u64.to_be_bytes(), 77u64.to_be_bytes()].concat();
    let uncounted = [1000u64.to_be_bytes(), 4096u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
    let entries = [
        snapshot(b"1", b"none", &[]),
        snapshot(b"2", b"size", &extra[..12]),
        snapshot(b"3", b"all", &[extra, vec![1; 9]].concat()),
        snapshot(b"4", b"uncounted", &uncounted),
        snapshot(&[b'5'; 300], &[b'n'; 300], &[]),
    ];
    let batches = snapshots(with_snapshots(5, &entries.concat()));
    let facts: Vec<_> = batches[0].iter().map(|s| (s.vm_state_size, s.icount)).collect();
    assert_eq!(facts, [(9, None), (1000, None), (1000, Some(77)), (1000, None), (9, None)]);
    assert_eq!((batches[0][4].id.0.len(), batches[0][4].name.0.len()), (127, 255));
}

#[test]
fn many_snapshots_come_in_bounded_batches() {
    let entries: Vec<u8> = (0..65536).flat_map(|_| snapshot(b"1", &[b'n'; 200], &[])).collect();
    let batches = snapshots(with_snapshots(65536, &entries));
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 65536);
    for batch in &batches {
        let len: usize = batch.iter().map(|s| s.id.0.len() + s.name.0.len()).sum();
        assert!(batch.len() <= 1024 && len <= 256 << 10);
    }
}

#[test]
fn snapshot_refusals_use_the_oracles_words() {
    let extra = with_snapshots(1, &snapshot(b"1", b"", &[0; 1025]));
    assert!(told(extra).unwrap_err().starts_with("Too much extra metadata in snapshot table entry {}\n"));
    let long: Vec<u8> = (0..1100).flat_map(|_| snapshot(b"1", &[b'n'; 65535], &[])).collect();
    assert!(told(with_snapshots(1100, &long)).unwrap_err().starts_with("Snapshot table is too big\n"));
    let far = patched(&with_snapshots(1, &[]), 64, &0x7fff_ffff_c000_0000u64.to_be_bytes());
    assert_eq!(told(far).unwrap_err(), "Failed to read snapshot table: Input/output error");
}

/// A directory of bitmaps in cluster 4, whose tables lie in cluster 5.
fn with_bitmaps(count: u32, entries: &[u8]) -> Vec<u8> {
    let place = [&count.to_be_bytes()[..], &[0; 4], &(entries.len() as u64).to_be_bytes()].concat();
    let place = [place, (4 * CLUSTER as u64).to_be_bytes().to_vec()].concat();
    let bytes = patched(&with(&[extension(EXT_BITMAPS, &place)]), 95, &[1]);
    patched(&bytes, 4 * CLUSTER, entries)
}

fn bitmap(name: &[u8], flags: u32, table_count: u32, bits: u8) -> Vec<u8> {
    let mut entry = (5 * CLUSTER as u64).to_be_bytes().to_vec();
    entry.extend(table_count.to_be_bytes());
    entry.extend(flags.to_be_bytes());
    entry.extend([1, bits]);
    entry.extend((name.len() as u16).to_be_bytes());
    entry.extend([0; 4]);
    entry.extend(name);
    entry.resize(entry.len().next_multiple_of(8), 0);
    entry
}

#[test]
fn bitmaps_are_told() {
    let entries = [bitmap(b"b0", 3, 1, 16), bitmap(b"b1", 0, 1, 9)].concat();
    let Some(Fact::List(list)) = specific(&told(with_bitmaps(2, &entries)).unwrap(), "bitmaps") else { panic!() };
    assert_eq!(list[0].get("flags"), Some(&vec!["in-use".into(), "auto".into()].into()));
    assert_eq!(list[1].get("granularity"), Some(&512u64.into()));
}

#[test]
fn bitmaps_without_their_bit_are_passed_over_with_a_warning() {
    let stale = told(patched(&with_bitmaps(1, &bitmap(b"b0", 0, 1, 16)), 95, &[0])).unwrap();
    assert!(specific(&stale, "bitmaps").is_none());
    assert!(stale.warnings[0].what.0.starts_with(b"a program lacking bitmap support modified this file"));
}

#[test]
fn bitmap_refusals_use_the_oracles_words() {
    let one = bitmap(b"b0", 0, 1, 16);
    let good = with_bitmaps(1, &one);
    let unfit = "Bitmap '{}' doesn't satisfy the constraints";
    let unsound = "Could not read bitmap_table table from image for bitmap '{}': Invalid argument";
    let cases: &[(usize, &[u8], &str)] = &[
        (116, &[0, 0, 0, 16], "bitmaps_ext: Invalid extension length"),
        (124, &[1], "bitmaps_ext: Reserved field is not zero"),
        (120, &[0; 4], "found bitmaps extension with zero bitmaps"),
        (120, &[0, 1, 0, 0], "bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of 65535"),
        (120, &[0, 0, 0, 2], "Less bitmaps found than specified in header extension"),
        (128, &[0; 8], "Requested bitmap directory size is zero"),
        (128, &[1], "bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported size ({})"),
        (135, &[31], "Broken bitmap directory"),
        (143, &[1], "bitmaps_ext: invalid bitmap directory offset"),
        (136, &[0xff], "Failed to read bitmap directory: Input/output error"),
        (4 * CLUSTER + 7, &[1], unfit),
        (4 * CLUSTER + 8, &[0; 4], unfit),
        (4 * CLUSTER + 15, &[4], unfit),
        (4 * CLUSTER + 16, &[2], unfit),
        (4 * CLUSTER + 17, &[32], unfit),
        (4 * CLUSTER + 17, &[8], unfit),
        (4 * CLUSTER + 20, &[0xff; 4], "Bitmap extra data is not supported"),
        (4 * CLUSTER + 11, &[2], "Could not read bitmap '{}' from image: Invalid argument"),
        (5 * CLUSTER + 7, &[2], unsound),
        (5 * CLUSTER, &[1], unsound),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(told(patched(&good, *at, bytes)).unwrap_err(), *phrase, "{at}");
    }
    let twice = [one.clone(), one].concat();
    assert_eq!(told(with_bitmaps(2, &twice)).unwrap_err(), "Bitmap already exists: {}");
    let more = "More bitmaps found than specified in header extension";
    assert_eq!(told(with_bitmaps(1, &twice)).unwrap_err(), more);
}

#[test]
fn probe_claims_version_2_and_later_ones() {
    for (version, claim) in [(1, Claim::No), (2, Claim::Yes), (3, Claim::Yes), (4, Claim::Yes)] {
        let io = MemIo::new(patched(&good(), 7, &[version]));
        assert_eq!(Qcow2.probe(&File::new(&io, &io.top())).unwrap(), claim);
    }
}

#[test]
fn no_header_makes_it_panic() {
    let full = with_snapshots(2, &[snapshot(b"1", b"one", &[0; 24]), snapshot(b"2", b"two", &[])].concat());
    storm(&full, 256, |bytes| {
        let _ = told(bytes);
    });
    let entries = [bitmap(b"b0", 3, 1, 16), bitmap(b"b1", 0, 1, 9)].concat();
    let marked = with_bitmaps(2, &entries);
    storm(&marked, 160, |bytes| {
        let _ = told(bytes);
    });
    storm(&marked[4 * CLUSTER..5 * CLUSTER], 64, |directory| {
        let _ = told(patched(&marked, 4 * CLUSTER, &directory));
    });
    storm(&full[4 * CLUSTER..5 * CLUSTER], 136, |table| {
        let _ = told(patched(&full, 4 * CLUSTER, &table));
    });
}
