//! One change of an image, drawn by chance.

use crate::start::Scene;
use instar_testkit::random::Dice;
use instar_testkit::run::Run;
use serde_json::Value;

/// What a step is drawn from.
pub struct Facts {
    size: u64,
    snapshots: Vec<String>,
    bitmaps: Vec<String>,
    /// Names of what the disk stands on, the upper first.
    pub below: Vec<String>,
}

impl Facts {
    /// From what the layers of an image say of themselves.
    pub fn of(told: &[Value], scene: &Scene) -> Option<Facts> {
        let top = told.first()?;
        let names = |list: &Value| -> Vec<String> {
            let all = list.as_array().cloned().unwrap_or_default();
            all.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
        };
        let below = told.iter().skip(1).filter_map(|told| told["filename"].as_str().map(str::to_owned));
        let known = |name: &String| scene.below.iter().any(|(known, _)| known == name);
        Some(Facts {
            size: top["virtual-size"].as_u64()?,
            snapshots: names(&top["snapshots"]),
            bitmaps: names(&top["format-specific"]["data"]["bitmaps"]),
            below: below.filter(known).collect(),
        })
    }
}

impl Facts {
    /// Whether a repair by the real program would lose the snapshots: it does where there are bitmaps as well.
    pub fn loses_snapshots(&self) -> bool {
        !self.snapshots.is_empty() && !self.bitmaps.is_empty()
    }
}

/// One change.
pub struct Step {
    /// What it is about.
    pub kind: &'static str,
    /// The guest does it, and not the program under test.
    pub is_guest: bool,
    /// The words before those that name the disk, and those after them.
    words: (Vec<String>, Vec<String>),
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A write, a discard or the like, for qemu-io.
pub fn scribble(dice: &mut Dice, size: u64, unit: u64, packs: bool) -> String {
    let sectors = (size / 512).max(1);
    let grain = [512, unit, unit, 65536][dice.below(4) as usize].min(size.max(512));
    let at = dice.below(sectors) * 512 / grain * grain;
    let most = [1, 1, 2, 8, 64][dice.below(5) as usize];
    let len = ((1 + dice.below(most)) * grain).min(size - at.min(size));
    let byte = 1 + dice.below(255);
    match dice.below(12) {
        0..=4 => format!("write -P {byte} {at} {len}"),
        5 => format!("write -z {at} {len}"),
        6 => format!("write -z -u {at} {len}"),
        7 | 8 => format!("discard {at} {len}"),
        9 => format!("write -P 0 {at} {len}"),
        _ if packs => {
            let at = dice.below(size / unit + 1) * unit;
            format!("write -c -P {byte} {} {}", at.min(size / unit * unit), unit.min(size - at.min(size / unit * unit)))
        }
        _ => format!("write -P {byte} {at} 512"),
    }
}

impl Step {
    fn img(kind: &'static str, words: &[&str]) -> Step {
        Step { kind, is_guest: false, words: (owned(words), Vec::new()) }
    }

    /// What is looked at when all is done.
    pub fn end() -> Step {
        Step::img("end", &[])
    }

    /// The words in one line.
    pub fn line(&self) -> String {
        [&self.words.0[..], &["disk".to_owned()], &self.words.1].concat().join(" ")
    }

    /// The image that `-b` names.
    pub fn base(&self) -> Option<&str> {
        let at = self.words.0.iter().position(|word| word == "-b")?;
        self.words.0.get(at + 1).map(String::as_str)
    }

    /// The program with its words.
    pub fn run(&self, scene: &Scene, img: Run, io: Run) -> Run {
        let named = scene.named();
        // Older versions let nobody say of which format an image with snapshots is.
        let plain = self.kind == "snapshot" && !scene.is_sealed;
        let named = if plain { vec!["disk".to_owned()] } else { named };
        let run = if self.is_guest { io } else { img };
        run.args(&self.words.0).args(named).args(&self.words.1)
    }

    /// One that chance has drawn.
    pub fn drawn(dice: &mut Dice, scene: &Scene, facts: &Facts) -> Step {
        if scene.format != "qcow2" {
            return match dice.below(12) {
                0..=4 => Step::guest(dice, scene, facts),
                5 | 6 => Step::resize(dice, facts),
                7 => Step::rebase(dice, scene),
                8 | 9 => Step::commit(dice, facts),
                10 => Step::snapshot(dice, facts),
                _ => Step::check(dice),
            };
        }
        match dice.below(26) {
            0..=6 => Step::guest(dice, scene, facts),
            7..=11 => Step::snapshot(dice, facts),
            12..=14 => Step::resize(dice, facts),
            15 | 16 => Step::rebase(dice, scene),
            17 | 18 => Step::commit(dice, facts),
            19..=21 => Step::amend(dice, scene, facts),
            22..=24 => Step::bitmap(dice, facts),
            _ => Step::check(dice),
        }
    }

    fn guest(dice: &mut Dice, scene: &Scene, facts: &Facts) -> Step {
        let mut words = Vec::new();
        for _ in 0..1 + dice.below(4) {
            words.extend(["-c".to_owned(), scribble(dice, facts.size, scene.unit, scene.format == "qcow2")]);
        }
        let dies = scene.format == "qcow2" && dice.once_in(20);
        if dies {
            // Whether what is compressed finds room depends on where clusters are, and who dies does not tell.
            words.iter_mut().for_each(|word| *word = word.replace("write -c", "write"));
            words.extend(owned(&["-c", "flush", "-c", "sigraise 9"]));
        }
        Step { kind: if dies { "die" } else { "guest" }, is_guest: true, words: (words, Vec::new()) }
    }

