//! Every source format copied into every target format: plain, packed, from chains, from snapshots.

use crate::formats::{FORMATS, Format};
use crate::judge::{accepted, count, ours, quietly, seed};
use instar_testkit::build::{bochs, cloop, dmg};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::{Dice, Made, make};
use instar_tests::report::Report;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// So many random images are the sources.
const IMAGES: u64 = 64;
/// So many times more of them are made until every format is among them.
const ROUNDS_MAX: u64 = 6;
/// Longer disks take too much time, and these are better.
const LEN_MAX: usize = 20 << 20;
const LEN_GOOD: usize = 6 << 20;
/// What has to be among them, else the seed is no good.
const SOURCES: &[&str] = &["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels", "luks"];

/// Something to copy.
struct Source {
    words: Vec<String>,
    folder: PathBuf,
    truth: Vec<u8>,
    about: String,
}

/// Sources by their format, and what is special about them.
type Classes = BTreeMap<(&'static str, &'static str), Vec<Source>>;

impl Source {
    fn of(made: &Made, snapshot: Option<&str>) -> Option<Source> {
        let mut words: Vec<String> = Vec::new();
        snapshot.iter().for_each(|name| words.extend(["-l".into(), (*name).to_owned()]));
        words.extend(made.words());
        let raw = made.folder.join("truth.raw");
        let _ = std::fs::remove_file(&raw);
        let ran = maker().img().folder(&made.folder).args(["convert", "-O", "raw"]).args(&words).arg("truth.raw").go();
        // Now and then the real program fails at its own images.
        let truth = std::fs::read(&raw).ok().filter(|truth| ran.code() == Some(0) && truth.len() <= LEN_MAX)?;
        let _ = std::fs::remove_file(raw);
        Some(Source { words, folder: made.folder.clone(), truth, about: made.story.join("\n    ") })
    }
}

fn sources(scratch: &Scratch, first: u64) -> Classes {
    let classes = Mutex::new(Classes::new());
    let add = |class, source: Option<Source>| {
        source.into_iter().for_each(|source| classes.lock().expect("the list").entry(class).or_default().push(source));
    };
    let make_of = |_: usize, seed: &u64| {
        let folder = scratch.folder(&format!("source{seed}"));
        let Ok(made) = make(&folder, *seed) else { return };
        let is_chain = made.id.contains(" < ");
        add((made.format, if is_chain { "chain" } else { "plain" }), Source::of(&made, None));
        if let Some(snapshot) = made.snapshots.first() {
            add((made.format, "snapshot"), Source::of(&made, Some(snapshot)));
        }
    };
    let lacks = |name: &&str| !classes.lock().expect("the list").contains_key(&(*name, "plain"));
    for round in 0..ROUNDS_MAX {
        let seeds: Vec<u64> = (0..IMAGES).map(|n| first + round * IMAGES + n).collect();
        each(&seeds, make_of);
        if !SOURCES.iter().any(&lacks) {
            break;
        }
    }
    for (name, bytes) in foreign() {
        let folder = scratch.folder(name);
        std::fs::write(folder.join("disk"), bytes).expect("an image");
        let made = Made {
            folder,
            format: name,
            name: "disk".into(),
            options: None,
            snapshots: Vec::new(),
            story: Vec::new(),
            id: name.into(),
        };
        add((name, "plain"), Source::of(&made, None));
    }
    let mut classes = classes.into_inner().expect("the list");
    // Where there are short ones, the long ones show nothing more.
    for sources in classes.values_mut() {
        if sources.iter().any(|source| source.truth.len() <= LEN_GOOD) {
            sources.retain(|source| source.truth.len() <= LEN_GOOD);
        }
    }
    // In the order in which they came, a seed would not say which source is meant.
    classes.values_mut().for_each(|sources| sources.sort_by(|a, b| a.folder.cmp(&b.folder)));
    classes
}

/// Images that qemu-img cannot write.
fn foreign() -> [(&'static str, Vec<u8>); 3] {
    let data: Vec<u8> = (0..200_192u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let chunks = [
        dmg::Chunk { kind: dmg::kind::RAW, sector: 0, count: 391, at: 0, len: data.len() as u64 },
        dmg::Chunk { kind: dmg::kind::END, sector: 391, count: 0, at: data.len() as u64, len: 0 },
    ];
    [
        ("bochs", bochs::build(&bochs::Bochs::default())),
        ("cloop", cloop::build(65536, &data)),
        ("dmg", dmg::build(&data, &[dmg::mish(0, &chunks)], dmg::Fork::Xml, 391)),
    ]
}

struct Case<'a> {
    source: &'a Source,
    class: (&'static str, &'static str),
    target: &'static Format,
    packed: bool,
    turn: u64,
}

impl Case<'_> {
    fn judge(&self, folder: &Path) -> Result<(), String> {
        let mut dice = Dice::new(self.turn);
        let mut run = ours(self.turn).folder(&self.source.folder).args(["convert", "-O", self.target.name]);
        let lanes = (1 + self.turn % 5).to_string();
        run = run.args(["-m", &lanes]);
        let mut options: Vec<String> = Vec::new();
        if self.packed {
            options.extend(self.target.packed.filter(|text| !text.is_empty()).map(str::to_owned));
            run = run.arg("-c");
        }
        if self.target.name == "qcow2" && dice.once_in(2) {
            options.push(format!("cluster_size={}", 512u64 << dice.below(13)));
        }
        // Both may need the passphrase; it is said once.
        let asked = self.target.asked(&options);
        let said = self.source.words.iter().any(|word| word == "--object");
        run = run.args(asked.iter().skip(if said && asked.first().is_some_and(|w| w == "--object") { 2 } else { 0 }));
        let made = folder.join("made");
        let run = run.args(&self.source.words).arg(&made);
        quietly(&run)?;
        let judged = accepted(folder, self.target, "made", &self.source.truth, self.turn);
        judged.map_err(|why| format!("  {}\n{why}", run.line()))
    }
}

fn cases(classes: &Classes, first: u64) -> Vec<Case<'_>> {
    let mut all = Vec::new();
    for round in 0..count(1) {
        for (class, sources) in classes {
            for target in FORMATS {
                for packed in [false, true].into_iter().filter(|packed| !packed || target.packed.is_some()) {
                    // What is special about the source has nothing to do with how the target is pressed.
                    let turn = first + all.len() as u64;
                    if packed && class.1 != "plain" && !turn.is_multiple_of(3) {
                        continue;
                    }
                    let source = &sources[((turn + round) % sources.len() as u64) as usize];
                    all.push(Case { source, class: *class, target, packed, turn });
                }
            }
        }
    }
    all
}

#[test]
fn every_format_is_copied_into_every_other() {
    let scratch = Scratch::new("matrix");
    let report = Report::new("writes matrix");
    let classes = sources(&scratch, seed());
    for name in SOURCES {
        assert!(classes.contains_key(&(*name, "plain")), "no image of format {name}: take another seed");
    }
    for class in [("qcow2", "snapshot"), ("qcow2", "chain")] {
        assert!(classes.contains_key(&class), "no {class:?}: take another seed");
    }
    let cases = cases(&classes, seed());
    each(&cases, |number, case| {
        let folder = scratch.folder(&format!("case{number}"));
        report.tried();
        if let Err(why) = case.judge(&folder) {
            let (from, what) = case.class;
            let to = case.target.name;
            let about = &case.source.about;
            report.fault(format!("{from} {what} -> {to}, packed: {}, {}\n{why}\n    {about}", case.packed, case.turn));
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(folder);
        }
    });
    report.end();
}
