//! Damaged images that are repaired: what they hold, whatever happens meanwhile, and that nothing is wrong with them then.

use super::{TOP, source, with};
use instar_image::tally::check;
use instar_image::{Drive, Order, Purpose, Repair, Result, Scope};
use instar_ops::open::{chain, stack_for};
use instar_testkit::build::vhdx::{Change, Entry, log};
use instar_testkit::content::read;
use instar_testkit::crash::{How, MemFiles, Recorder, Trouble, sweep};
use instar_testkit::images::each;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::twin::{create, scribble};
use instar_tests::report::Report;
use instar_wire::op::Rules;
use instar_wire::op::check::Weight;

const RULES: Rules = Rules { as_qemu: false, version: 0 };
const SCOPE: Scope = Scope { as_qemu: false, version: 0 };
const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

/// A way to damage an image.
type Damage = fn(Vec<u8>, &mut Dice) -> Vec<u8>;

/// Kinds of images: format, options, size, and what is done to them.
const KINDS: &[(&str, &str, u64, Damage)] = &[
    ("qed", "cluster_size=4096,table_size=2", 300 << 10, qed_entries),
    ("qed", "cluster_size=65536", 300 << 10, qed_entries),
    ("parallels", "cluster_size=65536", 1 << 20, parallels_entries),
    ("parallels", "cluster_size=65536", 1 << 20, parallels_end),
    ("vhdx", "block_size=1M,log_size=1M", 3 << 20, vhdx_log),
    ("vpc", "subformat=dynamic", 3 << 20, vpc_footer),
    ("vmdk", "subformat=monolithicSparse", 34 << 20, vmdk_copies),
    ("vmdk", "subformat=monolithicSparse", 300 << 10, vmdk_leads),
    ("vmdk", "subformat=streamOptimized", 34 << 20, vmdk_copies),
];

fn number(image: &[u8], at: u64, len: usize) -> u64 {
    let at = at as usize;
    image[at..at + len].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
}

/// Entries that lead behind the end of the file, or nowhere, and the mark of an image that was not closed.
fn qed_entries(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let (len, l1) = (image.len() as u64, number(&image, 40, 8));
    let table = number(&image, l1, 8);
    for _ in 0..3 {
        let at = table + 8 * dice.below(64);
        let to = [len + (4 << 20), 12345, len * 2][dice.below(3) as usize];
        put(&mut image, at, &to.to_le_bytes());
    }
    let features = number(&image, 16, 8) | 2;
    put(&mut image, 16, &features.to_le_bytes());
    image
}

/// Clusters that two entries have, or that are nowhere, and the mark of an image that was not closed.
fn parallels_entries(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let has = |image: &[u8], entry: u64| number(image, 64 + 4 * entry, 4);
    let used: Vec<u64> = (0..16).filter(|entry| has(&image, *entry) != 0).collect();
    let one = used[dice.below(used.len() as u64) as usize];
    for (entry, to) in [(dice.below(16), has(&image, one)), (dice.below(16), 0x00ff_ff80)] {
        if entry != one {
            put(&mut image, 64 + 4 * entry, &(to as u32).to_le_bytes());
        }
    }
    put(&mut image, 44, &0x746f_6e59u32.to_le_bytes());
    image
}

/// Space at the end that nobody has.
fn parallels_end(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    image.resize(image.len() + (1 + dice.below(3) as usize) * 65536, 7);
    put(&mut image, 44, &0x746f_6e59u32.to_le_bytes());
    image
}

/// A log that has not been replayed, with a block that only the log knows.
fn vhdx_log(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let (len, table) = (image.len() as u64, 3 * MIB);
    let table = if number(&image, table, 8) & 7 == 6 { table } else { 2 * MIB };
    let mut entries = image[table as usize..][..4096].to_vec();
    let free = (0..3).map(|n| n * 8).find(|at| entries[*at] & 7 != 6).unwrap_or(0);
    entries[free..free + 8].copy_from_slice(&(len | 6).to_le_bytes());
    let block = vec![dice.below(255) as u8 + 1; 4096];
    let changes = vec![Change::Data(table, entries), Change::Data(len + MIB - 4096, block), Change::Zero(len, 8192)];
    let first = Entry { at: 0, sequence: 9, tail: 0, changes: vec![Change::Zero(len, 4096)], flushed: len, last: len };
    let second =
        Entry { at: first.bytes().len() as u64, sequence: 10, tail: 0, changes, flushed: len, last: len + MIB };
    log(&mut image, &[first, second]);
    image
}

/// The footer at the end is another one, or there is none.
fn vpc_footer(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let end = image.len();
    match dice.below(3) {
        0 => image[end - 300] ^= 1,
        1 => image.truncate(end - 512),
        _ => image[end - 512..].fill(0),
    }
    image
}

/// Where the directory of second tables is, and that of the first ones.
fn vmdk_directories(image: &[u8]) -> (u64, u64) {
    let end = image.len() as u64 - 1024;
    let header = if number(image, 56, 8) == u64::MAX { end } else { 0 };
    (number(image, header + 48, 8) * SECTOR, number(image, header + 56, 8) * SECTOR)
}

/// Second tables with other entries than the first.
fn vmdk_copies(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let (second, first) = vmdk_directories(&image);
    for index in 0..2 {
        let (table, own) =
            (number(&image, second + 4 * index, 4) * SECTOR, number(&image, first + 4 * index, 4) * SECTOR);
        for _ in 0..3 {
            let at = 4 * dice.below(16);
            if table != own && table != 0 {
                put(&mut image, table + at, &(dice.below(1 << 20) as u32).to_le_bytes());
            }
        }
    }
    image
}

