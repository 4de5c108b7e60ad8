//! Requests that write the same byte over and over: every byte is what it was or that one.

use super::{EXPECTED, KINDS, RULES, TOP, look, source, with};
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
const FIXED: &[(&str, &str, bool)] =
    &[("raw", "", false), ("vpc", "subformat=fixed", false), ("vdi", "", false), ("qcow2", "", false)];

fn furnished(path: &Path, format: &str, options: &str, seed: u64) -> MemFiles {
    let options = if options.is_empty() { String::new() } else { format!("-o {options} ") };
    create(path, &format!("-f {format} {options}disk 2M"));
    scribble(path, format, "disk", 512 << 10, seed, 6);
    MemFiles::load(path, &["disk"])
}

fn requests(drive: &dyn Drive, start: &MemFiles, format: &str, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let request = Request {
        source: source(start.granted(TOP), format),
        rules: RULES.clone(),
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

fn judge(
    files: &MemFiles,
    format: &str,
    (before, after): (&[u8], &[u8]),
    how: &How,
) -> std::result::Result<(), String> {
    let (now, wrongs) = look(files, format).map_err(|error| format!("it cannot be read: {error:?}"))?;
    let is_over = matches!(how, How::Whole | How::Lost);
    let is_wrong = |(now, (before, after)): (&u8, (&u8, &u8))| now != after && (is_over || now != before);
    if let Some(at) = now.iter().zip(before.iter().zip(after)).position(is_wrong) {
        return Err(format!("byte {at} is {} and was {}", now[at], before[at]));
    }
    let is_expected = |wrong: &&String| !is_over && EXPECTED.iter().any(|words| wrong.contains(words));
    let wrongs: Vec<&String> = wrongs.iter().filter(|wrong| !is_expected(wrong)).collect();
    if wrongs.is_empty() { Ok(()) } else { Err(format!("{wrongs:?}")) }
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
            let before = look(&start, format).expect("an image").0;
            let recorder = Recorder::new(&start, Trouble::Never);
            requests(&recorder, &start, format, seed).expect("requests");
            let after = look(&recorder.end().0, format).expect("an image").0;
            assert!(after.iter().filter(|byte| **byte == 0x5a).count() >= 512, "{format} {options} {seed}");
            report.tried();
            let swept = sweep(
                &start,
                |drive| requests(drive, &start, format, seed),
                |files, how| judge(files, format, (&before, &after), how),
            );
            if let Err(bad) = swept {
                report.fault(format!("{format} {options} {seed}\n  {bad:?}"));
            }
        }
    });
    report.end();
}
