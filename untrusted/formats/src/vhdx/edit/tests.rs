//! Tests of VHDX disks that are made longer and shorter.

use crate::vhdx::Vhdx;
use crate::vhdx::tests::random_log;
use alloc::format;
use alloc::vec::Vec;
use instar_image::{File, Format, Options, Preallocation};
use instar_testkit::build::mutate::Noise;
use instar_testkit::build::vhdx::log;
use instar_testkit::crash::{How, MemFiles, sweep};
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::pen::holds;
use instar_testkit::place::Scratch;
use instar_testkit::resized::Stack;
use instar_testkit::workshop::Order;

const FORMATS: &[&dyn Format] = &[&Vhdx];
const MIB: u64 = 1 << 20;

fn made(kind: &str, size: u64) -> MemFiles {
    let scratch = Scratch::new("vhdx-resized");
    let folder = Folder::new(scratch.path());
    Order { options: options(kind), ..Order::plain(&Vhdx, size) }.create(&folder, "a.vhdx").unwrap();
    MemFiles::load(scratch.path(), &["a.vhdx"])
}

#[test]
fn disks_survive_every_crash() {
    for (seed, kind) in (0..).zip(["block_size=1M", "block_size=1M,subformat=fixed"]) {
        let mut disk = Stack::new(made(kind, 2 * MIB - 2048), FORMATS);
        disk.crash_through(seed, &[2 * MIB, 3 * MIB - 1024, 2 * MIB - 1024, 2 * MIB + 512, MIB - 512, MIB]);
    }
    let mut disk = Stack::new(made("block_size=1M,subformat=fixed", 2 * MIB), FORMATS);
    for (size, space) in [(4, Preallocation::Falloc), (5, Preallocation::Full)] {
        disk.resize(size * MIB, space).unwrap();
    }
}

#[test]
fn the_table_moves_when_it_is_full() {
    // A megabyte of entries.
    let most = 130_944 * MIB;
    let before = Stack::new(made("block_size=1M", most), FORMATS);
    for size in [most + 200 * MIB, 600 << 30] {
        let mut disk = before.clone();
        disk.resize(size, Preallocation::Off).unwrap();
        disk.check(&disk.files).unwrap();
        let scratch = Scratch::new("vhdx-moved");
        disk.files.save(scratch.path());
        let at = size - 65536;
        let words = [format!("write -P 7 {at} 65536"), format!("read -P 7 {at} 65536"), "read -P 0 0 1M".into()];
        let io = words.iter().flat_map(|words| ["-c", words.as_str()]);
        maker().io().folder(scratch.path()).args(["-f", "vhdx"]).args(io).arg("a.vhdx").must();
        maker().img().folder(scratch.path()).args(["check", "-f", "vhdx", "a.vhdx"]).must();
    }
}

/// Too much to be read at every crash: the size, the tables, and one block.
#[test]
fn a_table_that_moves_survives_every_crash() {
    let (most, size) = (130_944 * MIB, 131_200 * MIB);
    let mut disk = Stack::new(made("block_size=1M", most), FORMATS);
    disk.draw_at(&[(130_000 * MIB, 7), (0, 9)]);
    let judge = |files: &MemFiles, how: &How| {
        let disk = Stack { files: files.clone(), ..Stack::new(MemFiles::new(), FORMATS) };
        disk.check(files)?;
        let now = disk.size().map_err(|error| format!("{error:?}"))?;
        if now != size && (how.is_over() || now != most) {
            return Err(format!("it has {now} bytes"));
        }
        match disk.bytes(130_000 * MIB, 512).is_ok_and(|bytes| bytes == [7; 512]) {
            true => Ok(()),
            false => Err("the block is lost".into()),
        }
    };
    let tried = sweep(&disk.files, |drive| disk.resize_on(drive, size, Preallocation::Off).map(drop), judge).unwrap();
    assert!(tried.states > 10, "{tried:?}");
}

#[test]
fn children_show_zeroes_where_their_parents_are_longer() {
    let scratch = Scratch::new("vhdx-child");
    let folder = Folder::new(scratch.path());
    Order { options: options("block_size=1M"), ..Order::plain(&Vhdx, 4 * MIB) }.create(&folder, "base.vhdx").unwrap();
    let mut base = Stack::new(MemFiles::load(scratch.path(), &["base.vhdx"]), FORMATS);
    base.draw(5, 30);
    base.files.save(scratch.path());
    let granted = folder.open(b"base.vhdx").unwrap();
    let below = Vhdx.open(File::new(&folder, &granted), &Options::default()).unwrap().describe(true).unwrap();
    let mut asked = options("block_size=1M");
    asked.add("backing_file", "base.vhdx");
    let order = Order { options: asked, below: Some(below), ..Order::plain(&Vhdx, 2 * MIB - 2048) };
    order.create(&folder, "a.vhdx").unwrap();
    let mut disk = Stack::new(MemFiles::load(scratch.path(), &["a.vhdx", "base.vhdx"]), &[&Vhdx, &Vhdx]);
    disk.crash(3 * MIB - 1024, Preallocation::Off).unwrap();
    disk.crash_through(7, &[2 * MIB - 2048, 3 * MIB - 1024, MIB - 512, 2 * MIB]);
    disk.wander(7, 8, 5 * MIB);
}

#[test]
fn sizes_go_up_and_down_and_others_read_the_same() {
    for (seed, kind) in
        (0..).zip(["block_size=1M", "block_size=2M,subformat=fixed", "block_size=1M,block_state_zero=off"])
    {
        let mut disk = Stack::new(made(kind, 3 * MIB), FORMATS);
        disk.wander(seed, 6, 5 * MIB);
        let scratch = Scratch::new("vhdx-wandered");
        disk.files.save(scratch.path());
        holds(&[maker(), newest()], scratch.path(), "vhdx", "a.vhdx", &disk.content().unwrap());
    }
}

#[test]
fn a_log_is_replayed_before_anything_is_changed() {
    let mut disk = Stack::new(made("log_size=1M,block_size=1M", 3 * MIB), FORMATS);
    disk.draw(3, 12);
    let file = disk.files.named(b"a.vhdx").unwrap();
    let base: Vec<u8> = disk.files.bytes(file);
    for round in 0..3 {
        let mut image = base.clone();
        log(&mut image, &random_log(&base, &mut Noise::new(round)));
        let mut disk = Stack::new(MemFiles::of(&image), FORMATS);
        for size in [3 * MIB + 512, MIB + 512] {
            let before = disk.content().unwrap();
            disk.resize(size, Preallocation::Off).unwrap();
            let now = disk.content().unwrap();
            let both = before.len().min(now.len());
            assert!(now[..both] == before[..both] && now[both..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn errors_in_the_order_are_seen() {
    let mut disk = Stack::new(made("block_size=1M", 2 * MIB), FORMATS);
    disk.draw(1, 40);
    disk.resize(2 * MIB - 1024, Preallocation::Off).unwrap();
    let (seen, unseen) = disk.spoiled(2 * MIB);
    assert!(seen >= 1, "{seen} seen, not {unseen:?}");
}

#[test]
fn damaged_disks_are_resized_or_refused() {
    let mut disk = Stack::new(made("block_size=1M", 3 * MIB), FORMATS);
    disk.draw(1, 9);
    let places = [2 * MIB..2 * MIB + 40, 2 * MIB..2 * MIB + 40, 0x31_0000..0x31_0030, 0x3_0000..0x3_0080];
    let done = disk.damaged(1, 100, &places, 6 * MIB);
    assert!((5..100).contains(&done), "{done}");
}
