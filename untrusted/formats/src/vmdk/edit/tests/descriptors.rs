//! Tests of descriptors that are longer than a sector.

use super::{FORMATS, made};
use crate::vmdk::Vmdk;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::edit::Footing;
use instar_image::{Drive, File, FileId, Format, Options, Preallocation, Purpose};
use instar_testkit::build::mutate::Noise;
use instar_testkit::build::vmdk::Descriptor;
use instar_testkit::crash::{MemFiles, Recorder, Trouble, sweep};
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::resized::Stack;
use instar_testkit::workshop::Order;

const TOP: FileId = FileId(0);

/// A flat disk in so many parts of four sectors.
fn parts(count: u32) -> MemFiles {
    let lines: Vec<String> = (0..count).map(|n| format!("RW 4 FLAT \"part-{n:03}\" 0")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut text = Descriptor::of("twoGbMaxExtentFlat", &lines).text();
    text.extend(b"ddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"1\"\nddb.geometry.sectors = \"1\"\n");
    let mut files = MemFiles::new();
    files.add("a.vmdk", &text);
    for n in 0..count {
        files.add(&format!("part-{n:03}"), &Vec::from_iter((0..2048u32).map(|at| (at / 64 + n * 7) as u8 | 1)));
    }
    files
}

#[test]
fn disks_of_many_parts_survive_every_crash() {
    for count in [9, 20, 40] {
        let all = u64::from(count) * 2048;
        let mut noise = Noise::new(count.into());
        let sizes = [all - 512, all - 2048, all - 4096, all / 2, 2048, 512, all + 512, all + (1 << 20)];
        let drawn: Vec<u64> = (0..6).map(|_| (1 + noise.below(all / 512)) * 512).collect();
        for size in sizes.into_iter().chain(drawn) {
            let mut disk = Stack { has_steps: true, ..Stack::new(parts(count), FORMATS) };
            disk.crash(size, Preallocation::Off).unwrap_or_else(|bad| panic!("{count} to {size}: {bad:?}"));
            let scratch = Scratch::new("vmdk-parts");
            disk.files.save(scratch.path());
            let told = maker().img().folder(scratch.path()).args(["info", "a.vmdk"]).must().out();
            assert!(told.contains(&format!("({size} bytes)")), "{told}");
            // What is left of it can be changed again.
            let again = (noise.below(size / 512) + 1) * 512;
            disk.crash(again, Preallocation::Off).unwrap_or_else(|bad| panic!("{size} to {again}: {bad:?}"));
        }
    }
}

/// Its line gets longer, wherever in a sector that is.
#[test]
fn the_last_part_gets_a_size_of_more_digits() {
    let mut inherited = 0;
    for count in 2..=80u32 {
        let (old, more) = (u64::from(count) * 2048, 1 << 20);
        let mut disk = Stack { has_steps: true, ..Stack::new(parts(count), FORMATS) };
        let recorder = Recorder::new(&disk.files, Trouble::Never);
        disk.resize_on(&recorder, old + more, Preallocation::Off).unwrap();
        inherited += u32::from(recorder.files().bytes(TOP) == disk.files.bytes(TOP));
        disk.crash(old + more, Preallocation::Off).unwrap_or_else(|bad| panic!("{count}: {bad:?}"));
        assert_eq!(disk.content().unwrap().len() as u64, old + more, "{count}");
    }
    // Where a sector ends within the line itself, nothing can give way, and another file takes the place.
    assert!((1..=2).contains(&inherited), "{inherited}");
}

fn stand(drive: &dyn Drive, files: &MemFiles, name: &str) -> instar_image::Result<()> {
    let granted = instar_image::Granted { len: drive.length(TOP)?, ..files.granted(TOP) };
    let options = Options { purpose: Purpose::Write, ..Options::default() };
    let image = Vmdk.open(File::new(drive, &granted), &options)?;
    let footing = Footing { name: name.as_bytes(), format: None, below: None };
    let mut edit = image.edit()?;
    edit.may_stand_on(&footing)?;
    edit.stand_on(drive, &footing)
}

/// Names of all lengths follow one another; under each is the same disk.
#[test]
fn parents_of_long_names_survive_every_crash() {
    let lens = [4, 60, 300, 290, 310, 30, 1000, 900, 1001, 3000, 5, 600];
    let names: Vec<String> = (0..).zip(lens).map(|(n, len)| format!("{n:02}{}", "n".repeat(len - 2))).collect();
    for kind in ["", "subformat=twoGbMaxExtentSparse"] {
        let scratch = Scratch::new("vmdk-names");
        let folder = Folder::new(scratch.path());
        let mut base = Stack::new(made("", 130_048, &["a.vmdk"]), FORMATS);
        base.draw(3, 5);
        let bytes = base.files.bytes(TOP);
        scratch.put("first", &bytes);
        let granted = folder.open(b"first").unwrap();
        let below = Vmdk.open(File::new(&folder, &granted), &Options::default()).unwrap().describe(true).unwrap();
        let mut asked = options(kind);
        asked.add("backing_file", "first");
        Order { options: asked, below: Some(below), ..Order::plain(&Vmdk, 130_048) }.create(&folder, "a.vmdk").unwrap();
        let own: &[&str] = if kind.is_empty() { &["a.vmdk", "first"] } else { &["a.vmdk", "a-s001.vmdk", "first"] };
        let mut disk = Stack::new(MemFiles::load(scratch.path(), own), &[&Vmdk, &Vmdk]);
        names.iter().for_each(|name| _ = disk.files.add(name, &bytes));
        let before = disk.content().unwrap();
        for name in &names {
            let start = disk.files.clone();
            let recorder = Recorder::new(&start, Trouble::Never);
            stand(&recorder, &start, name).unwrap_or_else(|error| panic!("{kind}: to {name}: {error:?}"));
            let judge = |files: &MemFiles, _: &instar_testkit::crash::How| {
                let now = Stack { files: files.clone(), ..disk.clone() };
                match now.content().map_err(|error| format!("{error:?}"))? == before {
                    true => now.check(files),
                    false => Err("it reads as something else".into()),
                }
            };
            let tried = sweep(&start, |drive| stand(drive, &start, name), judge);
            tried.unwrap_or_else(|bad| panic!("{kind}: to {name}: {bad:?}"));
            disk.files = recorder.files();
        }
    }
}
