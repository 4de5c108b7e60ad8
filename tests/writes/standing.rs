//! Copies into images that exist, as others filled them: what is copied is there afterwards, and all the rest as before.

use crate::formats::{FORMATS, Format};
use crate::judge::{content, count, ours, put, read, seed, sound};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_testkit::run::Run;
use instar_tests::report::Report;
use std::path::{Path, PathBuf};

/// An image in the making, and what it went through.
struct Kitchen {
    dice: Dice,
    folder: PathBuf,
    format: &'static Format,
    len: u64,
    story: Vec<String>,
}

type Tried<T> = Result<T, String>;

impl Kitchen {
    fn run(&mut self, run: Run) -> Tried<()> {
        let run = run.folder(&self.folder);
        self.story.push(run.line());
        let ran = run.go();
        if ran.code() == Some(0) { Ok(()) } else { Err(format!("{}{}", ran.out(), ran.err())) }
    }

    /// Writes to an image as a guest might. A format that cannot do one of these does the others.
    fn scribble(&mut self, format: &Format, name: &str, len: u64, most: u64) {
        let mut run = maker().io().folder(&self.folder);
        for _ in 0..1 + self.dice.below(most) {
            let at = self.dice.below(len.div_ceil(512)) * 512;
            let piece = ((1 + self.dice.below(400)) * 512).min(len.saturating_sub(at)) / 512 * 512;
            if piece == 0 {
                continue;
            }
            let what = match self.dice.below(10) {
                0..=5 => format!("write -P {}", 1 + self.dice.below(255)),
                6 => "write -z".into(),
                7 => "write -z -u".into(),
                8 => "discard".into(),
                _ => "write -P 0".into(),
            };
            run = run.args(["-c", &format!("{what} {at} {piece}")]);
        }
        run = match format.name {
            "luks" => run.args(format.words(name)),
            other => run.args(["-f", other, name]),
        };
        self.story.push(run.line());
        run.go();
    }

    /// Creates, fills, packs, and snapshots it; the names of its snapshots.
    fn target(&mut self) -> Tried<Vec<String>> {
        let (format, len) = (self.format, self.len.to_string());
        let mut options: Vec<String> = format.some(&mut self.dice, 2);
        options.retain(|option| !option.contains("streamOptimized") && !option.contains("data_file"));
        let backed = format.backs && self.dice.once_in(3);
        let create = |options: &[String]| {
            let mut run = maker().img().args(["create", "-q", "-f", format.name]).args(format.asked(options));
            if backed {
                run = run.args(["-b", "base", "-F", if format.name == "vmdk" { "vmdk" } else { "raw" }]);
            }
            run.args(["target", &len])
        };
        if backed {
            let bytes = content(&mut self.dice, self.len);
            put(&self.folder.join("base"), &bytes);
            if format.name == "vmdk" {
                self.run(maker().img().args(["convert", "-f", "raw", "-O", "vmdk", "base", "base.vmdk"]))?;
                std::fs::rename(self.folder.join("base.vmdk"), self.folder.join("base")).expect("a name");
            }
        }
        // Options that do not go together are left out.
        if self.run(create(&options)).is_err() {
            self.run(create(&[]))?;
        }
        // The real program makes some that it cannot open.
        if self.run(maker().img().arg("info").args(format.words("target"))).is_err() {
            self.run(create(&[]))?;
        }
        self.scribble(format, "target", self.len, 8);
        if format.packed == Some("") && !backed && self.dice.once_in(3) {
            let run = maker().img().args(["convert", "-c", "-f", format.name, "-O", format.name]);
            let packed = self.run(run.args(["target", "packed"]));
            if packed.is_ok() {
                std::fs::rename(self.folder.join("packed"), self.folder.join("target")).expect("a name");
                self.scribble(format, "target", self.len, 2);
            }
        }
        let mut snapshots = Vec::new();
        for number in 0..if format.name == "qcow2" { self.dice.below(3) } else { 0 } {
            let name = format!("s{number}");
            // One-bit counts take no second user of a cluster.
            if self.run(maker().img().args(["snapshot", "-c", &name, "target"])).is_ok() {
                snapshots.push(name);
                self.scribble(format, "target", self.len, 3);
            }
        }
        Ok(snapshots)
    }

