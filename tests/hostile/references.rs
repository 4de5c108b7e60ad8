//! Names inside images that lead out of the image's own folder.

use crate::names::{Kind, image};
use crate::sane::{check_one, native};
use instar_testkit::images::each;
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::Cell;
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use std::path::Path;

/// What a name is expected to meet.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// It leads out, so it is refused.
    Refused,
    /// It leads nowhere; whatever the answer, it is one line.
    Nowhere,
}

/// A name found in an image.
struct Name {
    word: &'static str,
    bytes: Vec<u8>,
    fate: Fate,
    /// A path that no system call may succeed on, nor learn that it is missing.
    mark: String,
}

/// The file outside that nobody may learn of.
const MARK: &str = "secret-marker";

fn names(outside: &Path) -> Vec<Name> {
    let secret = outside.join(MARK).display().to_string();
    let name =
        |word, bytes: String, fate, mark: &str| Name { word, bytes: bytes.into_bytes(), fate, mark: mark.into() };
    let json = |path: &str| format!("json:{{\"driver\":\"file\",\"filename\":\"{path}\"}}");
    let nested = format!("json:{{\"file\":{{\"driver\":\"file\",\"filename\":\"{secret}\"}},\"driver\":\"raw\"}}");
    vec![
        name("absolute", secret.clone(), Fate::Refused, MARK),
        name("up", format!("../outside/{MARK}"), Fate::Refused, MARK),
        name("up and down", format!("./x/../../outside/{MARK}"), Fate::Refused, MARK),
        name("doubled slashes", format!("//{secret}"), Fate::Refused, MARK),
        name("through a linked folder", format!("linked/{MARK}"), Fate::Refused, MARK),
        name("a link", "link".into(), Fate::Refused, MARK),
        name("a link to a link", "link-to-link".into(), Fate::Refused, MARK),
        name("file:", format!("file:{secret}"), Fate::Refused, MARK),
        name("file://", format!("file://{secret}"), Fate::Refused, MARK),
        name("a device", "/dev/zero".into(), Fate::Refused, "/dev/zero"),
        name("a device of memory", "/dev/mem".into(), Fate::Refused, "/dev/mem"),
        name("standard input", "/dev/stdin".into(), Fate::Refused, "/dev/stdin"),
        name("an own descriptor", "/proc/self/fd/3".into(), Fate::Refused, ""),
        name("own memory", "/proc/self/mem".into(), Fate::Refused, "/proc/self/mem"),
        name("passwords", "/etc/shadow".into(), Fate::Refused, "/etc/shadow"),
        name("a FIFO outside", outside.join("fifo").display().to_string(), Fate::Refused, "outside/fifo"),
        name("a FIFO inside", "fifo".into(), Fate::Nowhere, ""),
        name("a folder", "sub".into(), Fate::Nowhere, ""),
        name("itself", "top".into(), Fate::Nowhere, ""),
        name("json", json(&secret), Fate::Refused, MARK),
        name("json nested", nested, Fate::Refused, MARK),
        name("json broken", "json:{".into(), Fate::Refused, ""),
        name("nbd", "nbd:127.0.0.1:10809".into(), Fate::Refused, "10809"),
        name("nbd url", "nbd://127.0.0.1/x".into(), Fate::Refused, "127.0.0.1"),
        name("nbd socket", "nbd+unix:///?socket=sock".into(), Fate::Refused, "sock\""),
        name("http", "http://127.0.0.1:1/x".into(), Fate::Refused, "127.0.0.1"),
        name("fd", "fd:3".into(), Fate::Refused, ""),
        name("an unknown protocol", "nosuch:thing".into(), Fate::Refused, ""),
        name("a name after a NUL", format!("inner.qcow2\0../outside/{MARK}"), Fate::Nowhere, MARK),
        name("a NUL before a name", format!("\0../outside/{MARK}"), Fate::Nowhere, MARK),
        name("1023 bytes", "d/".repeat(511) + "x", Fate::Nowhere, ""),
        name("1023 bytes up", "../".repeat(341), Fate::Nowhere, ""),
        name("a newline", "in\nner".into(), Fate::Nowhere, ""),
        name("an escape", "\x1b[31mred\x1b]0;title\x07".into(), Fate::Nowhere, ""),
        name("a forged line", "x'\ninstar: all is well\nfile format: raw".into(), Fate::Nowhere, ""),
    ]
}

/// The folders of a case: `inside` with the image, `outside` with what it must not reach.
fn prepare(scratch: &Path, kind: Kind, name: &Name) {
    let (inside, outside) = (scratch.join("inside"), scratch.join("outside"));
    let make = |path: &Path| std::fs::create_dir_all(path).expect("a folder");
    make(&inside.join("sub"));
    make(&outside);
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, inside.join(from)).expect("a link");
    link("../outside", "linked");
    link("../outside/secret-marker", "link");
    link("link", "link-to-link");
    for fifo in [inside.join("fifo"), outside.join("fifo")] {
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo, rustix::fs::Mode::from_raw_mode(0o644)).expect("a FIFO");
    }
    std::fs::write(outside.join(MARK), image(Kind::Qcow2, None)).expect("the file outside");
    std::fs::write(inside.join("inner.qcow2"), image(Kind::Qcow2, None)).expect("a good base");
    std::fs::write(inside.join("top"), image(kind, Some(&name.bytes))).expect("the image");
}

