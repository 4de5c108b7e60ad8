//! The program is killed at some moment of a change: what it leaves holds the old or the new bytes everywhere, is sound
//! but for space that is lost, and can be repaired and changed again.

use crate::equal::{copy, setting};
use crate::furniture::{Case, cases};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What images hold: of each disk and snapshot the bytes.
type Held = BTreeMap<String, Vec<u8>>;
type Tried<T> = Result<T, String>;

fn read(folder: &Path, words: &[&str]) -> Tried<Vec<u8>> {
    let ran = maker().img().folder(folder).args(["convert", "-O", "raw"]).args(words).arg("seen.raw").go();
    let bytes = fs::read(folder.join("seen.raw"));
    let _ = fs::remove_file(folder.join("seen.raw"));
    if ran.end == End::Code(0) { bytes.map_err(|e| e.to_string()) } else { Err(format!("  {words:?}: {}", ran.err())) }
}

/// Everything that a guest could find in the images of a folder.
fn held(folder: &Path, case: &Case) -> Tried<Held> {
    let mut all = Held::new();
    for (name, format) in case.images() {
        let ran = maker().img().folder(folder).args(["info", "--output=json", "-f", format, name]).go();
        let told: Value = serde_json::from_slice(&ran.stdout).map_err(|_| format!("  {name}: {}", ran.err()))?;
        all.insert(name.into(), read(folder, &["-f", format, name])?);
        for snapshot in told["snapshots"].as_array().into_iter().flatten() {
            let of = format!("snapshot.name={}", snapshot["name"].as_str().unwrap_or_default());
            all.insert(format!("{name} {of}"), read(folder, &["-f", format, "-l", &of, name])?);
        }
    }
    Ok(all)
}

/// Whether every sector is as it was or as it is to be.
fn between(now: &Held, old: &Held, new: &Held) -> Tried<()> {
    for (name, bytes) in now {
        let sides: Vec<&Vec<u8>> = [old.get(name), new.get(name)].into_iter().flatten().collect();
        if !sides.iter().any(|side| side.len() == bytes.len()) {
            return Err(format!("  {name} has {} bytes", bytes.len()));
        }
        for (number, sector) in bytes.chunks(512).enumerate() {
            let part = number * 512..number * 512 + sector.len();
            if !sides.iter().any(|side| side.get(part.clone()) == Some(sector)) {
                return Err(format!("  sector {number} of {name} is neither what it was nor what it is to be"));
            }
        }
    }
    match old.keys().find(|name| new.contains_key(*name) && !now.contains_key(*name)) {
        Some(name) => Err(format!("  {name} is lost")),
        None => Ok(()),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The end of what was said.
fn brief(ran: &Ran) -> String {
    let said = ran.out() + &ran.err();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(4)..].join("\n  ")
}

/// The formats that the oracle can check.
const CHECKED: &[&str] = &["qcow2", "qed", "vmdk", "vhdx"];

/// What `check` of the oracle says: 0 or 3, if all is well but for lost space.
fn sound(folder: &Path, case: &Case, worst: i32) -> Tried<()> {
    for (name, format) in case.images().iter().filter(|(_, format)| CHECKED.contains(format)) {
        let ran = maker().img().folder(folder).args(["check", "-f", format, name]).go();
        if !matches!(ran.end, End::Code(code) if code == 0 || code == worst) {
            let said = format!("{}{}", ran.out(), ran.err());
            let said: Vec<&str> = said.lines().take(4).collect();
            return Err(format!("  check of {name}: {:?} {}", ran.end, said.join(" | ")));
        }
    }
    Ok(())
}

/// A change that has been carried out once, to the end.
struct Trial<'c> {
    case: &'c Case,
    folder: &'c Path,
    old: Held,
    new: Held,
    names: Vec<String>,
    /// How long it takes in each cell.
    lasts: Vec<Duration>,
    /// The start itself is sound.
    is_sound: bool,
}

