//! What crashes and failures leave of files that are being changed.
//!
//! A change is made once on a drive that remembers everything. Then every state is made that a crash could have left:
//! what was flushed is there, of what came after it any subset is, cut at sectors. What is too much to try is sampled,
//! the same way each time. Then every call fails in its turn.

mod files;
mod record;
mod spoil;
#[cfg(test)]
mod tests;

pub use files::MemFiles;
pub use record::{Done, Recorder, SECTOR, Trouble};
pub use spoil::{Spoil, Spoiled};

use crate::random::Dice;
use instar_image::{Drive, Error, FileId, Io};
use record::{Deed, Event};
use std::collections::BTreeSet;
use std::fmt::{Display, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many deeds are tried in every combination, unless [`VARIABLE`] says another number.
const ALL: usize = 10;
/// Environment variable: how many deeds are tried in every combination.
const VARIABLE: &str = "INSTAR_CRASH_BITS";
/// Combinations that are drawn where there are too many.
const DRAWN: u64 = 256;
/// Places at which a long row of deeds is cut, or one of them left out.
const CUTS: usize = 256;
/// Calls of which each has its turn to fail.
const FAILURES: usize = 300;

/// How files came to be as they are.
#[derive(Clone)]
pub enum How {
    /// Everything was done, and flushed or not: as those see it who open the files afterwards.
    Whole,
    /// Everything was done, and then came a crash.
    Lost,
    /// A crash came in between.
    Crash(Crash),
    /// Calls failed, and the change ended so.
    Failure(Trouble, Result<(), Error>),
}

/// A crash.
#[derive(Clone)]
pub struct Crash {
    /// How many flushes had been done.
    pub flushes: usize,
    /// What has reached the disk of all that was done after that and not flushed.
    pub there: Vec<Done>,
    /// What has not.
    pub missing: Vec<Done>,
}

impl How {
    /// The change was answered as made, and must be there.
    pub fn is_over(&self) -> bool {
        matches!(self, How::Whole | How::Lost | How::Failure(_, Ok(())))
    }
}

impl Display for How {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            How::Whole => write!(f, "all of it was done"),
            How::Lost => write!(f, "all of it was done, and only what was flushed is there"),
            How::Failure(trouble, end) => write!(f, "calls failed: {trouble:?}, and it ended with {end:?}"),
            How::Crash(Crash { flushes, there, missing }) => {
                write!(f, "a crash after {flushes} flushes")?;
                for (title, deeds) in [("there", there), ("missing", missing)] {
                    write!(f, "\n  {title}: {} deeds", deeds.len())?;
                    deeds.iter().take(40).try_for_each(|deed| write!(f, "\n    {deed}"))?;
                }
                Ok(())
            }
        }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// States that a crash could have left.
    pub states: usize,
    /// Failures.
    pub failures: usize,
    /// Times between flushes in which something was done.
    pub epochs: usize,
}

/// A state that should not be.
pub struct Bad {
    /// How it came about.
    pub how: String,
    /// What is wrong with it.
    pub why: String,
    /// The files.
    pub files: MemFiles,
}

impl std::fmt::Debug for Bad {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nafter {}", self.why, self.how)
    }
}

/// Makes the change `run` to files that are like `start`, and has `judge` look at everything that can become of them.
///
/// It judges by an error, or by panicking. The first state that it finds bad is the answer.
pub fn sweep(
    start: &MemFiles,
    run: impl Fn(&dyn Drive) -> Result<(), Error>,
    judge: impl Fn(&MemFiles, &How) -> Result<(), String>,
) -> Result<Tried, Bad> {
    let recorder = Recorder::new(start, Trouble::Never);
    let ended = run(&recorder);
    let (whole, events, calls) = recorder.end();
    let mut sweep = Sweep { judge: &judge, tried: Tried::default(), dice: Dice::new(events.len() as u64) };
    if let Err(error) = ended {
        let why = format!("the change itself fails: {error:?}");
        return Err(Bad { how: How::Whole.to_string(), why, files: whole });
    }
    sweep.look(&whole, &How::Whole)?;
    sweep.crashes(start, &events)?;
    sweep.failures(start, &run, calls)?;
    Ok(sweep.tried)
}

