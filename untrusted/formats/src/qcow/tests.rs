//! qcow headers: what is told, and what is refused with which words.

use super::Qcow;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::{File, Format, Options, info};
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::mem::MemIo;

fn good() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x01");
    bytes[24..32].copy_from_slice(&(8u64 << 20).to_be_bytes());
    bytes[32..34].copy_from_slice(&[12, 9]);
    bytes[40..48].copy_from_slice(&512u64.to_be_bytes());
    bytes
}

fn told(bytes: Vec<u8>) -> Result<info::Image, String> {
    let io = MemIo::new(bytes);
    let _ = Qcow.probe(&File::new(&io, &io.top())).unwrap();
    let opened = Qcow.open(File::new(&io, &io.top()), &Options::default());
    match opened {
        Ok(image) => Ok(image.describe(true).unwrap()),
        Err(error) => Err(String::from_utf8(error.what.0).unwrap()),
    }
}

#[test]
fn header_is_told() {
    let image = told(good()).unwrap();
    assert_eq!((image.virtual_size, image.cluster_size, image.encrypted), (8 << 20, Some(4096), false));
    assert!(image.backing.is_none() && image.findings[0].ok);
    assert_eq!(told(patched(&good(), 24, &1023u64.to_be_bytes())).unwrap().virtual_size, 512);
    assert!(told(patched(&good(), 39, &[1])).unwrap().encrypted);
}

#[test]
fn backing_name_ends_with_its_nul() {
    let name = |len: u32, bytes: &[u8]| {
        let header = patched(&patched(&good(), 8, &48u64.to_be_bytes()), 16, &len.to_be_bytes());
        told(patched(&header, 48, bytes)).unwrap().backing.map(|b| b.name.0)
    };
    assert_eq!(name(8, b"base.img"), Some(b"base.img".to_vec()));
    assert_eq!(name(8, b"ba\0e.img"), Some(b"ba".to_vec()));
    assert_eq!(name(8, b"\0ase.img"), None);
    assert_eq!(name(0, b"base.img"), None);
    assert_eq!(name(1023, &[b'a'; 1023]).unwrap().len(), 1023);
}

#[test]
fn refusals_use_the_oracles_words() {
    let unreadable = "Could not open '{file}': Input/output error";
    let cases: &[(usize, &[u8], &str)] = &[
        (0, b"QFIX", "Image not in qcow format"),
        (4, &[0, 0, 0, 2], "qcow (v1) does not support qcow version {}\nTry the 'qcow2' driver instead."),
        (4, &[0, 0, 0, 7], "qcow (v1) does not support qcow version {}"),
        (24, &[0; 8], "Image size is too small (must be at least 2 bytes)"),
        (32, &[8], "Cluster size must be between 512 and 64k"),
        (32, &[17], "Cluster size must be between 512 and 64k"),
        (33, &[5], "L2 table size must be between 512 and 64k"),
        (33, &[14], "L2 table size must be between 512 and 64k"),
        (36, &[0, 0, 0, 2], "invalid encryption method in qcow header"),
        (24, &[0xff; 8], "Image too large"),
        (24, &0x1_ffff_f800_0001u64.to_be_bytes(), unreadable),
        (40, &[0xff; 8], unreadable),
        (8, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 1], unreadable),
        (8, &[0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 4, 0], "Backing file name too long"),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(told(patched(&good(), *at, bytes)).unwrap_err(), *phrase);
    }
}

#[test]
fn probe_claims_version_1_alone() {
    for (version, claim) in [(0, Claim::No), (1, Claim::Yes), (2, Claim::No)] {
        let io = MemIo::new(patched(&good(), 7, &[version]));
        assert_eq!(Qcow.probe(&File::new(&io, &io.top())).unwrap(), claim);
    }
}

#[test]
fn no_header_makes_it_panic() {
    storm(&good(), 64, |bytes| {
        let _ = told(bytes);
    });
}
