//! A list of what went wrong in many cases, told together at the end.

use instar_testkit::place::target;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Collects from many threads.
pub struct Report {
    title: &'static str,
    cases: AtomicUsize,
    faults: Mutex<Vec<String>>,
    excused: Mutex<BTreeMap<String, usize>>,
}

/// So many faults are printed; a file holds them all.
const SHOWN_MAX: usize = 12;

impl Report {
    /// An empty one.
    pub fn new(title: &'static str) -> Self {
        Report { title, cases: AtomicUsize::new(0), faults: Mutex::default(), excused: Mutex::default() }
    }

    /// One more case was tried.
    pub fn tried(&self) {
        self.cases.fetch_add(1, Ordering::Relaxed);
    }

    /// A case went wrong.
    pub fn fault(&self, text: String) {
        self.faults.lock().expect("the list").push(text);
    }

    /// A case came out differently, on purpose.
    pub fn excuse(&self, reason: &str) {
        *self.excused.lock().expect("the list").entry(reason.to_owned()).or_default() += 1;
    }

    /// How many cases were tried.
    pub fn count(&self) -> usize {
        self.cases.load(Ordering::Relaxed)
    }

    /// Ends the test: with what went wrong, if anything did.
    pub fn end(self) {
        let cases = self.count();
        for (reason, count) in self.excused.into_inner().expect("the list") {
            eprintln!("{}: {count} differ on purpose: {reason}", self.title);
        }
        let mut faults = self.faults.into_inner().expect("the list");
        faults.sort();
        eprintln!("{}: {cases} cases, {} faults", self.title, faults.len());
        let file = target().join(format!("faults-{}.txt", self.title.replace(' ', "-")));
        if faults.is_empty() {
            let _ = std::fs::remove_file(file);
            return;
        }
        let written = std::fs::write(&file, faults.join("\n"));
        let shown = faults.iter().take(SHOWN_MAX).fold(String::new(), |mut out, fault| {
            let _ = write!(out, "\n{fault}");
            out
        });
        panic!("{} of {cases} cases; all are in {} ({written:?}):{shown}", faults.len(), file.display());
    }
}

/// What differs between two texts: the lines between their common beginning and their common end.
pub fn difference(what: &str, want: &[u8], got: &[u8]) -> String {
    if want == got {
        return String::new();
    }
    let want: Vec<&[u8]> = want.split_inclusive(|b| *b == b'\n').collect();
    let got: Vec<&[u8]> = got.split_inclusive(|b| *b == b'\n').collect();
    let same = want.iter().zip(&got).take_while(|(a, b)| a == b).count();
    let tail = want[same..].iter().rev().zip(got[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut out = format!("  {what}, line {}:\n", same + 1);
    for (sign, lines) in [('-', &want[same..want.len() - tail]), ('+', &got[same..got.len() - tail])] {
        for line in lines.iter().take(8) {
            let _ = writeln!(out, "  {sign}{}", line.escape_ascii());
        }
        if lines.len() > 8 {
            let _ = writeln!(out, "  {sign}… {} more", lines.len() - 8);
        }
    }
    out
}
