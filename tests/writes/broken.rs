//! What goes wrong on the way: the disk is full, it fails, the writer dies, or may not write. What the user had is there
//! afterwards, and nothing else.

use crate::formats::{Format, format};
use crate::judge::{accepted, cell, content, count, ours, put, seed};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::{Scratch, Small, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// What can be seen of a folder: of each name, the mode, and the bytes.
pub type State = BTreeMap<String, (u32, Vec<u8>)>;

/// Of a folder, now.
pub fn state(folder: &Path) -> State {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let tell = |entry: fs::DirEntry| {
        let about = entry.metadata().expect("a file");
        let bytes = if about.is_file() { fs::read(entry.path()).expect("its bytes") } else { Vec::new() };
        (entry.file_name().to_string_lossy().into_owned(), (about.mode(), bytes))
    };
    entries.map(tell).collect()
}

/// What is different now.
pub fn changed(before: &State, now: &State) -> Option<String> {
    let names: Vec<&String> =
        before.keys().chain(now.keys()).filter(|name| before.get(*name) != now.get(*name)).collect();
    (!names.is_empty()).then(|| format!("  {names:?} are not what they were"))
}

/// A failure that is one: it is told in one line, and has changed nothing.
pub fn failed_well(ran: &Ran, before: &State, now: &State) -> Result<(), String> {
    let said = ran.err();
    // The real program says this in two.
    let is_twofold = said.starts_with("qemu-img: ") && said.contains("Is another process using the image");
    let lines = if is_twofold { 2 } else { 1 };
    if ran.end != End::Code(1) || said.lines().count() != lines || !ran.stdout.is_empty() {
        return Err(format!("  {:?}, {}{said}", ran.end, ran.out()));
    }
    changed(before, now).map_or(Ok(()), |names| Err(format!("{names}, after {said}")))
}

/// A target, with options that lead other ways through the program.
struct Way {
    format: &'static Format,
    words: &'static [&'static str],
}

const WAYS: &[(&str, &[&str])] = &[
    ("raw", &[]),
    ("raw", &["-o", "preallocation=full"]),
    ("qcow2", &[]),
    ("qcow2", &["-c"]),
    ("qcow2", &["-o", "cluster_size=512"]),
    ("qcow2", &["-o", "preallocation=metadata"]),
    ("qcow2", &["-o", "preallocation=full"]),
    ("qcow2", &["-o", "data_file=out.data"]),
    ("qcow", &[]),
    ("qcow", &["-c"]),
    ("qed", &[]),
    ("vmdk", &[]),
    ("vmdk", &["-c", "-o", "subformat=streamOptimized"]),
    ("vmdk", &["-o", "subformat=monolithicFlat"]),
    ("vmdk", &["-o", "subformat=twoGbMaxExtentSparse"]),
    ("vdi", &[]),
    ("vpc", &["-o", "force_size=on"]),
    ("vpc", &["-o", "force_size=on,subformat=fixed"]),
    ("vhdx", &["-o", "block_size=1M,log_size=1M"]),
    ("parallels", &["-o", "cluster_size=64k"]),
    ("luks", &["--object", "secret,id=sec0,data=123456", "-o", "key-secret=sec0,iter-time=10"]),
];

fn ways() -> Vec<Way> {
    WAYS.iter().map(|(name, words)| Way { format: format(name), words }).collect()
}

impl Way {
    /// The copy of `source` into `out`, there or as a name that is new.
    fn run(&self, run: Run, source: &Path, place: &Path) -> Run {
        let run = run.folder(place).args(["convert", "-f", "raw", "-O", self.format.name]);
        run.args(self.words).arg(source).arg("out")
    }

    fn about(&self) -> String {
        format!("{} {:?}", self.format.name, self.words)
    }

    /// The image is in several files.
    fn has_parts(&self) -> bool {
        self.words.iter().any(|word| ["data_file", "Flat", "twoGb"].iter().any(|part| word.contains(part)))
    }
}

