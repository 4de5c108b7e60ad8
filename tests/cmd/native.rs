//! The instar face of `info`: its words, its rules, its findings and its details, the same in every cell.

mod detail;
mod locks;
mod policy;
mod recognition;
mod safety;
mod words;

use instar_testkit::images::{SECRET, settle};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Ran, Run};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A folder with files to ask about.
pub struct Shelf(Scratch);

impl Shelf {
    /// An empty one.
    pub fn new(name: &str) -> Shelf {
        Shelf(Scratch::new(&format!("native-{name}")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder().join(name.as_ref())
    }

    /// A new file.
    pub fn file(&self, name: impl AsRef<OsStr>, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file");
        settle(self.folder());
    }

    /// A real `qemu-img create` of these words.
    pub fn create(&self, line: &str) {
        let run = maker().img().folder(self.folder()).args(["create", "-q", "--object", SECRET]);
        run.args(line.split(' ')).must();
        settle(self.folder());
    }

    /// `instar` in the folder.
    pub fn instar(&self, words: &[&str]) -> Run {
        program().native(Cell::Process).folder(self.folder()).args(words)
    }

    /// What comes of it; every cell must answer the same.
    pub fn ask(&self, words: &[&str]) -> Ran {
        same_everywhere(&self.instar(words))
    }

    /// The answer, which must come without a word on standard error.
    pub fn told(&self, words: &[&str]) -> String {
        succeeded(&self.ask(words))
    }

    /// The answer as JSON.
    pub fn json(&self, words: &[&str]) -> Value {
        let text = self.told(&[&["info", "--output=json"], words].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words:?}: {e}\n{text}"))
    }

    /// The refusal, which must be this one line and leave standard output alone.
    pub fn refused(&self, words: &[&str], code: i32, line: &str) {
        refused_so(&self.ask(words), code, line);
    }
}

/// Runs it in every cell.
pub fn same_everywhere(run: &Run) -> Ran {
    let mut all = Cell::all().iter().map(|cell| run.clone().env("INSTAR_CELL", cell.name()).go());
    let first = all.next().expect("a cell");
    for other in all {
        assert_eq!((&first.end, first.out(), first.err()), (&other.end, other.out(), other.err()), "{}", run.line());
    }
    first
}

/// The answer of a run that went well in silence.
pub fn succeeded(ran: &Ran) -> String {
    assert_eq!((ran.end, ran.err().as_str()), (End::Code(0), ""), "{}", ran.out());
    ran.out()
}

/// A run that was refused in one line.
pub fn refused_so(ran: &Ran, code: i32, line: &str) {
    assert_eq!((ran.err(), ran.end, ran.out().as_str()), (format!("{line}\n"), End::Code(code), ""));
}

/// A chain that policy ended: what refers is told with the verdict, and the refusal in one line.
pub fn ended_by_policy(ran: &Ran, line: &str) {
    assert_eq!((ran.err(), ran.end), (format!("{line}\n"), End::Code(1)));
    let told = ran.out();
    let refused = ["\n    policy: refused (", "\"allowed\": false"];
    assert!(refused.iter().any(|verdict| told.contains(verdict)), "{told}");
}

/// The value after a key at the beginning of a line.
pub fn line_of<'a>(text: &'a str, key: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    value.unwrap_or_else(|| panic!("no {key} in\n{text}"))
}

/// The lines below a heading.
pub fn section(text: &str, heading: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| *line != format!("{heading}:")).skip(1);
    lines.take_while(|line| line.starts_with("    ")).map(|line| line[4..].to_owned()).collect()
}
