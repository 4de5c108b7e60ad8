//! The images that sequences begin with.

use crate::step::{Facts, Step};
use instar_testkit::oracle::{Oracle, maker};
use instar_testkit::random::Dice;
use instar_testkit::run::End;
use std::path::Path;

/// The passphrases of what is encrypted.
pub const SECRETS: [&str; 2] = ["secret,id=sec0,data=123456", "secret,id=sec1,data=abcdef"];

/// An image called `disk`, and what lies about it.
pub struct Scene {
    /// The format of the disk.
    pub format: &'static str,
    /// It is encrypted.
    pub is_sealed: bool,
    /// It has a second file.
    pub is_split: bool,
    /// Its clusters.
    pub unit: u64,
    /// Names and formats of the images that it stands on or could stand on, the lowest first.
    pub below: Vec<(String, &'static str)>,
    /// What was put into a lower layer may have been left out where that read the same already: no two programs need have
    /// the same there.
    pub is_loose: bool,
    /// How it was made.
    pub story: Vec<String>,
}

/// Formats of which something can be changed beside qcow2.
const OTHERS: &[&str] = &["raw", "qed", "qed", "vmdk", "vpc", "vhdx", "qcow", "parallels", "vdi"];
/// Formats of what lies below.
const LOWER: &[&str] = &["raw", "raw", "qcow2", "qcow2", "qcow2", "vmdk", "qed", "qcow", "vdi"];
/// The sizes of clusters.
const UNITS: &[&str] =
    &["512", "1k", "2k", "4k", "4k", "8k", "16k", "32k", "64k", "64k", "128k", "256k", "512k", "1M", "2M"];

/// The number that a word of the command line says.
pub fn number(word: &str) -> u64 {
    let digits = word.trim_end_matches(|c: char| c.is_alphabetic());
    let scale = match &word[digits.len()..] {
        "k" => 1 << 10,
        "M" => 1 << 20,
        _ => 1,
    };
    digits.parse::<u64>().unwrap_or(0) * scale
}

impl Scene {
    /// The words that name the disk.
    pub fn named(&self) -> Vec<String> {
        if self.is_sealed {
            let [first, second] = SECRETS.map(|secret| ["--object".to_owned(), secret.to_owned()]);
            let name = "driver=qcow2,encrypt.key-secret=sec0,file.filename=disk".to_owned();
            [&first[..], &second, &["--image-opts".to_owned(), name]].concat()
        } else {
            vec!["-f".into(), self.format.into(), "disk".into()]
        }
    }

    /// Makes one in a folder by chance; `None` if what chance has drawn does not go together.
    pub fn make(folder: &Path, dice: &mut Dice, oracle: &Oracle) -> Option<Scene> {
        let mut scene = Scene::drawn(dice);
        let depth = [0, 1, 1, 2, 2, 3][dice.below(6) as usize];
        let unit = scene.unit;
        let most = if unit <= 4096 { 256 << 10 } else { unit.max(64 << 10) * 8 };
        let length = |dice: &mut Dice| (1 + dice.below(most / 512)) * 512;
        let mut before = None;
        for number in 0..depth {
            // The last stands alone.
            let is_apart = number + 1 == depth && number > 0 && dice.once_in(2);
            let format = dice.one(LOWER);
            let name = format!("b{number}");
            let size = length(dice);
            let can_stand = ["qcow2", "qed", "qcow"].contains(&format);
            let on = before.clone().filter(|_| can_stand && !is_apart);
            scene.create(folder, format, &[], on.as_ref(), &name, size)?;
            scene.below.push((name.clone(), format));
            scene.fill(folder, dice, &name, format, size);
            before = Some((name, format));
        }
        let size = length(dice);
        let options = scene.options(dice);
        let on = before.filter(|_| ["qcow2", "qed", "qcow", "vmdk"].contains(&scene.format));
        let on = on.filter(|(_, below)| !scene.is_split && (scene.format != "vmdk" || *below == "vmdk"));
        scene.create(folder, scene.format, &options, on.as_ref(), "disk", size)?;
        if scene.is_split {
            std::fs::copy(folder.join("disk.data"), folder.join("spare.data")).ok()?;
        }
        for _ in 0..dice.below(5) {
            let facts = Facts::of(&crate::look::look(oracle, folder, &scene, false).told, &scene)?;
            let step = Step::drawn(dice, &scene, &facts);
            if step.kind == "die" || (step.kind == "check" && facts.loses_snapshots()) {
                continue;
            }
            let run = step.run(&scene, oracle.img(), oracle.io()).folder(folder);
            scene.story.push(step.line());
            if run.go().end == End::Code(0) {
                scene.done(&step, &facts);
            }
        }
        Some(scene)
    }

