//! What twelve versions of qemu-img were recorded to say.

use crate::deliberate::{RECORDED, reason};
use crate::digest::digest;
use crate::live::differences;
use crate::normal::{keyless, normal};
use instar_testkit::images::{each, settle};
use instar_testkit::oracle::{Oracle, maker};
use instar_testkit::place::{Scratch, shared, skipped, target};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// All verbs there will be.
const VERBS: &[&str] = &[
    "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info", "map", "measure",
    "rebase", "resize", "snapshot",
];
/// Cases that end while the command line is read, so that they need no verb that works.
const USAGE: &[&str] = &["noargs.", "badopt.", "badshort.", "noval."];
/// Cases about numbers on the command line.
const NUMBERS: &[&str] = &[
    "create.size-exp",
    "convert.Sbad2",
    "convert.ratebad",
    "resize.badsize",
    "more-create.sizebad-o",
    "bench.d-bad",
    "bench.o-bad",
    "bench.s-bad",
    "bench.pat-bad",
    "bench.t-bad",
    "bench.i-bad",
];

/// Of those, the ones that some version answers only when it gets to work, with that version's beginning.
const NUMBERS_AT_WORK: &[(&str, &str)] = &[("create.size-exp", "5.2")];
/// The one case whose image keeps keys that were made at random.
const WITH_KEYS: &str = "more-info.luks-wrongpw";

/// A recorded case.
#[derive(Clone, Debug)]
struct Case {
    id: String,
    argv: Vec<String>,
    needs: Vec<String>,
    writes: bool,
    /// What is done before with the program that makes images.
    setup: Vec<Vec<String>>,
    /// Files that are looked at afterwards.
    files: Vec<String>,
    /// What is asked afterwards.
    after: Vec<Vec<String>>,
}

impl Case {
    fn verb(&self) -> &str {
        self.argv.iter().map(String::as_str).find(|word| VERBS.contains(word)).unwrap_or("")
    }

    /// Whether the order of clusters in what it writes is the program's to choose.
    fn orders(&self) -> bool {
        ["amend", "bitmap", "check", "commit", "convert", "dd", "rebase", "resize", "snapshot"].contains(&self.verb())
    }

    fn one_of(&self, beginnings: &[&str]) -> bool {
        beginnings.iter().any(|beginning| self.id.starts_with(beginning))
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(shared().join("baselines/cases.json")).expect("the recorded cases");
    let list: Value = serde_json::from_str(&text).expect("a list of cases");
    let words = |value: &Value| {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let lines = |value: &Value| value.as_array().into_iter().flatten().map(words).collect::<Vec<_>>();
    let case = |case: &Value| Case {
        id: case["id"].as_str().unwrap_or_default().to_owned(),
        argv: words(&case["argv"]),
        needs: words(&case["needs"]),
        writes: case["mode"] == "rw",
        setup: lines(&case["setup"]),
        files: words(&case["hash"]),
        after: lines(&case["after"]),
    };
    list.as_array().into_iter().flatten().map(case).collect()
}

/// The verbs that the program says it has.
fn listed() -> &'static [String] {
    static LISTED: OnceLock<Vec<String>> = OnceLock::new();
    LISTED.get_or_init(|| {
        let help = program().qemu("11.1.3", Cell::Process).arg("--help").go().out();
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        help.lines().map(first).filter(|word| VERBS.contains(&word.as_str())).collect()
    })
}

/// The recorded outputs and the images they are about; kept from one run to the next.
struct Baselines {
    folder: PathBuf,
}

fn baselines() -> &'static Baselines {
    static BASELINES: OnceLock<Baselines> = OnceLock::new();
    BASELINES.get_or_init(|| {
        let folder = target().join("baselines");
        std::fs::create_dir_all(&folder).expect("a folder for the recorded cases");
        let lock = File::create(folder.join(".lock")).expect("a lock file");
        lock.lock().expect("the lock");
        let source = shared().join("baselines");
        let parts = ["records.tar.xz", "make-images.py"].map(|name| std::fs::read(source.join(name)).expect(name));
        let mark = format!("{:?}", parts.map(|bytes| bytes.iter().fold(0u64, |n, b| n.rotate_left(5) ^ u64::from(*b))));
        if std::fs::read_to_string(folder.join(".mark")).ok().as_ref() != Some(&mark) {
            unpack(&source, &folder);
            std::fs::write(folder.join(".mark"), mark).expect("a mark");
        }
        Baselines { folder: folder.canonicalize().expect("its path") }
    })
}

