//! Limits, environments, users and outputs that the program is run with.

use crate::disks::disks;
use instar_testkit::oracle::newest;
use instar_testkit::place::skipped;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Something done to a run before it starts.
type Change = (&'static str, fn(Run) -> Run);

fn shell(line: &'static str) -> impl Fn(Run) -> Run {
    move |run| run.in_shell(line)
}

/// In all of these, an image is told as ever.
const HARMLESS: &[Change] = &[
    ("glance's limits", |run| run.through(["prlimit", "--as=1073741824", "--cpu=2", "--"])),
    ("nova's limits", |run| run.through(["prlimit", "--as=2147483648", "--cpu=30", "--"])),
    ("no core, few files", |run| run.through(["prlimit", "--core=0", "--nofile=32", "--"])),
    ("a small stack", |run| run.through(["prlimit", "--stack=1048576", "--"])),
    ("no locked memory", |run| run.through(["prlimit", "--memlock=0", "--"])),
    ("ironic's environment", |run| run.env("MALLOC_ARENA_MAX", "3").only_env(KEPT)),
    ("hardly any environment", |run| run.only_env(&["INSTAR_CELL", "INSTAR_FACE"])),
    ("another language", |run| run.env("LC_ALL", "de_DE.UTF-8").env("LANGUAGE", "de")),
    ("no file for anyone", |run| shell("umask 0777; exec \"$@\"")(run)),
    ("no input", |run| shell("exec \"$@\" <&-")(run)),
    ("no error output", |run| shell("exec \"$@\" 2>&-")(run)),
    ("no input, no error output", |run| shell("exec \"$@\" <&- 2>&-")(run)),
    ("an input that never ends", |run| shell("exec \"$@\" </dev/zero")(run)),
    ("low priority", |run| run.through(["nice", "-n", "19"])),
    ("signals ignored", |run| shell("trap '' PIPE CHLD HUP INT TERM; exec \"$@\"")(run)),
];

/// What ironic leaves in the environment, and what these tests need.
const KEPT: &[&str] = &["MALLOC_ARENA_MAX", "LC_ALL", "INSTAR_CELL", "INSTAR_FACE", "INSTAR_QEMU_VERSION"];

/// Every way to choose a cell: as a user who may choose both, and by default.
fn cells() -> Vec<&'static str> {
    Cell::all().iter().map(|cell| cell.name()).chain(["auto"]).collect()
}

fn plain(folder: &Path, cell: &str) -> Run {
    let run = program().qemu(&newest().version, Cell::Process).env("INSTAR_CELL", cell);
    run.folder(folder).args(["info", "--output=json", "overlay.qcow2"])
}

#[test]
fn limits_and_environments_change_nothing() {
    let report = Report::new("cmd surroundings");
    let scratch = disks();
    for cell in cells() {
        let ran = plain(scratch.path(), cell).must();
        for (what, change) in HARMLESS {
            report.tried();
            let run = change(plain(scratch.path(), cell));
            // The answer may be that of the default version where the environment that names one is gone.
            let base =
                if *what == "hardly any environment" { change(plain(scratch.path(), cell)).go() } else { ran.clone() };
            judge(&report, what, &run, &base);
        }
    }
    report.end();
}

fn judge(report: &Report, what: &str, run: &Run, want: &Ran) {
    let got = run.go();
    if got.end != End::Code(0) || got.stdout != want.stdout || !got.stderr.is_empty() {
        report.fault(format!("{what}: {:?}\n{}{}\n  {}", got.end, got.out(), got.err(), run.line()));
    }
}

/// Whether any user may open /dev/kvm.
fn kvm_is_everyones() -> bool {
    std::fs::metadata("/dev/kvm").is_ok_and(|m| m.mode() & 0o006 == 0o006)
}

#[test]
fn nobody_can_run_it_too() {
    if !rustix::process::geteuid().is_root() {
        skipped("another user: this is not root, so every other test already ran as an ordinary user");
        return;
    }
    let report = Report::new("cmd nobody");
    let scratch = disks();
    let want = plain(scratch.path(), "process").must();
    let limits = ["prlimit", "--as=1073741824", "--cpu=2", "--"];
    for cell in ["process", "auto"] {
        report.tried();
        judge(&report, "nobody", &plain(scratch.path(), cell).as_nobody(), &want);
        let limited = plain(scratch.path(), cell).through(limits).as_nobody();
        judge(&report, "nobody, limited", &limited, &want);
        let no_gain = ["setpriv", "--no-new-privs", "--"];
        judge(&report, "nobody, no new privileges", &plain(scratch.path(), cell).through(no_gain).as_nobody(), &want);
        let bare = plain(scratch.path(), cell).only_env(KEPT).in_shell("exec \"$@\" <&-").as_nobody();
        judge(&report, "nobody, without anything", &bare, &want);
    }
    // A cell that this user cannot have is a refusal with advice, not a crash.
    let refused = plain(scratch.path(), "kvm").as_nobody().go();
    if !kvm_is_everyones() && (refused.end != End::Code(1) || !refused.err().contains("kvm")) {
        report.fault(format!("KVM for nobody: {:?} {}", refused.end, refused.err()));
    }
    report.end();
}

