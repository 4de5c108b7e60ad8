//! Parallels disks of layouts that the real program reads and never makes: `check` finds in them what it finds.

use super::{LACKING, differences, number};
use instar_testkit::images::each;
use instar_testkit::oracle::oracles;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Run};
use instar_tests::report::Report;

const SECTOR: u64 = 512;
/// Set `INSTAR_LAYOUTS` for more.
const DISKS: u64 = 100;

#[test]
fn parallels_disks_of_every_layout_are_checked_as_the_real_program_checks_them() {
    let (first, count) = (number("INSTAR_SEED", 1), number("INSTAR_LAYOUTS", DISKS));
    let scratch = Scratch::new("layouts");
    let report = Report::new("layouts");
    let seeds: Vec<u64> = (0..count).map(|n| first + n).collect();
    each(&seeds, |_, seed| {
        let name = format!("{seed}.hdd");
        scratch.put(&name, disk(&mut Dice::new(*seed)));
        let ask = |run: Run| run.folder(scratch.path()).args(["check", "-f", "parallels", &name]);
        for (turn, oracle) in oracles().iter().enumerate() {
            let want = ask(oracle.img()).go();
            // Assertions that do not hold in the real program are no answers.
            if !matches!(want.end, End::Code(_)) || LACKING.iter().any(|words| want.err().contains(words)) {
                continue;
            }
            let run = ask(program().quirky(&oracle.version, Cell::all()[turn % Cell::all().len()]));
            report.tried();
            let differs = differences(&want, &run.go());
            if !differs.is_empty() {
                report.fault(format!("seed {seed}\n  {}\n{differs}", run.line()));
            }
        }
    });
    assert!(report.count() as u64 >= count, "most of them are checked by most versions");
    report.end();
}

/// Both layouts, clusters of few sectors, data that begin anywhere, and clusters that lie over each other or outside.
fn disk(dice: &mut Dice) -> Vec<u8> {
    let is_old = dice.once_in(2);
    let tracks = *pick(&[1, 3, 8, 8, 16], dice);
    let count = *pick(&[0, 1, 4, 8, 20, 130], dice);
    let front = *pick(&[4096, 8192, 64 + 4 * count], dice);
    let data = if dice.once_in(4) { dice.below(60) } else { *pick(&[0, 1, 2, 8, 8, 8, 16, 24], dice) };
    let clusters = dice.below(6);
    let unit = if is_old { 1 } else { tracks };
    let first = front / SECTOR / unit;
    let mut bytes = if is_old { b"WithoutFreeSpace" } else { b"WithouFreSpacExt" }.to_vec();
    let open = if dice.once_in(3) { 0x746f_6e59u64 } else { 0 };
    bytes
        .extend([2, 16, 10, tracks, count, tracks * count, 0, open, data, 0, 0, 0].iter().flat_map(|word| four(*word)));
    for index in 0..dice.below(count + 1) {
        let entry = match dice.below(10) {
            0..3 => 0,
            3..6 => dice.below((front / SECTOR + tracks * clusters) / unit + 1),
            6 => dice.below(2 * first + 40),
            _ => first + index % (clusters + 1) * (tracks / unit),
        };
        bytes.extend(four(entry));
    }
    bytes.resize(bytes.len().max(front as usize), 0);
    bytes.resize(bytes.len() + (SECTOR * tracks * clusters) as usize, b'a');
    if dice.once_in(5) {
        bytes.resize(bytes.len() + dice.below(9000) as usize, b'x');
    }
    if dice.once_in(5) {
        bytes.truncate(64 + dice.below(bytes.len() as u64 - 63) as usize);
    }
    bytes
}

fn four(word: u64) -> [u8; 4] {
    u32::try_from(word).expect("a small number").to_le_bytes()
}

fn pick<'s>(of: &'s [u64], dice: &mut Dice) -> &'s u64 {
    &of[dice.below(of.len() as u64) as usize]
}