struct Sweep<'j> {
    judge: &'j dyn Fn(&MemFiles, &How) -> Result<(), String>,
    tried: Tried,
    dice: Dice,
}

impl Sweep<'_> {
    fn look(&self, files: &MemFiles, how: &How) -> Result<(), Bad> {
        let judged = catch_unwind(AssertUnwindSafe(|| (self.judge)(files, how)));
        let why = match judged {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned();
                words.or_else(|| panic.downcast_ref::<&str>().map(|w| (*w).to_owned())).unwrap_or_default()
            }
        };
        Err(Bad { how: how.to_string(), why, files: files.clone() })
    }

    /// Goes through what happened: wherever a file is flushed, and at the end, all is tried that is not durable yet.
    fn crashes(&mut self, start: &MemFiles, events: &[Event]) -> Result<(), Bad> {
        let mut durable = start.clone();
        let mut open: Vec<Done> = Vec::new();
        let (mut flushes, mut is_new) = (0, false);
        for event in events {
            match event {
                Event::Done(done) => {
                    // What was made on the way is there, empty.
                    while durable.count() <= done.file.0 as usize {
                        durable.make(format!("part {}", durable.count()).as_bytes());
                    }
                    if !is_idle(&durable, &open, done) {
                        add(&mut open, done);
                        is_new = true;
                    }
                }
                Event::Flushed(file) => {
                    if std::mem::take(&mut is_new) {
                        self.epoch(&mut durable, &open, flushes)?;
                    }
                    settle(&mut durable, &mut open, *file);
                    flushes += 1;
                }
            }
        }
        if is_new {
            self.epoch(&mut durable, &open, flushes)?;
        }
        self.look(&durable, &How::Lost)
    }

    /// Everything that a crash may leave of these deeds.
    fn epoch(&mut self, durable: &mut MemFiles, open: &[Done], flushes: usize) -> Result<(), Bad> {
        self.tried.epochs += 1;
        durable.freeze();
        let mut all = Subsets::default();
        let bits = std::env::var(VARIABLE).ok().and_then(|bits| bits.parse().ok()).unwrap_or(ALL);
        let calls: BTreeSet<usize> = open.iter().map(|done| done.call).collect();
        let calls: Vec<usize> = calls.into_iter().collect();
        if open.len() <= bits {
            all.every(open.len(), open.len(), |n| n);
        } else {
            if calls.len() <= bits {
                let number = |n: usize| calls.binary_search(&open[n].call).expect("a call");
                all.every(calls.len(), open.len(), number);
            } else {
                all.some(calls.len(), open.len(), |n| calls.binary_search(&open[n].call).expect("a call"));
            }
            all.some(open.len(), open.len(), |n| n);
            for _ in 0..DRAWN {
                // Few are missing, few are there, or half of them.
                let odds = 2 + self.dice.below(6);
                let turned = self.dice.once_in(2);
                let set = (0..open.len()).map(|_| self.dice.once_in(odds) != turned).collect();
                all.sets.insert(set);
            }
        }
        for set in all.sets {
            let mut files = durable.clone();
            let kept = open.iter().zip(&set).filter(|(_, kept)| **kept);
            kept.for_each(|(done, _)| done.again(&mut files));
            self.tried.states += 1;
            let part = |wanted: bool| {
                let chosen = open.iter().zip(&set).filter(|(_, kept)| **kept == wanted);
                chosen.map(|(done, _)| done.clone()).collect()
            };
            let crash = || Crash { flushes, there: part(true), missing: part(false) };
            self.look_at_crash(&files, crash)?;
        }
        Ok(())
    }

    /// The list of what is there is long: it is only made to be printed.
    fn look_at_crash(&self, files: &MemFiles, crash: impl Fn() -> Crash) -> Result<(), Bad> {
        let short = How::Crash(Crash { flushes: 0, there: Vec::new(), missing: Vec::new() });
        self.look(files, &short).map_err(|bad| Bad { how: How::Crash(crash()).to_string(), ..bad })
    }

    fn failures(
        &mut self,
        start: &MemFiles,
        run: &dyn Fn(&dyn Drive) -> Result<(), Error>,
        calls: usize,
    ) -> Result<(), Bad> {
        let step = calls.div_ceil(FAILURES).max(1);
        for number in (0..calls).step_by(step) {
            for trouble in [Trouble::Once(number), Trouble::From(number)] {
                let recorder = Recorder::new(start, trouble);
                let ended = run(&recorder);
                self.tried.failures += 1;
                let (files, events, _) = recorder.end();
                let how = How::Failure(trouble, ended);
                self.look(&files, &how)?;
                // And then a crash.
                let mut durable = start.clone();
                let mut open = Vec::new();
                for event in &events {
                    match event {
                        Event::Done(done) if (done.file.0 as usize) < durable.count() => add(&mut open, done),
                        Event::Done(_) => {}
                        Event::Flushed(file) => settle(&mut durable, &mut open, *file),
                    }
                }
                self.look(&durable, &how)?;
            }
        }
        Ok(())
    }
}