impl<'c> Trial<'c> {
    fn change(case: &Case, folder: &Path, cell: Cell) -> Run {
        let native = |cell| program().native(cell).env("INSTAR_UNSAFE_QUIRKS", "1");
        let run = if case.is_native { native(cell) } else { program().quirky("10.0.2", cell) };
        run.folder(folder).args(case.words())
    }

    fn prepare(case: &'c Case, folder: &'c Path, seed: u64) -> Tried<Trial<'c>> {
        let start = folder.join("start");
        fs::create_dir_all(&start).map_err(|e| e.to_string())?;
        case.furnish(&start, seed);
        let scratch = folder.join("whole");
        copy(&start, &scratch);
        let (old, is_sound) = (held(&scratch, case)?, sound(&scratch, case, 3).is_ok());
        fs::remove_dir_all(&scratch).map_err(|e| e.to_string())?;
        let (mut lasts, mut new, mut listed) = (Vec::new(), Held::new(), names(&start));
        for cell in Cell::all() {
            copy(&start, &scratch);
            let run = Trial::change(case, &scratch, *cell);
            let began = Instant::now();
            let ran = run.go();
            lasts.push(began.elapsed());
            if ran.end != End::Code(0) {
                return Err(format!("  {}\n  {:?} {}", run.line(), ran.end, brief(&ran)));
            }
            listed.extend(names(&scratch));
            new = held(&scratch, case)?;
            if is_sound {
                sound(&scratch, case, 0)?;
            }
            fs::remove_dir_all(&scratch).map_err(|e| e.to_string())?;
        }
        listed.sort();
        listed.dedup();
        Ok(Trial { case, folder, old, new, names: listed, lasts, is_sound })
    }

    /// Kills it once, and counts whether it was still at work.
    fn kill(&mut self, turn: u64, dice: &mut Dice, busy: &AtomicUsize) -> Tried<()> {
        let place = self.folder.join(format!("kill{turn}"));
        copy(&self.folder.join("start"), &place);
        // A virtual machine takes its time where this is one itself.
        let which = if turn % 5 == 4 { self.lasts.len() - 1 } else { 0 };
        let cell = Cell::all()[which];
        let run = Trial::change(self.case, &place, cell);
        let lasts = self.lasts[which];
        let after = lasts.mul_f64(dice.below(1050) as f64 / 1000.0);
        let mut held = run.hold();
        thread::sleep(after);
        let was_busy = matches!(held.child.try_wait(), Ok(None));
        busy.fetch_add(usize::from(was_busy), Ordering::Relaxed);
        // How long it takes depends on what else the machine does.
        self.lasts[which] = if was_busy { lasts.mul_f64(1.1) } else { after.mul_f64(0.9).max(lasts / 3) };
        let _ = held.child.kill();
        let _ = held.child.wait();
        self.let_go(&place);
        let told = |why: String| format!("  {}, after {after:?} of {lasts:?}\n{why}", cell.name());
        // Every fourth one is carried out again.
        self.judge(&place, cell)
            .and_then(|()| if turn.is_multiple_of(4) { self.again(&place, cell) } else { Ok(()) })
            .map_err(told)?;
        let _ = fs::remove_dir_all(&place);
        Ok(())
    }

    /// Waits for what dies with the program: a worker that is not one yet has its files, too, until it gets to run.
    fn let_go(&self, place: &Path) {
        let since = Instant::now();
        let ask = |name: &str| maker().img().folder(place).args(["info", name]).go();
        let is_held = |(name, _): (&str, &str)| ask(name).err().contains(" lock");
        while since.elapsed() < Duration::from_secs(5) && self.case.images().into_iter().any(is_held) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What `check` may say of a repaired image.
    fn worst(&self) -> i32 {
        if self.case.format == "qed" { 3 } else { 0 }
    }

    fn judge(&self, place: &Path, cell: Cell) -> Tried<()> {
        let litter: Vec<String> = names(place).into_iter().filter(|name| !self.names.contains(name)).collect();
        if !litter.is_empty() {
            return Err(format!("  {litter:?} are left over"));
        }
        // A log is not replayed by those that only read.
        let replays = self.case.format == "vhdx";
        let mut was = None;
        if !replays {
            let now = held(place, self.case)?;
            between(&now, &self.old, &self.new)?;
            if self.is_sound {
                sound(place, self.case, 3)?;
            }
            was = Some(now);
        }
        for (name, format) in self.case.images().iter().filter(|(_, format)| CHECKED.contains(format)) {
            let run = program()
                .native(cell)
                .env("INSTAR_UNSAFE_QUIRKS", "1")
                .folder(place)
                .args(["check", "-r", "all", "-f", format, name]);
            let ran = run.go();
            // Others have nothing that says which space is free, or no repair at all.
            let cannot = *format == "vmdk" || (*format == "qed" && ran.end == End::Code(3));
            if ran.end != End::Code(0) && !cannot {
                return Err(format!("  {}\n  {:?} {}", run.line(), ran.end, brief(&ran)));
            }
        }
        sound(place, self.case, self.worst()).map_err(|why| format!("  repaired:\n{why}"))?;
        let now = held(place, self.case)?;
        between(&now, &self.old, &self.new).map_err(|why| format!("  repaired:\n{why}"))?;
        let is_same = was.is_none_or(|was| was == now);
        if is_same { Ok(()) } else { Err("  the repair has changed what is read".into()) }
    }

    fn again(&self, place: &Path, cell: Cell) -> Tried<()> {
        let run = Trial::change(self.case, place, cell);
        let ran = run.go();
        // What is done cannot always be done once more.
        let is_done = [
            "not found",
            "Can't find",
            "already exists",
            "No such",
            "does not exist",
            "Bitmap",
            "only be used for growing",
            "would become shorter",
        ];
        let is_done = is_done.iter().any(|words| ran.err().contains(words));
        if ran.end != End::Code(0) && !is_done {
            return Err(format!("  once more: {:?} {}", ran.end, brief(&ran)));
        }
        let now = held(place, self.case)?;
        sound(place, self.case, self.worst()).map_err(|why| format!("  once more:\n{why}"))?;
        let is_new = |(name, bytes): (&String, &Vec<u8>)| now.get(name) == Some(bytes) || !now.contains_key(name);
        if self.new.iter().all(is_new) { Ok(()) } else { Err("  once more: it is not as it is to be".into()) }
    }
}