/// A second directory that leads nowhere.
fn vmdk_leads(mut image: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let (second, _) = vmdk_directories(&image);
    let to = [0, 1 << 24, 128][dice.below(3) as usize];
    put(&mut image, second, &u32::to_le_bytes(to));
    image
}

/// What the image holds, by the sector, as far as it can be read.
fn held(files: &MemFiles, format: &str) -> Result<Vec<Option<Vec<u8>>>> {
    let recorder = Recorder::new(files, Trouble::Never);
    with(&recorder, |cx| {
        let top = source(files.granted(TOP), format);
        let whole = chain(&stack_for(cx, &top, &RULES, Purpose::Check, &|_| Ok(()))?, None)?;
        if let Ok(bytes) = read(&whole, &recorder, 0, whole.size()) {
            return Ok(bytes.chunks(SECTOR as usize).map(|sector| Some(sector.to_vec())).collect());
        }
        let one = |number| read(&whole, &recorder, number * SECTOR, SECTOR).ok();
        Ok((0..whole.size() / SECTOR).map(one).collect())
    })
}

fn repair(drive: &dyn Drive, files: &MemFiles, format: &str) -> Result<()> {
    with(drive, |cx| {
        let top = source(files.granted(TOP), format);
        let stack = stack_for(cx, &top, &RULES, Purpose::Repair, &|_| Ok(()))?;
        let order = Order { drive, extent: Repair::All, scope: SCOPE };
        stack[0].image.repair(&order, &mut |_| Ok(())).map(drop)
    })
}

/// What is wrong with it, but for lost space.
fn wrongs(files: &MemFiles, format: &str) -> Result<Vec<String>> {
    let recorder = Recorder::new(files, Trouble::Never);
    with(&recorder, |cx| {
        let top = source(files.granted(TOP), format);
        let (stack, mut wrongs) = (stack_for(cx, &top, &RULES, Purpose::Check, &|_| Ok(()))?, Vec::new());
        for census in stack[0].image.censuses(SCOPE) {
            check(&*census, SCOPE, &mut |finding| {
                if finding.weight != Weight::Leak {
                    wrongs.push(instar_testkit::made::said(&finding.what));
                }
                Ok(())
            })?;
        }
        Ok(wrongs)
    })
}

fn damaged(kind: usize, seed: u64) -> MemFiles {
    let (format, list, size, damage) = KINDS[kind];
    let (scratch, mut dice) = (Scratch::new("crash repairs"), Dice::new(seed));
    let path = scratch.path();
    create(path, &format!("-f {format} -o {list} a {size}"));
    match list.contains("stream") {
        true => {
            create(path, &format!("-f raw raw {size}"));
            scribble(path, "raw", "raw", size, seed, 6);
            let words = ["convert", "-O", "vmdk", "-o", list, "-f", "raw", "raw", "a"];
            instar_testkit::oracle::maker().img().folder(path).args(words).must();
        }
        false => scribble(path, format, "a", size, seed, 6),
    }
    let image = std::fs::read(path.join("a")).expect("an image");
    MemFiles::of(&damage(image, &mut dice))
}

#[test]
fn repairs_change_no_byte_and_can_be_done_again_whatever_happens() {
    let report = Report::new("crash repairs");
    let jobs: Vec<(usize, u64)> = (0..KINDS.len()).flat_map(|kind| (0..3).map(move |seed| (kind, seed))).collect();
    each(&jobs, |_, (kind, seed)| {
        let format = KINDS[*kind].0;
        let start = damaged(*kind, *seed);
        report.tried();
        let fault = |why: String| report.fault(format!("{format} {}, {seed}: {why}", KINDS[*kind].1));
        let (Ok(before), Ok(wrong)) = (held(&start, format), wrongs(&start, format)) else {
            return fault("it cannot be read at first".into());
        };
        let is_clean = wrong.is_empty();
        let same = |files: &MemFiles| -> std::result::Result<(), String> {
            let now = held(files, format).map_err(|error| format!("it cannot be read: {error:?}"))?;
            let differs = before.iter().zip(&now).position(|(before, now)| before.is_some() && before != now);
            match (differs, now.len() == before.len()) {
                (None, true) => Ok(()),
                (at, _) => Err(format!("sector {at:?} of {} is another one", before.len())),
            }
        };
        let sound = |files: &MemFiles| match wrongs(files, format) {
            Ok(all) if all.is_empty() => Ok(()),
            all => Err(format!("it is not sound: {all:?}")),
        };
        let judge = |files: &MemFiles, how: &How| {
            same(files)?;
            if matches!(how, How::Whole | How::Lost) {
                sound(files)?;
            }
            let recorder = Recorder::new(files, Trouble::Never);
            repair(&recorder, files, format).map_err(|error| format!("it cannot be repaired again: {error:?}"))?;
            let files = recorder.files();
            same(&files)?;
            sound(&files)
        };
        match sweep(&start, |drive| repair(drive, &start, format), judge) {
            Ok(tried) if tried.epochs == 0 && !is_clean => fault(format!("nothing was done about {wrong:?}")),
            Ok(_) => {}
            Err(bad) => fault(format!("{wrong:?}: {bad:?}")),
        }
    });
    report.end();
}
