//! Content: random images of everything that the real programs write, read by us and by them.
#![allow(missing_docs)]

mod damaged;
mod layouts;

use instar_testkit::images::each;
use instar_testkit::oracle::{maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::{Made, make};
use instar_testkit::run::{Ran, Run};
use instar_tests::report::{Report, difference};
use std::path::Path;
use std::sync::Mutex;

/// Set `INSTAR_SEED` for others.
const SEED: u64 = 1;
/// Set `INSTAR_IMAGES` for more.
const IMAGES: u64 = 300;

/// What the oldest of the real programs here was built without; below another image, it takes Parallels disks for raw.
const LACKING: &[&str] = &["unknown compression type: 1", "Unknown driver 'parallels'"];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_image_reads_as_the_real_program_reads_it() {
    let (first, count) = (number("INSTAR_SEED", SEED), number("INSTAR_IMAGES", IMAGES));
    let scratch = Scratch::new("content");
    let report = Report::new("content");
    let unmade = Unmade::default();
    let seeds: Vec<u64> = (0..count).map(|n| first + n).collect();
    each(&seeds, |_, seed| {
        let folder = scratch.folder(&format!("seed{seed}"));
        match make(&folder, *seed) {
            Ok(made) => Judge { report: &report, made: &made, seed: *seed }.judge(),
            Err(why) => unmade.add(why),
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(folder);
        }
    });
    unmade.end(&report, count);
    report.end();
}

/// Images that the real program did not make: now and then it fails at its own.
#[derive(Default)]
struct Unmade(Mutex<Vec<String>>);

impl Unmade {
    /// One in so many is no sign of anything else being wrong.
    const RARE: u64 = 50;

    fn add(&self, why: String) {
        self.0.lock().expect("the list").push(why);
    }

    fn end(self, report: &Report, of: u64) {
        let unmade = self.0.into_inner().expect("the list");
        let first = unmade.first().and_then(|why| why.lines().next()).unwrap_or_default();
        println!("{} of {of} could not be made {first}", unmade.len());
        if unmade.len() as u64 > of / Self::RARE {
            unmade.iter().for_each(|why| report.fault(format!("cannot be made: {why}")));
        }
    }
}

struct Judge<'a> {
    report: &'a Report,
    made: &'a Made,
    seed: u64,
}

impl Judge<'_> {
    /// The cells in turn, so that both see everything in the long run.
    fn cell(&self, turn: u64) -> Cell {
        let cells = Cell::all();
        cells[((self.seed + turn) % cells.len() as u64) as usize]
    }

    fn judge(&self) {
        self.content(&[]);
        for snapshot in &self.made.snapshots {
            self.content(&["-l", snapshot]);
        }
        self.questions();
    }

    /// The same bytes come out.
    fn content(&self, more: &[&str]) {
        let convert = |run: Run, target: &str| {
            run.folder(&self.made.folder).args(["convert", "-O", "raw"]).args(more).args(self.made.words()).arg(target)
        };
        let want = convert(maker().img(), "theirs.raw").go();
        let lanes = (1 + self.seed % 4).to_string();
        let run = convert(program().quirky(&maker().version, self.cell(0)), "ours.raw").args(["-m", &lanes]);
        self.report.tried();
        let got = run.go();
        let differs = differences(&want, &got);
        if !differs.is_empty() {
            return self.fault(&run, &differs);
        }
        if let Some(at) = first_difference(&self.made.folder.join("theirs.raw"), &self.made.folder.join("ours.raw")) {
            self.fault(&run, &format!("  the content differs at {at}"));
        }
    }

    /// The same answers are given.
    fn questions(&self) {
        let questions: &[&[&str]] = &[
            &["map"],
            &["map", "--output=json"],
            &["measure", "-O", "raw"],
            &["measure", "-O", "qcow2", "--output=json"],
            &["measure", "-O", "qcow2", "-o", "cluster_size=4k"],
            &["snapshot", "-l"],
            &["check"],
            &["check", "--output=json"],
            &["compare"],
        ];
        for (turn, question) in questions.iter().enumerate() {
            let oracle = &oracles()[(self.seed as usize + turn) % oracles().len()];
            // The oldest ones know no compare with options on one side only, and are asked the rest.
            let other: &[&str] = if question[0] == "compare" { &["theirs.raw"] } else { &[] };
            let lacks_parallels = oracle.version == "5.2" && self.made.id.contains("parallels");
            if lacks_parallels || (question[0] == "compare" && self.made.options.is_some()) {
                continue;
            }
            let words = self.made.words();
            let ask = |run: Run| run.folder(&self.made.folder).args(*question).args(&words).args(other);
            let want = ask(oracle.img()).go();
            let run = ask(program().quirky(&oracle.version, self.cell(turn as u64)));
            let got = run.go();
            self.report.tried();
            let differs = differences(&want, &got);
            // The heading of a table is no answer: where it failed to go on, we print nothing.
            let is_cut =
                want.end == got.end && got.code() == Some(1) && got.stdout.is_empty() && want.stderr == got.stderr;
            if !differs.is_empty() && !is_cut && !LACKING.iter().any(|words| want.err().contains(words)) {
                self.fault(&run, &differs);
            }
        }
    }

    fn fault(&self, run: &Run, what: &str) {
        let story = self.made.story.join("\n    ");
        self.report.fault(format!("seed {} | {}\n  {}\n{what}\n    {story}", self.seed, self.made.id, run.line()));
    }
}

fn differences(want: &Ran, got: &Ran) -> String {
    let mut differs = difference("stdout", &want.stdout, &got.stdout);
    differs += &difference("stderr", &want.stderr, &got.stderr);
    if want.end != got.end {
        differs += &format!("  end: {:?}, not {:?}\n", got.end, want.end);
    }
    differs
}

/// Where two files differ, if they do.
fn first_difference(a: &Path, b: &Path) -> Option<usize> {
    let (a, b) = (std::fs::read(a).unwrap_or_default(), std::fs::read(b).unwrap_or_default());
    let at = a.iter().zip(&b).position(|(a, b)| a != b);
    at.or((a.len() != b.len()).then(|| a.len().min(b.len())))
}