    /// A step has succeeded.
    pub fn done(&mut self, step: &Step, facts: &Facts) {
        if step.kind != "commit" {
            return;
        }
        self.is_loose = true;
        // Layers that were passed over read as something that nobody has wanted.
        let base = step.base();
        let passed = facts.below.iter().take_while(|name| base.is_some_and(|base| base != name.as_str()));
        passed.for_each(|passed| self.below.retain(|(name, _)| name != passed));
    }

    /// Its format and what the rest follows from.
    fn drawn(dice: &mut Dice) -> Scene {
        let format = if dice.once_in(6) { dice.one(OTHERS) } else { "qcow2" };
        let unit = number(dice.one(UNITS));
        let kind = if format == "qcow2" { dice.below(12) } else { 9 };
        let unit = if format == "qcow2" { unit } else { 64 << 10 };
        Scene {
            format,
            is_sealed: kind == 0,
            is_split: kind == 1,
            unit,
            below: Vec::new(),
            is_loose: false,
            story: Vec::new(),
        }
    }

    /// The options of the disk.
    fn options(&mut self, dice: &mut Dice) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        match self.format {
            "qcow2" => {
                all.push(format!("cluster_size={}", self.unit));
                let is_old = dice.once_in(4) && !self.is_split;
                if is_old {
                    all.push("compat=0.10".into());
                } else {
                    let bits = dice.one(&["1", "2", "4", "8", "16", "16", "16", "32", "64"]);
                    all.push(format!("refcount_bits={bits}"));
                    if dice.once_in(4) && self.unit >= 16384 {
                        all.push("extended_l2=on".into());
                    }
                    if dice.once_in(5) {
                        all.push("lazy_refcounts=on".into());
                    }
                    if dice.once_in(4) {
                        all.push("compression_type=zstd".into());
                    }
                }
                if self.is_sealed {
                    all.extend(
                        ["encrypt.format=luks", "encrypt.key-secret=sec0", "encrypt.iter-time=10"].map(Into::into),
                    );
                }
                if self.is_split {
                    all.push("data_file=disk.data".into());
                    if dice.once_in(2) {
                        all.push("data_file_raw=on".into());
                    }
                } else if dice.once_in(8) {
                    all.push(format!("preallocation={}", dice.one(&["metadata", "falloc", "full"])));
                }
            }
            "qed" => all.push(format!("cluster_size={}", dice.one(&["4k", "64k"]))),
            "vmdk" => all.push(format!(
                "subformat={}",
                dice.one(&["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"])
            )),
            "vpc" => all.push(format!("subformat={}", dice.one(&["dynamic", "fixed"]))),
            "vhdx" => all.push("block_size=1M,log_size=1M".into()),
            _ => {}
        }
        all
    }

    fn create(
        &mut self,
        folder: &Path,
        format: &str,
        options: &[String],
        on: Option<&(String, &'static str)>,
        name: &str,
        size: u64,
    ) -> Option<()> {
        let mut run = maker().img().folder(folder).args(["create", "-q", "--object", SECRETS[0], "-f", format]);
        if !options.is_empty() {
            run = run.args(["-o", &options.join(",")]);
        }
        if let Some((below, format)) = on {
            run = run.args(["-b", below, "-F", format]);
        }
        let size = size.to_string();
        let run = run.args([name, &size]);
        let ran = run.go();
        let words = run.line();
        self.story.push(words.split_once("qemu-img-").map_or(words.clone(), |(_, words)| words.to_owned()));
        (ran.end == End::Code(0)).then_some(())
    }

    /// Writes to what lies below.
    fn fill(&mut self, folder: &Path, dice: &mut Dice, name: &str, format: &str, size: u64) {
        let mut run = maker().io().folder(folder).args(["-f", format]);
        for _ in 0..dice.below(5) {
            let command = crate::step::scribble(dice, size, 4096, false);
            self.story.push(format!("{name}: {command}"));
            run = run.args(["-c", &command]);
        }
        run.arg(name).go();
    }
}
