//! An image that was harmed, put to every verb that reads.

use instar_testkit::oracle::version;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A run that takes longer hangs.
const HANGS: Duration = Duration::from_secs(30);
/// The real program is not waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most memory a run may take.
const MEMORY_MAX_KIB: u64 = 300 << 10;
/// What is longer is compared by the real program, which knows holes.
pub const LONG: u64 = 64 << 20;
/// Words that only a program in trouble says.
const TROUBLE: &[&str] = &["panicked", "fault", "signal", "backtrace", "overflow", "unwrap", "budget", "worker"];
/// What a line begins with that says that something could not be read, and not that it could not be opened.
const UNREAD: &[&str] = &[
    "instar: error while reading",
    "instar: Error while reading",
    "instar: Could not read file metadata",
    "instar: Unable to get block status",
    "instar: Sector allocation test failed",
];

/// An image in a folder of its own.
pub struct Trial<'a> {
    /// Where what is wrong is told.
    pub report: &'a Report,
    /// What it is about.
    pub what: String,
    /// Its folder.
    pub folder: &'a Path,
    /// Its file.
    pub name: &'a str,
    /// Its format.
    pub format: &'a str,
    /// How it is named if it is encrypted.
    pub options: Option<&'a str>,
    /// The wall.
    pub cell: Cell,
}

/// What came of it.
pub struct Outcome {
    /// How the copy ended.
    pub copied: Ran,
    /// All its bytes could be copied by the real program.
    pub is_readable: bool,
}

impl Trial<'_> {
    /// Asks everything, and judges every answer.
    pub fn judge(&self) -> Outcome {
        let (kept, image) = (self.folder.with_extension("kept"), self.folder.join(self.name));
        std::fs::copy(&image, &kept).expect("a copy of the image");
        let before = self.files();
        let own = [self.options.map_or_else(Vec::new, |_| self.words()), self.plain()].concat();
        let questions: [&[&str]; 4] = [
            &["map", "--output=json"],
            &["measure", "-O", "raw", "--output=json"],
            &["measure", "-O", "qcow2", "--output=json"],
            &["snapshot", "-l"],
        ];
        for question in questions {
            self.ask(&self.native().args(question).args(&own));
        }
        self.check(&own);
        let ran = self.ask(&self.native().arg("compare").args(self.twice()));
        if ran.end == End::Code(1) {
            self.fault(&format!("it differs from itself: {}", ran.out()));
        }
        let copied = self.ask(&self.native().args(["convert", "-O", "raw"]).args(&own).arg("o.raw"));
        let is_readable = self.same_as_theirs(&copied);
        self.gone(&copied, "o.raw");
        let input = format!("if={}", self.name);
        let part = self.ask(&self.native().args(["dd", "bs=64k", "-f", self.format, &input, "of=p.raw"]));
        self.gone(&part, "p.raw");
        if self.files() != before || !same(&image, &kept) {
            self.fault("files were changed, made or removed");
        }
        let _ = std::fs::remove_file(kept);
        Outcome { copied, is_readable }
    }

    /// A check ends with one of its own codes, and tells as many lines as it likes.
    fn check(&self, own: &[String]) {
        let run = self.native().args(["check", "--output=json"]).args(own);
        let ran = self.calm(&run);
        let is_document = serde_json::from_slice::<serde_json::Value>(&ran.stdout).is_ok();
        let has_told = is_document == matches!(ran.end, End::Code(0 | 2 | 3)) || ran.err().ends_with("Check failed\n");
        if !has_told {
            self.fault(&format!("{:?}, and a document is there: {is_document}\n  {}", ran.end, run.line()));
        }
    }

    /// Something that may tell many lines, but ends with one of its own codes, small and without trouble.
    pub fn calm(&self, run: &Run) -> Ran {
        self.report.tried();
        let ran = run.go();
        let err = ran.err();
        let has_ended = matches!(ran.end, End::Code(0..=3 | 63)) && ran.peak_kib() <= MEMORY_MAX_KIB;
        // A count may overflow, and that is a finding.
        let is_word = |word: &str| TROUBLE.contains(&word) && word != "overflow";
        let is_calm = !err.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word);
        if !(has_ended && (is_calm || self.options.is_some())) {
            let last = err.lines().last().unwrap_or_default();
            self.fault(&format!("{:?}, {} KiB\n  {}\n  {last}", ran.end, ran.peak_kib(), run.line()));
        }
        ran
    }

    /// A run inside the image's folder.
    pub fn native(&self) -> Run {
        program().native(self.cell).folder(self.folder).limit(HANGS).measured()
    }

    fn plain(&self) -> Vec<String> {
        if self.options.is_some() { Vec::new() } else { self.words() }
    }

    /// What names the image on a command line.
    pub fn words(&self) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self.options {
            Some(options) => owned(&["--object", instar_testkit::random::SECRET, "--image-opts", options]),
            None => owned(&["-f", self.format, self.name]),
        }
    }

    fn twice(&self) -> Vec<String> {
        let last = self.options.unwrap_or(self.name).to_owned();
        let second = if self.options.is_some() { vec![last] } else { vec!["-F".into(), self.format.into(), last] };
        [self.words(), second].concat()
    }

    fn ask(&self, run: &Run) -> Ran {
        self.report.tried();
        let ran = run.go();
        // Whoever knows the passphrase is made to wait as long as the header says, and no longer than the limit.
        let waited = self.options.is_some() && ran.err().contains("used up its processor time");
        if let Some(wrong) = self.wrong(&ran).filter(|_| !waited) {
            let end = |bytes: &[u8]| bytes[..bytes.len().min(400)].escape_ascii().to_string();
            let (out, err) = (end(&ran.stdout), end(&ran.stderr));
            self.fault(&format!("{wrong}\n  {}\n  stdout: {out}\n  stderr: {err}", run.line()));
        }
        ran
    }

    /// What is wrong with a run: nothing if it ended in time, small, with what was wanted or with one line that says
    /// where the trouble is.
    fn wrong(&self, ran: &Ran) -> Option<String> {
        let err = ran.err();
        let mut words = err.split(|c: char| !c.is_ascii_alphanumeric());
        let is_line = err.ends_with('\n') && err.lines().count() == 1;
        let nowhere = UNREAD.iter().any(|head| err.starts_with(head))
            && ![" at offset ", " in '"].iter().any(|place| err.contains(place));
        match ran.end {
            End::Timeout => Some("it hangs".to_owned()),
            End::Signal(signal) => Some(format!("it died of signal {signal}")),
            End::Code(code) if code > 4 => Some(format!("it ended with {code}")),
            _ if ran.peak_kib() > MEMORY_MAX_KIB => Some(format!("it took {} KiB", ran.peak_kib())),
            _ if words.any(|word| TROUBLE.contains(&word)) => Some("it speaks of trouble".to_owned()),
            End::Code(1..) if !ran.stdout.is_empty() && !ran.out().contains("mismatch") => {
                Some("it failed, and printed".to_owned())
            }
            End::Code(1..) if !is_line && ran.stdout.is_empty() => Some("there is not one line of refusal".to_owned()),
            End::Code(1..) if nowhere => Some("it does not say where".to_owned()),
            _ => None,
        }
    }

    /// Whether the real program can copy it; if both can, to the same bytes.
    fn same_as_theirs(&self, ours: &Ran) -> bool {
        let Some(oracle) = version("10.0.2") else { return false };
        let run = oracle.img().folder(self.folder).limit(PATIENCE).args(["convert", "-O", "raw"]);
        let theirs = run.args(self.words()).arg("theirs.raw").go();
        let is_readable = theirs.end == End::Code(0);
        let (a, b) = (self.folder.join("o.raw"), self.folder.join("theirs.raw"));
        match (is_readable, ours.end == End::Code(0)) {
            (true, true) if !same(&a, &b) => self.fault("the real program reads something else"),
            (true, false) if !refused_on_purpose(&ours.err()) => {
                self.fault(&format!("the real program reads it: {}", ours.err()));
            }
            _ => {}
        }
        let _ = std::fs::remove_file(b);
        is_readable
    }

    /// A target is there if all went well, and then it is taken away.
    fn gone(&self, ran: &Ran, target: &str) {
        let target = self.folder.join(target);
        if target.exists() != (ran.end == End::Code(0)) {
            self.fault(&format!("{:?}, and the target is there: {}", ran.end, target.exists()));
        }
        let _ = std::fs::remove_file(target);
    }

    /// The files, how long they are, and when they were last written to.
    fn files(&self) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
        let entries = std::fs::read_dir(self.folder).expect("a folder").flatten();
        let told = entries.filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((entry.path(), metadata.len(), metadata.modified().ok()))
        });
        let mut files: Vec<_> = told.collect();
        files.sort();
        files
    }

    /// Tells what is wrong.
    pub fn fault(&self, text: &str) {
        self.report.fault(format!("{} | {}: {text}", self.what, self.cell.name()));
    }
}

