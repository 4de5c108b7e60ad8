//! Sequences of changes by us and by the real program, on a copy of the same images each.

use crate::deliberate::reason;
use crate::look::{Seen, look};
use crate::start::Scene;
use crate::step::{Facts, Step};
use instar_testkit::images::each;
use instar_testkit::oracle::{Oracle, maker, newest};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::{Report, difference};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What was said, without what depends on places in a file, on time and on chance.
fn normal(ran: &Ran, stream: &[u8]) -> Vec<u8> {
    if matches!(ran.end, End::Signal(_)) {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(stream);
    let is_timed = |line: &str| line.contains(" ops; ") && line.contains("/sec");
    let is_placed = |line: &str| {
        ["Image end offset", "% allocated", "clusters = ", "epairing ", "Leaked cluster ", "ERROR cluster "]
            .iter()
            .any(|of| line.contains(of))
    };
    let kept = text.split_inclusive('\n').filter(|line| !is_timed(line) && !is_placed(line));
    let kept: String = kept.collect();
    // Nodes are numbered by chance, and clusters lie where there is space.
    let patterns = [
        ("#block[0-9]+", "#block"),
        ("Cluster at offset .* has a refcount of [0-9]+", "Some cluster"),
        ("[0-9]+ leaked clusters", "some leaked clusters"),
    ];
    let settle = |text: String, (pattern, name): (&str, &str)| {
        regex_lite::Regex::new(pattern).expect("a pattern").replace_all(&text, name).into_owned()
    };
    patterns.into_iter().fold(kept, settle).into_bytes()
}

/// How long the real program may take for a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// One sequence.
struct Course<'r> {
    report: &'r Report,
    steps: &'r AtomicUsize,
    seed: u64,
    oracle: &'static Oracle,
    scene: Scene,
    /// Ours, and that of the real program.
    folders: [PathBuf; 2],
    story: Vec<String>,
}

