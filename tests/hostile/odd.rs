//! Things that are not images, and not even files.

use crate::sane::{HANGS, check, native};
use instar_testkit::oracle::newest;
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Ran};
use instar_tests::report::{Report, difference};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// What there is to be shown: a word for it and its path.
fn things(scratch: &Scratch) -> Vec<(&'static str, PathBuf)> {
    let at = |name: &str| scratch.path().join(name);
    let file = |name: &str, bytes: &[u8]| std::fs::write(at(name), bytes).expect("a file");
    file("empty", b"");
    file("one-byte", b"Q");
    file("five-hundred", &[0x51; 500]);
    file("text", b"This is not a disk.\n");
    std::fs::create_dir_all(at("folder")).expect("a folder");
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::from_raw_mode(0o644)).expect("a FIFO");
    drop(UnixListener::bind(at("socket")).expect("a socket"));
    std::os::unix::fs::symlink("circle", at("circle")).expect("a link");
    std::os::unix::fs::symlink("nowhere", at("dangling")).expect("a link");
    std::os::unix::fs::symlink("fifo", at("to-fifo")).expect("a link");
    let mut all: Vec<(&str, PathBuf)> = [
        "empty",
        "one-byte",
        "five-hundred",
        "text",
        "folder",
        "fifo",
        "socket",
        "circle",
        "dangling",
        "to-fifo",
        "missing",
        "empty/below-a-file",
        "folder/",
    ]
    .map(|name| (name, at(name)))
    .into();
    all.extend(
        [
            "/dev/zero",
            "/dev/null",
            "/dev/full",
            "/dev/random",
            "/dev/tty",
            "/dev/stdin",
            "/proc/self/fd/0",
            "/proc/self/mem",
        ]
        .map(|path| (path, PathBuf::from(path))),
    );
    all.push(("a name that is too long", at(&"n".repeat(300))));
    all.push(("nothing", PathBuf::new()));
    all
}

#[test]
fn what_is_no_image_gets_one_line() {
    let scratch = Scratch::new("odd");
    let report = Report::new("hostile odd");
    for (word, path) in things(&scratch) {
        check(&report, word, |cell| native(cell).arg(&path));
        check(&report, word, |cell| native(cell).args(["--output=json", "--chain"]).arg(&path));
        check(&report, word, |cell| native(cell).args(["-f", "qcow2"]).arg(&path));
        check(&report, word, |cell| native(cell).args(["-f", "raw"]).arg(&path));
    }
    report.end();
}

#[test]
fn what_is_no_image_is_told_as_qemu_img_tells_it() {
    let scratch = Scratch::new("odd");
    let report = Report::new("hostile odd parity");
    for (word, path) in things(&scratch) {
        for form in [&[][..], &["-f", "qcow2"]] {
            let want = newest().img().limit(HANGS).arg("info").args(form).arg(&path).go();
            if want.end == End::Timeout {
                skipped(&format!("{word}: qemu-img {} itself hangs", newest().version));
                continue;
            }
            for cell in Cell::all() {
                report.tried();
                let run = program().quirky(&newest().version, *cell).limit(HANGS).arg("info").args(form).arg(&path);
                let got = run.go();
                if (&got.stdout, &got.stderr, got.end) != (&want.stdout, &want.stderr, want.end) {
                    report.fault(format!("{word}\n  {}\n{}", run.line(), told(&want, &got)));
                }
            }
        }
    }
    report.end();
}

fn told(want: &Ran, got: &Ran) -> String {
    let ends = format!("  {:?}, not {:?}\n", got.end, want.end);
    ends + &difference("stdout", &want.stdout, &got.stdout) + &difference("stderr", &want.stderr, &got.stderr)
}

#[test]
fn what_may_not_be_read_gets_one_line() {
    if !rustix::process::geteuid().is_root() {
        skipped("unreadable files as another user: this is not root");
        return;
    }
    let scratch = Scratch::new("unreadable");
    let report = Report::new("hostile unreadable");
    let (file, folder) = (scratch.path().join("secret.img"), scratch.folder("closed"));
    std::fs::write(&file, b"QFI\xfb").expect("a file");
    std::fs::write(folder.join("inside.img"), b"QFI\xfb").expect("a file");
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(&file, closed.clone()).expect("its permissions");
    std::fs::set_permissions(&folder, closed).expect("its permissions");
    for path in [file, folder.join("inside.img"), folder.join("missing.img")] {
        for ran in check(&report, "unreadable", |cell| match cell {
            // Nobody may open /dev/kvm, so another way is chosen for nobody.
            Cell::Kvm => native(cell).env("INSTAR_CELL", "auto").arg(&path).as_nobody(),
            Cell::Process => native(cell).arg(&path).as_nobody(),
        }) {
            if ran.end != End::Code(1) || !ran.err().contains("Permission denied") {
                report.fault(format!("{}: {:?} {}", path.display(), ran.end, ran.err()));
            }
        }
    }
    report.end();
}