/// What stands in the folder of the target: an image, the files that new parts would replace, and another.
fn furnish(place: &Path, dice: &mut Dice) {
    fs::write(place.join("mine"), b"not to be touched").expect("a file");
    if dice.once_in(3) {
        return;
    }
    fs::write(place.join("out"), vec![0x5a; 3000]).expect("a former target");
    fs::set_permissions(place.join("out"), fs::Permissions::from_mode(0o640)).expect("a mode");
    if dice.once_in(2) {
        for name in ["out.data", "out-flat", "out-s001"] {
            fs::write(place.join(name), name).expect("a former part");
        }
    }
}

/// What ended well has to be good, whatever it went through.
fn judge(way: &Way, ran: &Ran, before: &State, place: &Path, bytes: &[u8], turn: u64) -> Result<(), String> {
    if ran.end != End::Code(0) {
        return failed_well(ran, before, &state(place));
    }
    if !ran.stderr.is_empty() {
        return Err(format!("  {}", ran.err()));
    }
    // Elsewhere there is room to read it.
    let scratch = Scratch::new("read");
    for name in state(place).keys().filter(|name| !name.starts_with("fill")) {
        fs::copy(place.join(name), scratch.path().join(name)).expect("a copy");
    }
    accepted(scratch.path(), way.format, "out", bytes, turn)
}