fn ask(scratch: &Path, cell: Cell) -> Run {
    native(cell).arg("--backing-chain").arg("top").folder(scratch.join("inside"))
}

/// Every kind of reference with every name.
fn cases() -> Vec<(Kind, usize)> {
    let count = names(Path::new("/")).len();
    Kind::ALL.iter().flat_map(|kind| (0..count).map(move |n| (*kind, n))).collect()
}

#[test]
fn names_that_lead_out_are_refused_and_tell_nothing() {
    let report = Report::new("hostile references");
    each(&cases(), |at, (kind, n)| {
        let scratch = Scratch::new("reference");
        let name = names(&scratch.path().join("outside")).swap_remove(*n);
        prepare(scratch.path(), *kind, &name);
        for cell in Cell::all().iter().filter(|cell| **cell == Cell::Process || at % 5 == 0) {
            let what = format!("{kind:?} of {}", name.word);
            let there = check_one(&report, &what, &ask(scratch.path(), *cell));
            judge(&report, &what, *kind, &name, &there);
            let (secret, away) = (scratch.path().join("outside").join(MARK), scratch.path().join("away"));
            std::fs::rename(&secret, &away).expect("the file outside goes");
            let gone = ask(scratch.path(), *cell).go();
            std::fs::rename(&away, &secret).expect("and comes back");
            if (&there.stdout, &there.stderr, there.end) != (&gone.stdout, &gone.stderr, gone.end) {
                report.fault(format!("{what} tells what exists:\n  {}  {}", there.err(), gone.err()));
            }
        }
    });
    report.end();
}

fn judge(report: &Report, what: &str, kind: Kind, name: &Name, ran: &Ran) {
    let may_succeed = !kind.is_needed() || name.fate == Fate::Nowhere;
    if !may_succeed && ran.end != End::Code(1) {
        report.fault(format!("{what} was not refused: {}{}", ran.out(), ran.err()));
    }
    let err = ran.err();
    for telling in ["No such file", "not found", "Permission denied", "does not exist"] {
        if name.fate == Fate::Refused && err.contains(telling) {
            report.fault(format!("{what} tells what exists: {err}"));
        }
    }
}

#[test]
fn nothing_outside_is_opened() {
    if Run::new("sh").args(["-c", "strace -qq true"]).go().end != End::Code(0) {
        skipped("system calls on files outside: strace is not here or may not trace");
        return;
    }
    let report = Report::new("hostile trace");
    each(&cases(), |at, (kind, n)| {
        let scratch = Scratch::new("trace");
        let name = names(&scratch.path().join("outside")).swap_remove(*n);
        prepare(scratch.path(), *kind, &name);
        let cells = Cell::all();
        let cell = cells[at % cells.len()];
        let trace = scratch.path().join("trace");
        let words = ["strace", "-f", "-y", "-qq", "-s", "4096", "-e", "trace=%file,%network", "-o"];
        let run = ask(scratch.path(), cell).through(words.iter().map(Path::new).chain([trace.as_path()]));
        report.tried();
        let ran = run.go();
        let text = std::fs::read(&trace).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        if text.is_empty() || matches!(ran.end, End::Timeout) {
            report.fault(format!("{kind:?} of {}: no trace, {:?}", name.word, ran.end));
        }
        for line in text.lines().filter(|line| reaches(line, &name.mark)) {
            report.fault(format!("{kind:?} of {} | {}: {line}", name.word, cell.name()));
        }
    });
    report.end();
}

/// Whether a system call reached the marked path, or learned that it is not there.
fn reaches(line: &str, mark: &str) -> bool {
    let harmless = ["execve(", "readlink", "EXDEV", "ELOOP", "O_PATH"];
    !mark.is_empty() && line.contains(mark) && !harmless.iter().any(|word| line.contains(word))
}

#[test]
fn names_that_stay_inside_are_followed() {
    let report = Report::new("hostile inside");
    for kind in Kind::ALL.iter().filter(|kind| kind.has_backing()) {
        let scratch = Scratch::new("inside");
        for (good, place) in
            [("inner.qcow2", ""), ("./sub/../inner.qcow2", ""), ("../outside/secret-marker", "outside")]
        {
            let folder = scratch.folder(&good.replace(['/', '.'], "_"));
            let bytes = good.as_bytes().to_vec();
            prepare(&folder, *kind, &Name { word: "good", bytes, fate: Fate::Nowhere, mark: String::new() });
            for cell in Cell::all() {
                let mut run = ask(&folder, *cell);
                if !place.is_empty() {
                    run = run.env("INSTAR_ALLOW", folder.join(place));
                }
                let ran = check_one(&report, good, &run);
                if ran.end != End::Code(0) {
                    report.fault(format!("{kind:?} of {good} is not followed: {}\n  {}", ran.err(), run.line()));
                }
            }
        }
    }
    report.end();
}
