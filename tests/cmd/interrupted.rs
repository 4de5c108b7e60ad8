//! What a copy leaves behind that does not come to its end: what was there before, and nothing else.

use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, Small, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Run};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Bytes without zeroes.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 255) as u8 + 1).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn run_quietly(program: &str, words: &[&str]) -> Option<String> {
    let out = Command::new(program).args(words).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// So slow that they are still at it when the signal comes: one keeps to a rate, the other waits for more.
const SLOW: [&[&str]; 2] = [
    &["convert", "-r", "1M", "-f", "raw", "-O", "raw", "in.raw", "out.raw"],
    &["dd", "-f", "raw", "if=/dev/stdin", "of=out.raw"],
];

#[test]
fn a_signal_leaves_what_was_there_before() {
    let scratch = Scratch::new("signals");
    for (number, signal) in [Signal::KILL, Signal::TERM, Signal::INT].into_iter().enumerate() {
        for (cell, words) in Cell::all().iter().flat_map(|cell| SLOW.iter().map(move |words| (cell, words))) {
            for former in [None, Some(b"what was there before".as_slice())] {
                let folder = scratch.folder(&format!("{number}-{}-{}-{}", cell.name(), words[0], former.is_some()));
                fs::write(folder.join("in.raw"), bytes(8 * MIB)).expect("a source");
                former.iter().for_each(|bytes| fs::write(folder.join("out.raw"), bytes).expect("a former target"));
                let before = names(&folder);
                let mut held = program().native(*cell).folder(&folder).args(*words).hold();
                let more = held.stdin.as_mut().map(|stdin| stdin.write_all(&bytes(MIB / 20)));
                assert!(more.is_some());
                thread::sleep(Duration::from_millis(300 + 200 * number as u64));
                let pid = Pid::from_child(&held.child);
                kill_process(pid, signal).expect("it is still running");
                let status = held.child.wait().expect("its end");
                use std::os::unix::process::ExitStatusExt;
                assert_eq!(status.signal(), Some(signal.as_raw()), "{signal:?}");
                let mut said = String::new();
                held.child.stderr.take().map(|mut err| err.read_to_string(&mut said));
                assert_eq!(said, "", "{signal:?} {words:?}");
                assert_eq!(names(&folder), before, "{signal:?} {cell:?} {words:?}");
                let now = fs::read(folder.join("out.raw")).ok();
                assert_eq!(now.as_deref(), former, "{signal:?} {cell:?} {words:?}");
            }
        }
    }
}

#[test]
fn a_death_at_any_moment_leaves_the_old_or_the_new() {
    let scratch = Scratch::new("moments");
    let whole = bytes(16 * MIB);
    scratch.put("in.raw", &whole);
    let folder = scratch.path();
    maker().img().folder(folder).args(["convert", "-c", "-O", "qcow2", "in.raw", "in.qcow2"]).must();
    let former = b"what was there before".as_slice();
    let mut seen = [0, 0];
    for (number, cell) in (0..24).flat_map(|number| Cell::all().iter().map(move |cell| (number, *cell))) {
        scratch.put("out.raw", former);
        let before = names(folder);
        let run = if number % 2 == 0 { program().native(cell) } else { program().qemu("10.0.2", cell) };
        let copy: &[&str] = if number % 4 < 2 {
            &["convert", "-O", "raw", "in.qcow2", "out.raw"]
        } else {
            &["dd", "if=in.qcow2", "of=out.raw"]
        };
        let mut held = run.folder(folder).args(copy).hold();
        // The first of them come before anything has been copied, the last after everything.
        thread::sleep(Duration::from_micros(500 << (number / 2)).min(Duration::from_millis(800)));
        let _ = held.child.kill();
        let _ = held.child.wait();
        let now = fs::read(folder.join("out.raw")).unwrap_or_default();
        assert!(now == former || now == whole, "{} bytes are there after {number}", now.len());
        assert_eq!(names(folder), before, "after {number}");
        seen[usize::from(now == whole)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn where_every_file_has_a_name_none_is_left_over() {
    if Run::new("sh").args(["-c", "strace -qq true"]).go().end != End::Code(0) {
        return skipped("a file system without nameless files: strace is not here or may not trace");
    }
    let scratch = Scratch::new("named");
    let whole = bytes(3 * MIB);
    scratch.put("in.raw", &whole);
    let words = ["convert", "-c", "-O", "qcow2", "in.raw", "broken.qcow2"];
    maker().img().folder(scratch.path()).args(words).must();
    let mut broken = fs::read(scratch.path().join("broken.qcow2")).expect("an image");
    let middle = broken.len() * 3 / 4;
    broken[middle..].fill(0xff);
    scratch.put("broken.qcow2", broken);
    let (target, trace) = (scratch.path().join("folder/out.raw"), scratch.path().join("trace"));
    let folder = scratch.folder("folder");
    let strace = |run: Run| {
        // The folder is opened, and then in it what would be a file without a name.
        let words = ["strace", "-f", "-e", "trace=openat", "-e", "inject=openat:error=EOPNOTSUPP:when=2", "-P"];
        run.through(words.iter().map(Path::new).chain([folder.as_path(), Path::new("-o"), trace.as_path()]))
    };
    for (cell, former) in Cell::all().iter().flat_map(|cell| [(cell, false), (cell, true)]) {
        let _ = fs::remove_file(&target);
        if former {
            fs::write(&target, b"what was there before").expect("a former target");
        }
        let convert = |words: &[&str]| {
            let run = program().native(*cell).folder(scratch.path()).args(["convert", "-O", "raw"]).args(words);
            let ran = strace(run.arg(&target)).go();
            let text = fs::read_to_string(&trace).unwrap_or_default();
            assert!(text.contains("O_TMPFILE") && text.contains("INJECTED"), "{text}");
            ran
        };
        let failed = convert(&["-f", "qcow2", "broken.qcow2"]);
        assert_eq!(failed.end, End::Code(1), "{}", failed.err());
        assert!(failed.err().contains("a compressed part is broken"), "{}", failed.err());
        assert_eq!(names(&folder).len(), usize::from(former));
        let done = convert(&["-f", "raw", "in.raw"]);
        assert_eq!(done.end, End::Code(0), "{}", done.err());
        assert!(names(&folder) == ["out.raw"] && fs::read(&target).expect("a copy") == whole);
    }
}

#[test]
fn a_full_disk_leaves_what_was_there_before() {
    let scratch = Scratch::new("full");
    let Some(small) = Small::mount(scratch.path().join("small"), "4m") else {
        return skipped("a full disk: this user cannot mount one");
    };
    let source = scratch.path().join("in.raw");
    fs::write(&source, bytes(8 * MIB)).expect("a source");
    let target = small.path().join("out.raw");
    let convert = |run: Run| run.args(["convert", "-f", "raw", "-O", "raw"]).arg(&source).arg(&target);
    for cell in Cell::all() {
        for former in [None, Some(b"what was there before".as_slice())] {
            former.iter().for_each(|bytes| fs::write(&target, bytes).expect("a former target"));
            for more in [&[][..], &["-t", "none"], &["-o", "preallocation=falloc"], &["-o", "preallocation=full"]] {
                let ran = convert(program().qemu("10.0.2", *cell)).args(more).go();
                assert_eq!(ran.end, End::Code(1), "{more:?} {}", ran.err());
                assert!(
                    ran.err().contains("No space left on device") && ran.err().lines().count() == 1,
                    "{}",
                    ran.err()
                );
                assert_eq!(fs::read(&target).ok().as_deref(), former, "{cell:?} {more:?}");
                assert_eq!(names(small.path()).len(), usize::from(former.is_some()), "{more:?}");
            }
        }
        fs::remove_file(&target).expect("the former target");
    }
}

/// A loop device, for as long as the value lives.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run_quietly("losetup", &["-d", &self.0]);
    }
}

#[test]
fn a_broken_disk_is_told_and_can_be_salvaged() {
    let scratch = Scratch::new("broken");
    let image = scratch.path().join("disk.raw");
    fs::write(&image, bytes(4 * MIB)).expect("a disk");
    let Some(device) = run_quietly("losetup", &["-f", "--show", &image.display().to_string()]).map(Loop) else {
        return skipped("a broken disk: this user has no loop devices");
    };
    // The device goes on beyond the end of its file, and there nothing can be read.
    let file = fs::OpenOptions::new().write(true).open(&image).expect("the disk");
    file.set_len(3 * MIB as u64).expect("a shorter one");
    let _ = run_quietly("blockdev", &["--flushbufs", &device.0]);
    let convert = |run: Run, more: &[&str], target: &str| {
        let run = run.folder(scratch.path()).args(["convert", "-f", "raw", "-O", "raw"]).args(more);
        run.limit(Duration::from_secs(120)).arg(&device.0).arg(target)
    };
    let theirs = convert(maker().img(), &[], "theirs.raw").go();
    assert_eq!(theirs.end, End::Code(1));
    for cell in Cell::all() {
        let ran = convert(program().qemu("10.0.2", *cell), &["-m", "1"], "ours.raw").go();
        assert_eq!(ran.end, End::Code(1), "{}", ran.err());
        assert!(ran.err().starts_with("qemu-img: error while reading at byte "), "{}", ran.err());
        assert!(ran.err().ends_with(": Input/output error\n") && ran.err().lines().count() == 1, "{}", ran.err());
        assert!(!scratch.path().join("ours.raw").exists());
        let ran = convert(program().qemu("10.0.2", *cell), &["--salvage"], "ours.raw").go();
        assert_eq!(ran.end, End::Code(0), "{}", ran.err());
        let (first, all) = (ran.err().lines().next().unwrap_or_default().to_owned(), 4 * MIB);
        assert!(first.starts_with("qemu-img: warning: error while reading offset 3145728: "), "{first}");
        let saved = fs::read(scratch.path().join("ours.raw")).expect("a copy");
        assert!(saved.len() == all && saved[..3 * MIB] == bytes(3 * MIB) && saved[3 * MIB..].iter().all(|b| *b == 0));
        fs::remove_file(scratch.path().join("ours.raw")).expect("the copy");
    }
}

#[test]
fn a_rate_is_kept() {
    let scratch = Scratch::new("rate");
    fs::write(scratch.path().join("in.raw"), bytes(2 * MIB)).expect("a source");
    let started = Instant::now();
    let words = ["convert", "-r", "2M", "-f", "raw", "-O", "raw", "in.raw", "out.raw"];
    program().native(Cell::Process).folder(scratch.path()).args(words).must();
    assert!(started.elapsed() > Duration::from_millis(300), "{:?}", started.elapsed());
    assert!(fs::read(scratch.path().join("out.raw")).expect("a copy") == bytes(2 * MIB));
}

/// What a process is called, and its parent.
fn about(pid: &str) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // What stands in brackets is a name, and may hold anything.
    let (head, rest) = stat.rsplit_once(')')?;
    Some((head.split_once('(')?.1.to_owned(), rest.split_whitespace().nth(1)?.to_owned()))
}

/// Who becomes the parent of those whose own is gone.
fn heir() -> String {
    let orphan = run_quietly("sh", &["-c", "sleep 5 >/dev/null 2>&1 & echo $!"]).expect("an orphan");
    about(&orphan).expect("it sleeps").1
}

/// Processes of cells whose program is gone.
fn orphans(heir: &str) -> Vec<String> {
    let is_orphan = |pid: &String| {
        about(pid).is_some_and(|(name, parent)| matches!(&name[..], "instar" | "instar-worker") && parent == heir)
    };
    names(Path::new("/proc")).into_iter().filter(is_orphan).collect()
}

#[test]
fn whenever_it_is_killed_its_cell_goes_with_it() {
    let scratch = Scratch::new("killed");
    fs::write(scratch.path().join("in.raw"), bytes(MIB)).expect("a disk");
    // One lane, and as many as there can be.
    let lines: [&[&str]; 2] =
        [&["info", "-f", "raw", "in.raw"], &["convert", "-f", "raw", "-O", "qcow2", "in.raw", "out"]];
    for (cell, line) in Cell::all().iter().flat_map(|cell| lines.map(|line| (cell, line))) {
        for turn in 0..800 {
            let held = program().native(*cell).folder(scratch.path()).args(line).hold();
            thread::sleep(Duration::from_micros(turn * 5));
            drop(held);
        }
    }
    let (since, heir) = (Instant::now(), heir());
    let mut left = orphans(&heir);
    while !left.is_empty() && since.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(100));
        let now = orphans(&heir);
        left.retain(|pid| now.contains(pid));
    }
    assert!(left.is_empty(), "{left:?}");
}