/// Removes all files, and waits until their space is free: children of other threads may have them for a moment.
fn emptied(place: &Path) {
    for entry in fs::read_dir(place).expect("a folder").flatten() {
        fs::remove_file(entry.path()).expect("a file of before");
    }
    for _ in 0..1000 {
        let about = rustix::fs::statvfs(place).expect("a file system");
        if about.f_bavail == about.f_blocks {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{} is not empty", place.display());
}

#[test]
fn a_full_disk_leaves_the_users_files() {
    let scratch = Scratch::new("writes-full");
    let report = Report::new("writes full");
    let bytes = content(&mut Dice::new(seed()), 1 << 20);
    put(&scratch.path().join("in.raw"), &bytes);
    let source = scratch.path().join("in.raw");
    let seen = [0, 1].map(std::sync::atomic::AtomicUsize::new);
    each(&ways(), |number, way| {
        let Some(small) = Small::mount(scratch.path().join(format!("small{number}")), "9m") else {
            return skipped("full disks: this user cannot mount one");
        };
        for round in 0..count(12) {
            let turn = seed() + round * 100 + number as u64;
            let mut dice = Dice::new(turn);
            let place = small.path();
            emptied(place);
            furnish(place, &mut dice);
            let about = rustix::fs::statvfs(place).expect("a file system");
            let pages = about.f_bavail * about.f_bsize / 4096;
            let free = [dice.below(4), dice.below(40), dice.below(300), dice.below(2200)][dice.below(4) as usize];
            fs::write(place.join("fill"), vec![1; (pages.saturating_sub(free) * 4096) as usize]).expect("filling");
            let before = state(place);
            let run = way.run(ours(turn), &source, place);
            let ran = run.go();
            report.tried();
            let well = usize::from(ran.end == End::Code(0));
            seen[well].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if let Err(why) = judge(way, &ran, &before, place, &bytes, turn) {
                report.fault(format!("{}, {free} pages free, {turn}\n  {}\n{why}", way.about(), run.line()));
            } else if well == 0 && !ran.err().contains("No space left on device") {
                report.fault(format!("{}, {free} pages free, {turn}\n  {}\n  {}", way.about(), run.line(), ran.err()));
            }
        }
    });
    let seen = seen.map(|count| count.into_inner());
    eprintln!("{} failed, {} did not", seen[0], seen[1]);
    assert!(report.count() == 0 || seen.iter().all(|count| *count > 0), "{seen:?}");
    report.end();
}

/// Calls that write, and how they fail.
const CALLS: &[&str] = &[
    "pwrite64,pwritev2:error=EIO",
    "pwrite64,pwritev2:error=ENOSPC",
    "pwrite64,pwritev2:error=EDQUOT",
    "fallocate:error=EIO",
    "fallocate:error=EOPNOTSUPP",
    "ftruncate:error=EIO",
    "fdatasync:error=EIO",
    "linkat:error=EIO",
    "renameat,renameat2:error=EIO",
    "copy_file_range:error=EIO",
];

#[test]
fn a_write_that_fails_leaves_the_users_files() {
    if Run::new("sh").args(["-c", "strace -qq true"]).go().end != End::Code(0) {
        return skipped("writes that fail: strace is not here or may not trace");
    }
    hindered("writes failing", 0, (1 << 20, 150), &|dice, run| {
        let call = dice.one(CALLS);
        // One of them, or all from there on.
        let when = format!("{}{}", 1 + dice.below(6), dice.one(&["", "+"]));
        let (calls, _) = call.split_once(':').expect("a call");
        let (trace, inject) = (format!("trace={calls}"), format!("inject={call}:when={when}"));
        let run = run.through(["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
        run.called("qemu-img")
    });
}

#[test]
fn a_limit_of_length_leaves_the_users_files() {
    hindered("writes limited", 0x77, (3 << 20, 60), &|dice, run| {
        let most = [4096, 1 << 16, 1 << 20, 4 << 20][dice.below(4) as usize];
        let limit = format!("--fsize={}", dice.below(most));
        run.through(["prlimit", &limit, "--"]).in_shell("trap '' XFSZ; exec \"$@\"")
    });
}

/// So many ways to write a disk of that length, each with something in its way.
fn hindered(title: &'static str, salt: u64, (len, turns): (u64, u64), hinder: &(dyn Fn(&mut Dice, Run) -> Run + Sync)) {
    let scratch = Scratch::new(&title.replace(' ', "-"));
    let report = Report::new(title);
    let bytes = content(&mut Dice::new(seed()), len);
    put(&scratch.path().join("in.raw"), &bytes);
    let source = scratch.path().join("in.raw");
    let ways = ways();
    let turns: Vec<u64> = (0..count(turns)).map(|n| seed() + n).collect();
    each(&turns, |_, turn| {
        let mut dice = Dice::new(turn ^ salt);
        let way = &ways[dice.below(ways.len() as u64) as usize];
        let place = scratch.folder(&format!("place{turn}"));
        furnish(&place, &mut dice);
        let before = state(&place);
        let run = hinder(&mut dice, way.run(ours(*turn), &source, &place));
        let ran = run.go();
        report.tried();
        if let Err(why) = judge(way, &ran, &before, &place, &bytes, *turn) {
            report.fault(format!("{}, {turn}\n  {}\n{why}", way.about(), run.line()));
        }
        let _ = fs::remove_dir_all(place);
    });
    report.end();
}

#[test]
fn a_sudden_death_leaves_the_users_files() {
    let scratch = Scratch::new("writes-killed");
    let report = Report::new("writes killed");
    let bytes = content(&mut Dice::new(seed()), 12 << 20);
    put(&scratch.path().join("in.raw"), &bytes);
    let source = scratch.path().join("in.raw");
    let ways = ways();
    let turns: Vec<u64> = (0..count(80)).map(|n| seed() + n).collect();
    each(&turns, |_, turn| {
        let mut dice = Dice::new(turn ^ 0x99);
        let way = &ways[(turn % ways.len() as u64) as usize];
        let place = scratch.folder(&format!("place{turn}"));
        furnish(&place, &mut dice);
        let before = state(&place);
        let run = way.run(ours(*turn), &source, &place);
        let mut held = run.hold();
        let longest = 1 << (8 + dice.below(11));
        thread::sleep(Duration::from_micros(dice.below(longest)));
        let _ = held.child.kill();
        let _ = held.child.wait();
        report.tried();
        let after = state(&place);
        // Two names do not appear at one moment: parts of an image that is not there yet are nobody's loss.
        let is_lost = before.iter().any(|(name, was)| after.get(name) != Some(was));
        let is_image = after.contains_key("out") || after.keys().any(|name| name.starts_with('.'));
        if is_lost || (is_image && changed(&before, &after).is_some()) {
            // Then all of it has appeared.
            let others = |state: State| state.keys().filter(|name| name.starts_with('.')).cloned().collect::<Vec<_>>();
            let litter = others(state(&place));
            let whole = accepted(&place, way.format, "out", &bytes, *turn);
            let mine = fs::read(place.join("mine")).ok().as_deref() == Some(b"not to be touched");
            // Between the first name and the last one, what stood there has another name.
            let is_kept = mine && before.values().all(|was| after.values().any(|now| now.1 == was.1));
            // A single file gets its name in two steps if something stands there; it is whole before the first.
            let is_whole = |name: &String| accepted(&place, way.format, name, &bytes, *turn).is_ok();
            let is_ready = way.has_parts() || matches!(&litter[..], [one] if is_whole(one));
            let is_between = is_kept && before.contains_key("out") && is_ready;
            let whole = whole.and(if litter.is_empty() && mine { Ok(()) } else { Err(format!("  {litter:?}")) });
            if let Err(why) = whole.or_else(|why| if is_between { Ok(()) } else { Err(why) }) {
                report.fault(format!("{}, {turn}\n  {}\n{why}", way.about(), run.line()));
            }
        }
        let _ = fs::remove_dir_all(place);
    });
    report.end();
}

#[test]
fn a_folder_that_may_not_be_written_stays_as_it_is() {
    if fs::metadata("/proc/self").is_ok_and(|about| about.uid() != 0) {
        return skipped("folders that may not be written: only root can become another");
    }
    let scratch = Scratch::new("writes-forbidden");
    let report = Report::new("writes forbidden");
    put(&scratch.path().join("in.raw"), &content(&mut Dice::new(seed()), 1 << 20));
    let source = scratch.path().join("in.raw");
    for (number, way) in ways().iter().enumerate() {
        let place = scratch.folder(&format!("place{number}"));
        furnish(&place, &mut Dice::new(number as u64));
        let before = state(&place);
        let run = way.run(program().quirky(&maker().version, Cell::Process), &source, &place).as_nobody();
        let ran = run.go();
        report.tried();
        let judged = failed_well(&ran, &before, &state(&place));
        let told = if ran.err().contains("Permission denied") { Ok(()) } else { Err(ran.err()) };
        if let Err(why) = judged.and(told) {
            report.fault(format!("{}\n  {}\n{why}", way.about(), run.line()));
        }
    }
    report.end();
}

#[test]
fn what_cannot_be_read_to_the_end_leaves_the_users_files() {
    let scratch = Scratch::new("writes-unread");
    let report = Report::new("writes unread");
    let bytes = content(&mut Dice::new(seed()), 3 << 20);
    put(&scratch.path().join("in.raw"), &bytes);
    let ways = ways();
    let turns: Vec<u64> = (0..ways.len() as u64).collect();
    each(&turns, |_, turn| {
        let mut dice = Dice::new(seed() + turn);
        let way = &ways[*turn as usize];
        let place = scratch.folder(&format!("place{turn}"));
        furnish(&place, &mut dice);
        let before = state(&place);
        let sector = dice.below(6144);
        let image = scratch.path().join("in.raw").display().to_string();
        let broken = format!(
            r#"json:{{"driver":"raw","file":{{"driver":"blkdebug","inject-error":[{{"event":"none","iotype":"read","sector":{sector},"errno":5}}],"image":{{"driver":"file","filename":"{image}"}}}}}}"#
        );
        let run = program().native(cell(*turn)).env("INSTAR_UNSAFE_QUIRKS", "1");
        let run = way.run(run, Path::new(&broken), &place);
        let ran = run.go();
        report.tried();
        // What lies in a hole is never read.
        let judged = judge(way, &ran, &before, &place, &bytes, *turn);
        if let Err(why) = judged {
            report.fault(format!("{}\n  {}\n{why}", way.about(), run.line()));
        }
    });
    report.end();
}