    fn judge(&mut self, turn: u64) -> Tried<()> {
        let snapshots = self.target()?;
        let format = self.format;
        let (folder, words, limit) = (self.folder.clone(), format.words("target"), self.len + (4 << 20));
        let theirs = |words: &[String]| read(maker().img(), &folder, words, limit);
        let picked = |name: &String| [vec!["-l".to_owned(), name.clone()], words.clone()].concat();
        let before = theirs(&words)?;
        let kept: Vec<Vec<u8>> = snapshots.iter().map(|name| theirs(&picked(name))).collect::<Result<_, _>>()?;
        let was_sound = sound(maker(), &folder, format, &words);
        // The shorter ones leave the end of what is there.
        let shorter = self.dice.below(self.len / 512 + 1) * 512;
        let len = if self.dice.once_in(3) { shorter } else { self.len };
        let disk = content(&mut self.dice, len);
        put(&folder.join("in.raw"), &disk);
        let plain = Format { name: "raw", ..FORMATS[0] };
        if len > 0 {
            self.scribble(&plain, "in.raw", len, 4);
        }
        let disk = std::fs::read(folder.join("in.raw")).expect("the disk");
        let packs = format.packed == Some("") && self.dice.once_in(3);
        let lanes = (1 + self.dice.below(6)).to_string();
        let mut run = ours(turn).folder(&folder).args(["convert", "-n", "-m", &lanes, "-f", "raw"]);
        run = run.args(packs.then_some("-c"));
        run = match format.name {
            "luks" => {
                let target = &words[3];
                run.args(["--object", crate::formats::SECRET, "--target-image-opts", "in.raw", target])
            }
            name => run.args(["-O", name, "in.raw", "target"]),
        };
        self.story.push(run.line());
        let ran = run.go();
        if ran.code() != Some(0) || !ran.stderr.is_empty() {
            return Err(format!("  {:?}: {}", ran.end, ran.err()));
        }
        let mut want = before;
        want[..disk.len()].copy_from_slice(&disk);
        let got = theirs(&words)?;
        if got != want {
            let at = got.iter().zip(&want).position(|(got, want)| got != want);
            return Err(format!(
                "  the content differs at {at:?}: {} bytes, {} of them copied",
                want.len(),
                disk.len()
            ));
        }
        for (name, kept) in snapshots.iter().zip(&kept) {
            if theirs(&picked(name))? != *kept {
                return Err(format!("  snapshot {name} is not what it was"));
            }
        }
        sound(maker(), &folder, format, &words).or_else(|why| if was_sound.is_err() { Ok(()) } else { Err(why) })
    }
}

#[test]
fn what_is_not_written_over_stays() {
    let scratch = Scratch::new("standing");
    let report = Report::new("writes standing");
    let mut cases: Vec<(&'static Format, u64)> = Vec::new();
    for number in 0..count(90) {
        let mut dice = Dice::new(seed() + number);
        // What has the most ways to be filled is filled most often; keys take seconds to make.
        let of = ["qcow2", "qcow2", "qcow2", "vmdk", "vmdk", "qed", "qcow", "vdi", "vpc", "vhdx", "parallels", "raw"];
        let name = if number % 45 == 7 { "luks" } else { dice.one(&of) };
        cases.push((FORMATS.iter().find(|format| format.name == name).expect("a format"), seed() + number));
    }
    each(&cases, |number, (format, seed)| {
        let folder = scratch.folder(&format!("case{number}"));
        let mut dice = Dice::new(*seed);
        let len = (1 + dice.below(16)) * [65_536, 512 * 7, 1 << 20][dice.below(3) as usize];
        let mut kitchen = Kitchen { dice, folder: folder.clone(), format, len, story: Vec::new() };
        report.tried();
        if let Err(why) = kitchen.judge(*seed) {
            report.fault(format!("{}, seed {seed}\n{why}\n    {}", format.name, kitchen.story.join("\n    ")));
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all::<&Path>(&folder);
        }
    });
    report.end();
}
