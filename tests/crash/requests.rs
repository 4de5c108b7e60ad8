//! Requests that write the same byte over and over: every byte is what it was or that one.

use super::over::KINDS;
use super::{TOP, is_whole, look, rules, sound, source, with};
use instar_image::{Drive, Result};
use instar_ops::bench;
use instar_testkit::crash::{How, MemFiles, Recorder, Trouble, sweep};
use instar_testkit::images::each;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::twin::{create, scribble};
use instar_tests::report::Report;
use instar_wire::op::bench::{Request, Write};
use std::path::Path;

/// More kinds than can be packed into: those whose bytes have their place.
const FIXED: &[(&str, &str, bool)] = &[("raw", "", false), ("vpc", "subformat=fixed", false), ("qcow2", "", false)];

fn furnished(path: &Path, format: &str, options: &str, seed: u64) -> MemFiles {
    let options = if options.is_empty() { String::new() } else { format!("-o {options} ") };
    create(path, &format!("-f {format} {options}disk 2M"));
    scribble(path, format, "disk", 512 << 10, seed, 6);
    MemFiles::load(path, &["disk"])
}

fn requests(drive: &dyn Drive, start: &MemFiles, format: &str, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let source = source(start.granted(TOP), format);
    let request = Request {
        rules: rules(&source),
        source,
        count: 5 + dice.below(5),
        depth: 1 + dice.below(4),
        offset: dice.below(100_000),
        size: [512, 1000, 4096, 20_000][dice.below(4) as usize],
        step: [512, 3000, 40_000, 150_000][dice.below(4) as usize],
        inside: dice.once_in(2),
        write: Some(Write {
            pattern: 0x5a,
            interval: [0, 4, 5][dice.below(3) as usize],
            drains: dice.once_in(2),
            through: dice.once_in(4),
            careless: false,
        }),
    };
    with(drive, |cx| bench::run(&request, cx))
}

/// Every byte is as it was or as it is to be.
fn old_or_new(now: &[u8], old: &[u8], new: &[u8], how: &How) -> std::result::Result<(), String> {
    let is_wrong = |(now, (old, new)): (&u8, (&u8, &u8))| now != new && (is_whole(how) || now != old);
    match now.iter().zip(old.iter().zip(new)).position(is_wrong) {
        Some(at) => Err(format!("byte {at} is {} and was {}", now[at], old[at])),
        None => Ok(()),
    }
}

#[test]
fn what_requests_write_to_is_old_or_new() {
    let scratch = Scratch::new("crash-requests");
    let report = Report::new("crash requests");
    let kinds: Vec<_> = KINDS.iter().chain(FIXED).filter(|(.., packs)| !packs).enumerate().collect();
    each(&kinds, |_, (number, (format, options, _))| {
        let path = scratch.folder(&format!("place{number}"));
        for seed in (0..2).map(|turn| *number as u64 * 2 + turn) {
            let start = furnished(&path, format, options, seed + 1);
            let before = look(&start, TOP, format).expect("an image").0;
            let recorder = Recorder::new(&start, Trouble::Never);
            requests(&recorder, &start, format, seed).expect("requests");
            let after = look(&recorder.end().0, TOP, format).expect("an image").0;
            assert!(after.iter().filter(|byte| **byte == 0x5a).count() >= 512, "{format} {options} {seed}");
            report.tried();
            let swept = sweep(
                &start,
                |drive| requests(drive, &start, format, seed),
                |files, how| old_or_new(&sound(files, TOP, format, how)?, &before, &after, how),
            );
            if let Err(bad) = swept {
                report.fault(format!("{format} {options} {seed}\n  {bad:?}"));
            }
        }
    });
    report.end();
}
