//! Command lines held against every version of the real program, in both cells.

use instar_testkit::oracle::{Oracle, oracles};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{Ran, Run};
use instar_tests::report::{Report, difference};
use std::path::Path;

/// What the answers must have in common before they are compared.
pub type Normal = fn(&[u8]) -> Vec<u8>;

/// Answers as they are.
pub fn exact(answer: &[u8]) -> Vec<u8> {
    answer.to_vec()
}

/// Runs `verb` with each line of words in a folder; `of`: only versions that this is true of.
pub fn against(report: &Report, folder: &Path, verb: &str, lines: &[&str], normal: Normal, of: fn(&Oracle) -> bool) {
    for (number, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ask = |run: Run| run.folder(folder).arg(verb).args(&words);
        for oracle in oracles().iter().filter(|oracle| of(oracle)) {
            let want = ask(oracle.img()).go();
            let cell = Cell::all()[(number + oracle.version.len()) % Cell::all().len()];
            let run = ask(program().quirky(&oracle.version, cell));
            let got = run.go();
            report.tried();
            let differs = differences(&want, &got, normal);
            if !differs.is_empty() {
                report.fault(format!("{} {}\n{differs}", oracle.version, run.line()));
            }
        }
    }
}

/// What differs in two answers.
pub fn differences(want: &Ran, got: &Ran, normal: Normal) -> String {
    let mut differs = difference("stdout", &normal(&want.stdout), &normal(&got.stdout));
    differs += &difference("stderr", &normal(&want.stderr), &normal(&got.stderr));
    if want.end != got.end {
        differs += &format!("  end: {:?}, not {:?}\n", got.end, want.end);
    }
    differs
}

/// The same for verbs that make a file: `>` stands for its name, and what is in it in the end is compared as well.
///
/// `before`: what stands there at first.
pub fn making(
    report: &Report,
    folder: &Path,
    verb: &str,
    lines: &[&str],
    before: Option<&[u8]>,
    of: fn(&Oracle) -> bool,
) {
    for (number, line) in lines.iter().enumerate() {
        for oracle in oracles().iter().filter(|oracle| of(oracle)) {
            let cell = Cell::all()[(number + oracle.version.len()) % Cell::all().len()];
            // One name for both, so that their lines can be compared.
            let target = folder.join("made");
            let go = |run: Run| {
                let _ = std::fs::remove_file(&target);
                before.iter().for_each(|bytes| std::fs::write(&target, bytes).expect("a former target"));
                let words = line.split_whitespace().map(|word| word.replace('>', "made"));
                let ran = run.folder(folder).arg(verb).args(words).go();
                (ran, std::fs::read(&target).ok())
            };
            let (want, theirs) = go(oracle.img());
            let run = program().quirky(&oracle.version, cell);
            let (got, ours) = go(run.clone());
            report.tried();
            let mut differs = differences(&want, &got, progressless);
            if want.code() == Some(0) && theirs != ours {
                differs +=
                    &format!("  what was made: {:?}, not {:?} bytes\n", ours.map(|b| b.len()), theirs.map(|b| b.len()));
            } else if want.code() != Some(0) && ours.as_deref() != before {
                differs += "  what was there before is not there any more\n";
            }
            if !differs.is_empty() {
                report.fault(format!("{} {} {verb} {line}\n{differs}", oracle.version, run.line()));
            }
        }
    }
}

/// Without what is told on the way.
fn progressless(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let progress = regex_lite::Regex::new(r"(    \([0-9.]+/100%\)\r)+").expect("a pattern");
    progress.replace_all(&text, "<PROGRESS>").into_owned().into_bytes()
}