    fn snapshot(dice: &mut Dice, facts: &Facts) -> Step {
        let fresh = dice.one(&["one", "two", "three", "four", "1", "2"]);
        let known = facts.snapshots.get(dice.below(facts.snapshots.len().max(1) as u64) as usize);
        let known = known.map_or(fresh, String::as_str);
        match dice.below(7) {
            0..=2 if facts.snapshots.len() < 6 => Step::img("snapshot", &["snapshot", "-c", fresh]),
            3 | 4 => Step::img("snapshot", &["snapshot", "-a", known]),
            6 if dice.once_in(4) => Step::img("snapshot", &["snapshot", "-d", fresh]),
            _ => Step::img("snapshot", &["snapshot", "-d", known]),
        }
    }

    fn resize(dice: &mut Dice, facts: &Facts) -> Step {
        let most = (facts.size / 512).max(64);
        let by = ((1 + dice.below(most)) * 512).to_string();
        let mut step = Step::img("resize", &["resize"]);
        let word = match dice.below(5) {
            0 | 1 => format!("+{by}"),
            2 => by,
            _ => ((facts.size / 512).saturating_sub(dice.below(most / 2)) * 512).to_string(),
        };
        if dice.once_in(3) {
            let how = dice.one(&["off", "metadata", "falloc", "full"]);
            step.words.0.push(format!("--preallocation={how}"));
        }
        if !word.starts_with('+') && !dice.once_in(6) {
            step.words.0.push("--shrink".into());
        }
        // Disks are not to get ever longer.
        step.words.1.push(if facts.size > 48 << 20 { (4 << 20).to_string() } else { word });
        step
    }

    fn rebase(dice: &mut Dice, scene: &Scene) -> Step {
        let mut words = vec!["rebase"];
        // qemu-img does not know beside which file the name is, if it is told how the image is opened.
        words.extend((scene.is_sealed || dice.once_in(3)).then_some("-u"));
        words.extend(dice.once_in(5).then_some("-c"));
        if scene.below.is_empty() || dice.once_in(4) {
            words.extend(["-b", ""]);
            return Step::img("rebase", &words);
        }
        let (name, format) = &scene.below[dice.below(scene.below.len() as u64) as usize];
        words.extend(["-b", name, "-F", format]);
        Step::img("rebase", &words)
    }

    fn commit(dice: &mut Dice, facts: &Facts) -> Step {
        let mut words = vec!["commit"];
        words.extend(dice.once_in(2).then_some("-d"));
        if let Some(name) = facts.below.get(dice.below(facts.below.len().max(1) as u64) as usize) {
            words.extend(dice.once_in(3).then_some(["-b", name]).into_iter().flatten());
        }
        Step::img("commit", &words)
    }

    fn amend(dice: &mut Dice, scene: &Scene, facts: &Facts) -> Step {
        let mut list: Vec<String> = Vec::new();
        for _ in 0..1 + dice.below(2) {
            list.push(match dice.below(8) {
                0 | 1 => format!("compat={}", dice.one(&["0.10", "1.1", "v2", "v3"])),
                2 => format!("lazy_refcounts={}", dice.one(&["on", "off"])),
                3 | 4 => format!("refcount_bits={}", dice.one(&["1", "2", "4", "8", "16", "32", "64"])),
                5 => format!("size={}", (facts.size / 512 + dice.below(64)).saturating_sub(dice.below(8)) * 512),
                6 if scene.is_split => format!("data_file={}", dice.one(&["spare.data", "disk.data"])),
                7 if scene.is_split => format!("data_file_raw={}", dice.one(&["on", "off"])),
                6 if scene.is_sealed => dice
                    .one(&[
                        "encrypt.state=active,encrypt.new-secret=sec1,encrypt.iter-time=10",
                        "encrypt.state=inactive,encrypt.old-secret=sec1",
                        "encrypt.state=active,encrypt.new-secret=sec1,encrypt.keyslot=5,encrypt.iter-time=10",
                        "encrypt.state=inactive,encrypt.keyslot=1",
                        "encrypt.state=inactive,encrypt.keyslot=5",
                    ])
                    .to_owned(),
                _ => format!("compat={}", dice.one(&["0.10", "1.1"])),
            });
        }
        Step::img("amend", &["amend", "-o", &list.join(",")])
    }

    fn bitmap(dice: &mut Dice, facts: &Facts) -> Step {
        let names = ["x", "y", "z"];
        let own = dice.one(&names).to_owned();
        let known = facts.bitmaps.contains(&own);
        let other = facts.bitmaps.get(dice.below(facts.bitmaps.len().max(1) as u64) as usize);
        let mut words = owned(&["bitmap"]);
        if !known && !dice.once_in(6) {
            words.push("--add".into());
            if dice.once_in(2) {
                words.extend(["-g".into(), (512u64 << dice.below(9)).to_string()]);
            }
        }
        for _ in 0..1 + dice.below(2) {
            match dice.below(6) {
                0 if known => words.push("--remove".into()),
                1 => words.push("--clear".into()),
                2 => words.push("--enable".into()),
                3 => words.push("--disable".into()),
                _ => words.extend(["--merge".into(), other.cloned().unwrap_or("x".into())]),
            }
            if words.last().is_some_and(|word| word == "--remove") {
                break;
            }
        }
        Step { kind: "bitmap", is_guest: false, words: (words, vec![own]) }
    }

    fn check(dice: &mut Dice) -> Step {
        Step::img("check", &["check", "-r", dice.one(&["leaks", "all"])])
    }
}