/// In either face, in every cell, in each form of the answer.
fn answers(folder: &Path) -> Vec<Run> {
    let mut all = Vec::new();
    for cell in cells() {
        for words in
            [&["overlay.qcow2"][..], &["--output=json", "overlay.qcow2"], &["--backing-chain", "overlay.qcow2"]]
        {
            for run in [program().native(Cell::Process), program().qemu(&newest().version, Cell::Process)] {
                all.push(run.env("INSTAR_CELL", cell).folder(folder).arg("info").args(words));
            }
        }
    }
    all
}

#[test]
fn output_that_is_lost_is_an_error() {
    let report = Report::new("cmd lost output");
    let scratch = disks();
    for run in answers(scratch.path()) {
        report.tried();
        let run = run.in_shell("exec \"$@\" >/dev/full");
        let ran = run.go();
        let lines = ran.err().lines().count();
        if ran.end != End::Code(1) || lines != 1 || !ran.err().contains("No space left on device") {
            report.fault(format!("{:?} {}\n  {}", ran.end, ran.err(), run.line()));
        }
    }
    report.end();
}

/// A program without outputs may open the image in their place; what it says must not end up there.
#[test]
fn without_an_output_nothing_is_written_into_the_image() {
    let report = Report::new("cmd no output");
    let scratch = disks();
    let bytes =
        || ["overlay.qcow2", "disk.qcow2"].map(|name| std::fs::read(scratch.path().join(name)).expect("the image"));
    let before = bytes();
    for run in answers(scratch.path()) {
        for line in ["exec \"$@\" >&-", "exec \"$@\" >&- 2>&-", "exec \"$@\" <&- >&- 2>&-"] {
            report.tried();
            let run = run.clone().in_shell(line);
            let ran = run.go();
            // qemu-img does not care whether anyone hears it; an error is as good.
            if !matches!(ran.end, End::Code(0 | 1)) || ran.err().lines().count() > 1 || bytes() != before {
                report.fault(format!("{:?} {}\n  {}", ran.end, ran.err(), run.line()));
            }
        }
    }
    report.end();
}

#[test]
fn a_reader_that_goes_away_is_no_disaster() {
    let scratch = disks();
    for cell in cells() {
        let run = plain(scratch.path(), cell).in_shell("\"$@\" | true; echo \"$?\"");
        let ran = run.go();
        assert!(!ran.err().contains("panicked"), "{}", ran.err());
    }
}

#[test]
fn help_and_version_need_no_cell() {
    let report = Report::new("cmd help");
    for words in [&["--help"][..], &["--version"], &["info", "--help"]] {
        for run in [program().native(Cell::Process), program().qemu(&newest().version, Cell::Process)] {
            report.tried();
            let run = run.env("INSTAR_CELL", "kvm").args(words).through(["prlimit", "--as=268435456", "--"]);
            let ran = run.go();
            if ran.end != End::Code(0) || ran.stdout.is_empty() || !ran.stderr.is_empty() {
                report.fault(format!("{:?} {}\n  {}", ran.end, ran.err(), run.line()));
            }
        }
    }
    report.end();
}

#[test]
fn where_no_wall_can_stand_nothing_runs() {
    if !rustix::process::geteuid().is_root() || kvm_is_everyones() {
        skipped("no wall: only root can become a user who may neither open KVM nor fork, where KVM is not everyone's");
        return;
    }
    let scratch = disks();
    // The home is another's and closed to this user, which is no reason to fail.
    let run = program().native(Cell::Process).only_env(&["LC_ALL"]).env("HOME", "/root");
    let run = run.folder(scratch.path()).args(["info", "disk.qcow2"]);
    run.clone().as_nobody().must();
    let ran = run.through(["prlimit", "--nproc=1", "--"]).as_nobody().go();
    let said = ran.err();
    assert_eq!((ran.end, ran.out().as_str(), said.lines().count()), (End::Code(1), "", 1), "{said}");
    for words in ["no wall can be put around the parsers here, so nothing is run", "; kvm: ", "; process: ", "/dev/kvm"]
    {
        assert!(said.contains(words), "{said}");
    }
}

/// A container's first process that runs a program three times, and then tells how many children of others it has got.
const FIRST: &str = "
import os, subprocess, sys, time
for _ in range(3):
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
time.sleep(0.1)
def state(pid):
    return open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0]
print(sum(state(pid) == 'Z' for pid in os.listdir('/proc') if pid.isdigit()))
";

#[test]
fn a_container_whose_first_process_buries_nobody_is_not_filled_with_the_dead() {
    if !rustix::process::geteuid().is_root() {
        skipped("a container: this is not root");
        return;
    }
    let scratch = disks();
    for cell in cells() {
        let container = ["unshare", "--pid", "--fork", "--mount-proc", "/usr/bin/python3", "-c", FIRST];
        let ran = plain(scratch.path(), cell).through(container).must();
        assert_eq!(ran.out(), "0\n", "{cell}");
    }
}
