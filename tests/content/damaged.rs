//! Damaged images: `check` finds in them what the real program finds, in the same words.

use super::{LACKING, Unmade, differences, number};
use instar_testkit::images::each;
use instar_testkit::oracle::oracles;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::{Dice, Made, make};
use instar_testkit::run::{End, Run};
use instar_tests::report::Report;
use std::fs;
use std::time::Duration;

/// Set `INSTAR_DAMAGED` for more.
const IMAGES: u64 = 120;
/// So often each of them is damaged, always from the beginning.
const TIMES: u64 = 6;
/// The formats that can be checked.
const FORMATS: &[&str] = &["qcow2", "vdi", "qed", "parallels", "vmdk", "vhdx", "vpc"];
/// What no verb opens although the real program does: a disk of nothing.
const REFUSED: &[&str] = &["no extent in the image descriptor can be read"];
/// Real programs that take longer are not waited for: their own loops are not ours to follow.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn damage_is_found_as_the_real_program_finds_it() {
    let (first, count) = (number("INSTAR_SEED", 1), number("INSTAR_DAMAGED", IMAGES));
    let scratch = Scratch::new("damaged");
    let report = Report::new("damaged");
    let unmade = Unmade::default();
    let seeds: Vec<u64> = (0..count).map(|n| first + n).collect();
    each(&seeds, |_, seed| {
        let folder = scratch.folder(&format!("seed{seed}"));
        match make(&folder, *seed) {
            Ok(made) if FORMATS.contains(&made.format) => damage(&report, &made, *seed),
            Ok(_) => {}
            Err(why) => unmade.add(why),
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = fs::remove_dir_all(folder);
        }
    });
    unmade.end(&report, count);
    report.end();
}

fn damage(report: &Report, made: &Made, seed: u64) {
    let path = made.folder.join(&made.name);
    let whole = fs::read(&path).expect("an image");
    for turn in 0..TIMES {
        let mut dice = Dice::new(seed * 1000 + turn);
        let bytes = spoiled(&whole, &mut dice);
        let is_huge = is_huge(made.format, &bytes);
        fs::write(&path, bytes).expect("an image");
        let oracle = &oracles()[((seed + turn) % oracles().len() as u64) as usize];
        let json: &[&str] = if dice.once_in(2) { &["--output=json"] } else { &[] };
        let ask = |run: Run| run.folder(&made.folder).arg("check").args(json).args(made.words());
        let want = ask(oracle.img()).limit(PATIENCE).go();
        // Assertions that do not hold in the real program are no answers.
        if !matches!(want.end, End::Code(_)) {
            continue;
        }
        let cell = Cell::all()[(turn % Cell::all().len() as u64) as usize];
        let run = ask(program().quirky(&oracle.version, cell));
        report.tried();
        let got = run.go();
        let differs = differences(&want, &got);
        let is_refused = is_huge || REFUSED.iter().any(|words| got.err().contains(words));
        if !differs.is_empty() && !is_refused && !LACKING.iter().any(|words| want.err().contains(words)) {
            let kept = std::env::temp_dir().join(format!("damaged-{seed}-{turn}.{}", made.format));
            let _ = fs::copy(&path, &kept);
            let kept = kept.display();
            report.fault(format!("seed {seed}, turn {turn} | {} | {kept}\n  {}\n{differs}", made.id, run.line()));
        }
    }
    fs::write(&path, whole).expect("an image");
}

/// Whether it is larger than any disk can be. The real program counts some of that in 32 bits, and opens what is left.
fn is_huge(format: &str, bytes: &[u8]) -> bool {
    let word =
        |at: usize| bytes.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    let half =
        |at: usize| bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().expect("four bytes")));
    match format {
        // It keeps a bit for every cluster up to the last one that is named, wherever that is.
        "parallels" => (0..half(32) as usize)
            .map(|n| 64 + 4 * n)
            .take_while(|at| at + 4 <= bytes.len())
            .any(|at| half(at) > 1 << 30),
        "vmdk" => word(12) > i64::MAX as u64 / 512 && bytes.starts_with(b"KDMV"),
        "vhdx" => word(0x31_0008) > 64 << 40,
        _ => false,
    }
}

/// The image with a few of its words changed, or its end cut off, or another one put on.
fn spoiled(whole: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let spots = spots(whole);
    let unit = 1 << (9 + dice.below(8));
    for _ in 0..dice.below(5) {
        let (Some(&at), Some(&from)) = (pick(&spots, dice), pick(&spots, dice)) else { break };
        let word: [u8; 8] = match dice.below(5) {
            0 => {
                bytes[at + dice.below(8) as usize] ^= 1 << dice.below(8);
                continue;
            }
            1 => bytes[from..from + 8].try_into().expect("eight bytes"),
            _ => word(whole.len() as u64, unit, dice),
        };
        // Some formats have words of four bytes.
        let len = if dice.once_in(3) { 4 } else { 8 };
        bytes[at..at + len].copy_from_slice(&word[8 - len..]);
    }
    if dice.once_in(8) {
        bytes.truncate(100 + dice.below(whole.len() as u64 - 100) as usize);
    }
    if dice.once_in(12) {
        bytes.resize(bytes.len() + 1 + dice.below(3 * unit) as usize, 0);
    }
    bytes
}

fn pick<'s>(spots: &'s [usize], dice: &mut Dice) -> Option<&'s usize> {
    if spots.is_empty() { None } else { spots.get(dice.below(spots.len() as u64) as usize) }
}

/// A word that says something about a place in the file, perhaps with flags.
fn word(len: u64, unit: u64, dice: &mut Dice) -> [u8; 8] {
    let place =
        [0, 1, len, len / unit * unit, unit * dice.below(len / unit + 2), unit * dice.below(len / unit + 1) + 512];
    let flags = [0, 0, 1 << 63, 1 << 62, 3 << 62, 1, 1 << 63 | 1, 1 << 56];
    let word: u64 = place[dice.below(6) as usize] | flags[dice.below(8) as usize];
    if dice.once_in(2) { word.to_be_bytes() } else { word.to_le_bytes() }
}

/// Where tables and headers are: words in sectors that are neither empty nor full.
fn spots(whole: &[u8]) -> Vec<usize> {
    let is_table = |sector: &[u8]| {
        let zeroes = sector.iter().filter(|byte| **byte == 0).count();
        zeroes < sector.len() && zeroes * 3 > sector.len()
    };
    let sectors = whole.chunks_exact(512).enumerate().filter(|(_, sector)| is_table(sector));
    let words = |(number, sector): (usize, &[u8])| {
        let used = sector.chunks_exact(8).enumerate().filter(|(_, word)| **word != [0; 8]);
        let last = used.clone().next_back().map_or(0, |(at, _)| at);
        // The word behind the last one as well: a table may go on there.
        used.map(|(at, _)| at).chain([(last + 1).min(63)]).map(move |at| number * 512 + at * 8).collect::<Vec<_>>()
    };
    sectors.flat_map(words).collect()
}