#[test]
fn a_sudden_death_leaves_the_old_or_the_new() {
    let scratch = Scratch::quick("killed");
    let report = Report::new("sequences killed");
    let (seed, count) = (setting("INSTAR_SEED", 1), setting("INSTAR_KILLS", 500));
    // Other seeds have other quarters of them.
    let picked = |(number, case): (usize, Case)| ((number as u64 + seed).is_multiple_of(4)).then_some(case);
    let cases: Vec<Case> = cases().into_iter().enumerate().filter_map(picked).collect();
    let share = count.div_ceil(cases.len() as u64);
    let busy = AtomicUsize::new(0);
    each(&cases, |number, case| {
        let folder = scratch.folder(&format!("case{number}"));
        let title = |turn: u64, why: &str| format!("{}, seed {seed}, {turn}\n{why}", case.about());
        match Trial::prepare(case, &folder, seed + number as u64) {
            Err(why) => report.fault(title(0, &why)),
            Ok(mut trial) => {
                for turn in 0..share {
                    let mut dice = Dice::new(seed * 1000 + number as u64 * 31 + turn);
                    report.tried();
                    if let Err(why) = trial.kill(turn, &mut dice, &busy) {
                        report.fault(title(turn, &why));
                    }
                }
            }
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = fs::remove_dir_all(folder);
        }
    });
    let busy = busy.into_inner();
    eprintln!("{} kinds, {busy} of {} were killed at work", cases.len(), report.count());
    let count = report.count();
    report.end();
    assert!(busy * 20 > count, "nearly all had ended before");
}
