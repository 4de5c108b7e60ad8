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
