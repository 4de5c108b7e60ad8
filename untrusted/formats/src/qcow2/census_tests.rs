//! The census of qcow2 images: all at once and in parts, of images in order and damaged at random.

use super::Qcow2;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::tally::check_in_windows;
use instar_image::{File, Format, Options, Purpose, Scope};
use instar_testkit::build::fragmented::Fragmented;
use instar_testkit::build::mutate::Noise;
use instar_testkit::build::trial::claimed;
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;

extern crate std;

/// What is found with so many units at a time, in order of what is said; nothing if the image cannot be opened.
fn found(bytes: &[u8], window: u64, as_qemu: bool) -> Option<(String, Vec<String>)> {
    let io = MemIo::new(bytes.to_vec());
    let options = Options { purpose: Purpose::Check, ..Options::default() };
    let image = Qcow2.open(File::new(&io, &io.top()), &options).ok()?;
    let scope = Scope { as_qemu, version: 1002 };
    let census = image.census(scope).expect("a census");
    let mut all = Vec::new();
    let ended = check_in_windows(&*census, scope, window, &mut |finding| {
        all.push(format!(
            "{:?} {}",
            finding.weight,
            finding.what.args.iter().map(|a| format!("{a:?}")).collect::<String>()
        ));
        Ok(())
    });
    all.sort();
    Some((format!("{ended:?}"), all))
}

fn snapshots() -> Vec<u8> {
    let scratch = Scratch::new("census");
    let folder = scratch.path();
    maker().img().folder(folder).args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a", "300k"]).must();
    for (number, at) in ["0", "40k", "77k"].into_iter().enumerate() {
        let write = format!("write -P 1 {at} 60k");
        maker().io().folder(folder).args(["-f", "qcow2", "-c", &write, "-c", "write -z 20k 5k", "a"]).must();
        maker().img().folder(folder).args(["snapshot", "-c", &format!("s{number}"), "a"]).must();
    }
    std::fs::read(folder.join("a")).expect("an image")
}

fn fragmented() -> Vec<u8> {
    let scratch = Scratch::new("census");
    let path = scratch.path().join("a");
    Fragmented { cluster_bits: 9, clusters: 256, spread: 256 }.write(&path).expect("an image");
    std::fs::read(path).expect("an image")
}

#[test]
fn parts_of_the_file_are_looked_at_as_the_whole_is() {
    for whole in [snapshots(), fragmented()] {
        let sound = found(&whole, 1 << 20, false).expect("an image");
        assert!(sound.1.is_empty(), "{sound:?}");
        assert!(claimed(&Qcow2, &MemIo::new(whole.clone())).expect("a map") > 0);
        let mut noise = Noise::new(5);
        let mut findings = 0;
        for _ in 0..30 {
            let mut bytes = whole.clone();
            for _ in 0..=noise.below(3) {
                // The first clusters have all the tables.
                let at = noise.below(64) as usize * 64 + noise.below(8) as usize * 8;
                let word = (noise.below(bytes.len() as u64 / 512 + 3) * 512) | noise.below(4) << 62;
                bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
            }
            for as_qemu in [false, true] {
                let at_once = found(&bytes, 1 << 20, as_qemu);
                findings += at_once.as_ref().map_or(0, |(_, all)| all.len());
                for window in [13, 64] {
                    // A part held alone is told by whoever comes second, in each part of the file that they share.
                    let in_parts = found(&bytes, window, true);
                    assert!(!as_qemu || in_parts == at_once, "{window}: {in_parts:?}\n{at_once:?}");
                }
            }
        }
        assert!(findings > 100, "{findings}");
    }
}

#[test]
fn what_the_image_holds_alone_is_not_shared() {
    let whole = fragmented();
    let word = |at: usize| u64::from_be_bytes(whole[at..at + 8].try_into().expect("eight bytes"));
    let l1 = word(40) as usize;
    let l2 = (word(l1) & !(1 << 63)) as usize;
    // The first cluster of the disk lies where the table of counts does, which is counted twice.
    let mut bytes = whole.clone();
    let counts = word(48);
    bytes[l2..l2 + 8].copy_from_slice(&counts.to_be_bytes());
    let block = word(counts as usize) as usize;
    let cell = block + counts as usize / 512 * 2;
    bytes[cell..cell + 2].copy_from_slice(&2u16.to_be_bytes());
    let (_, native) = found(&bytes, 1 << 20, false).expect("an image");
    let (_, as_qemu) = found(&bytes, 1 << 20, true).expect("an image");
    // The cluster that lay there before has leaked; only natively it is seen that the table is not alone.
    assert_eq!((native.len(), as_qemu.len()), (2, 1), "{native:?}\n{as_qemu:?}");
}