/// What is read by the real program and refused here.
fn refused_on_purpose(err: &str) -> bool {
    let reasons = [
        // A format name inside an image is a claim: what its bytes do not bear out is not read.
        "no known image format and no partition table",
        "the overlay calls it",
        // Differencing disks are read with their parents, and not as if they had none.
        "parent.vhd",
        // Of QED clusters side by side the real program looks at the first only: those cut off with the end of the
        // file become zeroes, and nobody is told of the loss.
        "a cluster lies where no cluster can be",
    ];
    reasons.iter().any(|reason| err.contains(reason))
}

/// Whether two files of the same length have the same bytes. They are not held: what this program holds would count as
/// memory of those that it starts.
pub fn same_bytes(a: &Path, b: &Path) -> bool {
    let (Ok(mut a), Ok(mut b)) = (File::open(a), File::open(b)) else { return false };
    let (mut left, mut right) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    loop {
        let len = a.read(&mut left).unwrap_or(0);
        if b.read_exact(&mut right[..len]).is_err() || left[..len] != right[..len] {
            return false;
        }
        if len == 0 {
            return true;
        }
    }
}

/// Whether two files have the same bytes.
fn same(a: &Path, b: &Path) -> bool {
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    if len(a) != len(b) {
        return false;
    }
    if len(a) <= LONG {
        return same_bytes(a, b);
    }
    let oracle = version("10.0.2").expect("it made one of them");
    let ran = oracle.img().limit(HANGS).args(["compare", "-f", "raw", "-F", "raw"]).arg(a).arg(b).go();
    ran.end == End::Code(0)
}