fn unpack(source: &Path, folder: &Path) {
    let records = folder.join("records");
    std::fs::create_dir_all(&records).expect("a folder for the recorded cases");
    Run::new("tar").arg("-xf").arg(source.join("records.tar.xz")).arg("-C").arg(records).must();
    let Oracle { version, .. } = maker();
    assert_eq!(version, "10.0.2", "the recorded cases are about images made by 10.0.2");
    let make = Run::new("python3").arg(source.join("make-images.py")).arg("--qemu-img");
    let make = make.arg(maker().program("qemu-img")).arg("--qemu-io").arg(maker().program("qemu-io"));
    // python3 may come from a version manager that needs the caller's own surroundings.
    let own = |name| std::env::var_os(name).unwrap_or_default();
    make.arg("--out").arg(folder.join("images")).env("PATH", own("PATH")).env("HOME", own("HOME")).must();
    settle(folder);
}

impl Baselines {
    fn versions(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("records")).expect("the records").flatten();
        let mut versions: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        versions.sort();
        if let Ok(only) = std::env::var("INSTAR_VERSION") {
            skipped(&format!("baselines: every version but {only}"));
            versions.retain(|version| *version == only);
        }
        versions
    }

    fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    /// What was recorded; nothing if the case was not run with that version.
    fn record(&self, version: &str, case: &Case) -> Option<Outcome> {
        let read = |part: &str| {
            std::fs::read(self.folder.join("records").join(version).join(format!("{}.{part}", case.id))).ok()
        };
        let code = String::from_utf8(read("rc")?).ok()?;
        let end = match code.trim().parse::<i32>() {
            Ok(code) if code >= 0 => End::Code(code),
            Ok(signal) => End::Signal(-signal),
            Err(_) => End::Timeout,
        };
        let extra = read("extra").map_or(Value::Null, |text| serde_json::from_slice(&text).expect("what was written"));
        Some(Outcome { ran: Ran { stdout: read("stdout")?, stderr: read("stderr")?, end, peak: None }, extra })
    }

    /// Runs a case, in a folder of its own if it may write, and normalises what it says.
    fn run(&self, case: &Case, version: &str, cell: Cell) -> Outcome {
        let own = case.writes.then(|| Scratch::new("case"));
        let folder = own.as_ref().map_or_else(|| self.images(), |own| own.path().to_owned());
        if case.writes {
            for name in &case.needs {
                let copy = Run::new("cp").args(["-a", "--sparse=always"]);
                copy.arg(self.images().join(name)).arg(&folder).must();
            }
            case.setup.iter().for_each(|line| _ = maker().img().folder(&folder).args(line).must());
        }
        let ask = |words: &[String]| {
            let mut ran = program().quirky(version, cell).folder(&folder).args(words).go();
            for output in [&mut ran.stdout, &mut ran.stderr] {
                *output = normal(output, &path_text(&folder), &case.id);
            }
            ran
        };
        let ran = ask(&case.argv);
        let mut extra = serde_json::Map::new();
        if !case.files.is_empty() {
            let digest = |name: &String| (name.clone(), digest(&folder.join(name)));
            extra.insert("files".to_owned(), Value::Object(case.files.iter().map(digest).collect()));
        }
        if !case.after.is_empty() {
            let told = |words: &Vec<String>| {
                let ran = ask(words);
                let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
                serde_json::json!({
                    "argv": words, "rc": ran.code(), "stdout": text(&ran.stdout), "stderr": text(&ran.stderr)
                })
            };
            extra.insert("after".to_owned(), case.after.iter().map(told).collect());
        }
        let extra = if extra.is_empty() { Value::Null } else { Value::Object(extra) };
        Outcome { ran, extra }
    }
}