/// Whether the deed changes nothing, whatever else is done.
fn is_idle(durable: &MemFiles, open: &[Done], done: &Done) -> bool {
    let Deed::Bytes(at, bytes) = &done.deed else { return false };
    let mut was = vec![0; bytes.len()];
    durable.peek(done.file, *at, &mut was);
    let touches = |other: &Done| match &other.deed {
        Deed::Bytes(there, _) => *there / SECTOR == at / SECTOR,
        Deed::Length(_) => true,
        Deed::Grow(_) => false,
    };
    let is_inside = at + bytes.len() as u64 <= durable.len(done.file);
    is_inside && was == **bytes && !open.iter().any(|other| other.file == done.file && touches(other))
}

/// One deed more; growth that goes on is one.
fn add(open: &mut Vec<Done>, done: &Done) {
    if let Deed::Grow(len) = done.deed {
        let of_file = |other: &&mut Done| other.file == done.file;
        let last = open.iter_mut().filter(of_file).rfind(|other| !matches!(other.deed, Deed::Bytes(..)));
        if let Some(Done { deed: Deed::Grow(before), .. }) = last {
            *before = len.max(*before);
            return;
        }
    }
    open.push(done.clone());
}

/// What was done to this file is durable now.
fn settle(durable: &mut MemFiles, open: &mut Vec<Done>, file: FileId) {
    open.retain(|done| {
        if done.file == file {
            done.again(durable);
        }
        done.file != file
    });
}

/// Sets of deeds that are tried, each once.
#[derive(Default)]
struct Subsets {
    sets: BTreeSet<Vec<bool>>,
}

impl Subsets {
    /// All of `groups` groups of deeds, which belong together.
    fn every(&mut self, groups: usize, len: usize, group: impl Fn(usize) -> usize) {
        for mask in 0..1u64 << groups {
            self.sets.insert((0..len).map(|n| mask >> group(n) & 1 == 1).collect());
        }
    }

    /// The first groups, each group alone, all but one.
    fn some(&mut self, groups: usize, len: usize, group: impl Fn(usize) -> usize) {
        let step = (groups / CUTS).max(1);
        for cut in (0..=groups).step_by(step).chain([groups.saturating_sub(1), groups]) {
            let mut keep = |kept: &dyn Fn(usize) -> bool| self.sets.insert((0..len).map(|n| kept(group(n))).collect());
            keep(&|n| n < cut);
            keep(&|n| n >= cut);
            keep(&|n| n == cut);
            keep(&|n| n != cut);
        }
    }
}
