//! Tests of raw disks that are made longer and shorter.

use crate::raw::Raw;
use alloc::format;
use alloc::vec;
use instar_image::{Format, Options, Preallocation};
use instar_testkit::crash::MemFiles;
use instar_testkit::resized::Stack;

const FORMATS: &[&dyn Format] = &[&Raw];

#[test]
fn disks_survive_every_crash_and_every_size() {
    for len in [50_176, 50_177] {
        let mut disk = Stack::new(MemFiles::of(&vec![7; len]), FORMATS);
        disk.crash_through(1, &[60_416, 200_704, 30_208, 512, 66_048, 66_049, 66_050]);
        disk.wander(1, 20, 500_000);
        for (size, space) in [(700_416, Preallocation::Falloc), (800_256, Preallocation::Full)] {
            disk.crash(size, space).unwrap();
        }
    }
}

#[test]
fn what_is_behind_an_offset_is_resized_and_what_has_a_size_is_not() {
    let of = |raw_offset, raw_size| {
        let options = Options { raw_offset, raw_size, ..Options::default() };
        Stack { options, ..Stack::new(MemFiles::of(&[7; 8192]), FORMATS) }
    };
    let mut disk = of(Some(4096), None);
    assert_eq!(disk.resize(8192, Preallocation::Off).unwrap(), 8192);
    let file = disk.files.granted(instar_image::FileId(0));
    assert_eq!(file.len, 12_288);
    let refused = |disk: &mut Stack<'_>, space| format!("{:?}", disk.resize(8192, space).unwrap_err().what);
    let fixed = refused(&mut of(None, Some(4096)), Preallocation::Off);
    assert!(fixed.contains("Cannot resize fixed-size raw disks"), "{fixed}");
    let tables = refused(&mut of(None, None), Preallocation::Metadata);
    assert!(tables.contains("Unsupported preallocation mode: metadata"), "{tables}");
}