/// What a case said, and what it left behind.
struct Outcome {
    ran: Ran,
    extra: Value,
}

impl Outcome {
    fn differences(&self, got: &Outcome, orders: bool) -> String {
        let mut out = differences(&self.ran, &got.ran);
        let is_alike = match orders {
            true => self.extra["after"] == got.extra["after"] && alike(&self.extra["files"], &got.extra["files"]),
            false => self.extra == got.extra,
        };
        if !is_alike {
            out += &format!("  left behind:\n  -{}\n  +{}\n", self.extra, got.extra);
        }
        out
    }
}

/// Whether written files are the same, or ones that hold the same in another order and are hardly larger: tables that are
/// changed at one moment stand in the file twice up to then.
fn alike(want: &Value, got: &Value) -> bool {
    const TABLES: u64 = 8 * (64 << 10);
    let files = want.as_object().into_iter().flatten();
    files.into_iter().all(|(name, want)| {
        let got = &got[name];
        let sizes = want["size"].as_u64().zip(got["size"].as_u64());
        want == got || sizes.is_some_and(|(want, got)| got <= (want + want / 100).max(want + TABLES))
    })
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Compares those cases, of all versions, in all cells.
fn compare(title: &'static str, wanted: impl Fn(&Case) -> bool) -> Report {
    let report = Report::new(title);
    let baselines = baselines();
    let cases: Vec<Case> = cases().into_iter().filter(wanted).collect();
    let versions = baselines.versions();
    let all: Vec<(&Case, &String)> = cases.iter().flat_map(|c| versions.iter().map(move |v| (c, v))).collect();
    each(&all, |_, (case, version)| {
        if case.needs.iter().any(|name| !baselines.images().join(name).exists()) {
            return;
        }
        let Some(mut want) = baselines.record(version, case) else { return };
        if at_work(case, version) {
            skipped(&format!("{} of {version}: the program has no {} yet", case.id, case.verb()));
            return;
        }
        if case.id == WITH_KEYS {
            want.ran.stdout = keyless(&want.ran.stdout);
        }
        for cell in Cell::all() {
            report.tried();
            let mut got = baselines.run(case, version, *cell);
            if case.id == WITH_KEYS {
                got.ran.stdout = keyless(&got.ran.stdout);
            }
            let differs = want.differences(&got, case.orders());
            if differs.is_empty() {
                continue;
            }
            match reason(RECORDED, version, &case.id, &want.ran, &got.ran) {
                Some(reason) => report.excuse(reason),
                None => {
                    let words = case.argv.join(" ");
                    report.fault(format!("{} | {version} | {} | {words}\n{differs}", case.id, cell.name()));
                }
            }
        }
    });
    report
}

/// Whether a number is judged by a verb at work, and the verb is not there.
fn at_work(case: &Case, version: &str) -> bool {
    let late = |(id, begin): &(&str, &str)| case.id == *id && version.starts_with(begin);
    NUMBERS_AT_WORK.iter().any(late) && !listed().iter().any(|verb| verb == case.verb())
}

#[test]
fn the_recorded_cases_of_every_verb_there_is_come_out_the_same() {
    let listed = listed();
    assert!(listed.iter().any(|verb| verb == "info"), "--help does not list info: {listed:?}");
    for verb in VERBS.iter().filter(|verb| !listed.iter().any(|l| l == *verb)) {
        skipped(&format!("the recorded cases of {verb}: the program does not have it; its usage errors are tried"));
    }
    let chosen = |case: &Case| listed.iter().any(|verb| verb == case.verb());
    let report = compare("baselines", chosen);
    assert!(report.count() >= 100, "only {} cases", report.count());
    report.end();
}

#[test]
fn usage_errors_before_any_verb_come_out_the_same() {
    compare("baselines top", |case| case.id.starts_with("top.")).end();
}

#[test]
fn usage_errors_of_every_verb_come_out_the_same() {
    compare("baselines usage", |case| case.one_of(USAGE)).end();
}

#[test]
fn number_errors_of_every_verb_come_out_the_same() {
    compare("baselines numbers", |case| NUMBERS.contains(&case.id.as_str())).end();
}