impl Course<'_> {
    fn looks(&self, deep: bool) -> [Seen; 2] {
        [0, 1].map(|side: usize| look(self.oracle, &self.folders[side], &self.scene, deep))
    }

    /// Tells of a difference; whether it may be passed over.
    fn fault(&self, step: &Step, what: &str, differs: &str) -> bool {
        if let Some(reason) = reason(step.kind, &step.line(), differs) {
            self.report.excuse(reason);
            return true;
        }
        let oracle = &self.oracle.version;
        let made: String = self.scene.story.iter().map(|line| format!("\n      {line}")).collect();
        let steps: String = self.story.iter().map(|line| format!("\n      {line}")).collect();
        let title = format!("{} {what}, seed {}, {oracle}, {}", step.kind, self.seed, self.scene.format);
        self.report.fault(format!("{title}\n    made by{made}\n    then{steps}\n{differs}"));
        false
    }

    /// What a difference may come from.
    fn past(&self) -> String {
        let before = &self.story[..self.story.len().saturating_sub(1)];
        let had = |what: &str| before.iter().any(|step| step.contains(what));
        let notes = [
            (self.scene.is_sealed, " of an encrypted disk"),
            (had("sigraise"), " after a sudden death"),
            (had("(Code(1), "), " after a refusal"),
        ];
        notes.into_iter().filter(|(is_so, _)| *is_so).map(|(_, note)| note).collect()
    }

    /// A repair that only we can do: the real program writes a header without snapshots when it has read bitmaps for one.
    fn alone(&mut self, step: &Step, img: Run, before: &Seen) -> Option<Seen> {
        let ran = step.run(&self.scene, img, self.oracle.io()).folder(&self.folders[0]).go();
        self.story.push(format!("{} ({:?}, by us alone)", step.line(), ran.end));
        self.steps.fetch_add(1, Ordering::Relaxed);
        let seen = look(self.oracle, &self.folders[0], &self.scene, true);
        let mut differs = seen.differs(before).map_or(String::new(), |(_, differs)| differs);
        if ran.end != End::Code(0) {
            differs += &format!("  {:?}: {}{}", ran.end, ran.out(), ran.err());
        }
        if differs.is_empty() {
            return Some(seen);
        }
        self.fault(step, "alone", &differs);
        None
    }

    /// One change on both sides; `None` when nothing more can be learnt.
    fn step(&mut self, dice: &mut Dice, before: &Seen, turn: u64) -> Option<Seen> {
        let facts = Facts::of(&before.told, &self.scene)?;
        let step = Step::drawn(dice, &self.scene, &facts);
        // A virtual machine takes its time where this is one itself.
        let cell = if turn % 5 == 4 { Cell::all().last() } else { Cell::all().first() };
        let cell = *cell.expect("a cell");
        let [ours, theirs] = [program().quirky(&self.oracle.version, cell), self.oracle.img()];
        if step.kind == "check" && facts.loses_snapshots() {
            return self.alone(&step, ours, before);
        }
        let go = |img: Run, side: usize| step.run(&self.scene, img, self.oracle.io()).folder(&self.folders[side]).go();
        // Some changes of counts take the real program minutes.
        let want = go(theirs.limit(PATIENCE), 1);
        if want.end == End::Timeout {
            self.report.excuse("the real program takes too long");
            return None;
        }
        let got = go(ours, 0);
        self.story.push(format!("{} ({:?}, {})", step.line(), want.end, cell.name()));
        self.steps.fetch_add(1, Ordering::Relaxed);
        if matches!(want.end, End::Signal(_)) && !step.is_guest {
            self.report.excuse("the real program dies of it");
            return None;
        }
        if want.end == End::Code(0) {
            self.scene.done(&step, &facts);
        }
        let mut said = difference("stdout", &normal(&want, &want.stdout), &normal(&got, &got.stdout));
        said += &difference("stderr", &normal(&want, &want.stderr), &normal(&got, &got.stderr));
        if want.end != got.end {
            said += &format!("  end: {:?}, not {:?}\n", got.end, want.end);
        } else if !said.is_empty() && want.end == End::Code(1) {
            said += "  both refuse\n";
        }
        let [mine, other] = self.looks(["commit", "rebase", "snapshot"].contains(&step.kind));
        if let Some((what, differs)) = mine.differs(&other) {
            if other.wrong().is_some() && mine.wrong().is_none() && what == "check" {
                self.report.excuse("the real program leaves an image that is not sound");
                return None;
            }
            let behind = if mine.has_grown_alike(before, &other) { " behind the former end" } else { "" };
            let stays = if mine.keeps(before) { " ours as before" } else { "" };
            let check = if mine.wrong() == before.wrong() { " as wrong as before" } else { "" };
            let past = self.past();
            let all = format!("{differs}{said}  it ended with {:?}{behind}{stays}{check}{past}\n", want.end);
            self.fault(&step, &what, &all);
            return None;
        }
        if !said.is_empty() && !self.fault(&step, "words", &format!("{said} {}\n", self.past())) {
            return None;
        }
        Some(other)
    }

    fn go(&mut self, dice: &mut Dice) {
        let Some(mut seen) = Some(look(self.oracle, &self.folders[1], &self.scene, false)) else { return };
        let most = 1 + dice.below(30);
        for turn in 0..1 + dice.below(most) {
            match self.step(dice, &seen, self.seed + turn) {
                Some(next) => seen = next,
                None => return,
            }
        }
        let [mine, other] = self.looks(true);
        if let Some((what, differs)) = mine.differs(&other) {
            self.fault(&Step::end(), &what, &differs);
        }
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the images").flatten() {
        Run::new("cp").args(["--sparse=always"]).arg(entry.path()).arg(to).must();
    }
}

#[test]
fn sequences_of_changes_leave_what_the_real_program_leaves() {
    let scratch = Scratch::quick("sequences");
    let report = Report::new("sequences");
    let (first, count) = (setting("INSTAR_SEED", 1), setting("INSTAR_SEQUENCES", 200));
    let seeds: Vec<u64> = (first..first + count).collect();
    let steps = AtomicUsize::new(0);
    each(&seeds, |_, seed| {
        let mut dice = Dice::new(*seed);
        let oracle = if seed.is_multiple_of(5) { newest() } else { maker() };
        let folder = scratch.folder(&format!("{seed}"));
        let made = (0..20).find_map(|number| {
            let start = folder.join(format!("start{number}"));
            fs::create_dir_all(&start).expect("a folder");
            Some((Scene::make(&start, &mut dice, oracle)?, start))
        });
        let (scene, start) = made.expect("an image to begin with");
        let folders = ["ours", "theirs"].map(|whose| folder.join(whose));
        folders.iter().for_each(|folder| copy(&start, folder));
        report.tried();
        Course { report: &report, steps: &steps, seed: *seed, oracle, scene, folders, story: Vec::new() }.go(&mut dice);
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = fs::remove_dir_all(folder);
        }
    });
    eprintln!("{} steps", steps.into_inner());
    report.end();
}
