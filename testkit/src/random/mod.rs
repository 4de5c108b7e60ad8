//! Random images of everything that the real programs can write: the same one for the same seed.

mod dice;
mod options;

pub use dice::Dice;

use crate::oracle::maker;
use crate::run::{End, Run};
use options::Kind;
use std::path::{Path, PathBuf};

/// The passphrase of encrypted images.
pub const SECRET: &str = "secret,id=sec0,data=123456";

/// An image that was made, with all that belongs to it, in a folder of its own.
#[derive(Debug)]
pub struct Made {
    /// Its folder.
    pub folder: PathBuf,
    /// Its format.
    pub format: &'static str,
    /// Its file.
    pub name: String,
    /// How it is named if a passphrase is needed to read it.
    pub options: Option<String>,
    /// Its snapshots.
    pub snapshots: Vec<String>,
    /// The commands that made it.
    pub story: Vec<String>,
    /// What it is about.
    pub id: String,
}

impl Made {
    /// The words of a command line that name it as a source: options, and its name.
    pub fn words(&self) -> Vec<String> {
        match &self.options {
            Some(options) => ["--object", SECRET, "--image-opts", options].map(str::to_owned).to_vec(),
            None => vec!["-f".into(), self.format.into(), self.name.clone()],
        }
    }
}

/// An image in the making.
struct Maker<'a> {
    dice: Dice,
    folder: &'a Path,
    story: Vec<String>,
    snapshots: Vec<String>,
}

type Tried<T> = Result<T, String>;

/// Makes the image of a seed in a folder, which has to be empty.
pub fn make(folder: &Path, seed: u64) -> Result<Made, String> {
    let mut maker = Maker { dice: Dice::new(seed), folder, story: Vec::new(), snapshots: Vec::new() };
    let made = maker.image(0, None);
    made.map_err(|why| format!("seed {seed}: {why}\n{}", maker.story.join("\n")))
}

impl Maker<'_> {
    /// An image; with `layer` it stands upon the one before.
    fn image(&mut self, layer: usize, base: Option<(String, &'static str, u64)>) -> Tried<Made> {
        let kind = options::kind(&mut self.dice, base.as_ref().map(|(_, format, _)| *format));
        let size = self.size(&kind, base.as_ref().map(|(.., size)| *size));
        let name = format!("layer{layer}.{}", kind.format);
        self.create(&kind, &name, size, base.as_ref().map(|(name, format, _)| (name.as_str(), *format)))?;
        let options = kind.secret.map(|key| format!("driver={},file.filename={name},{key}=sec0", kind.format));
        let mut made = Made {
            folder: self.folder.to_path_buf(),
            format: kind.format,
            name: name.clone(),
            options,
            snapshots: Vec::new(),
            story: Vec::new(),
            id: kind.id.clone(),
        };
        if kind.writes {
            self.fill(&kind, &made, size)?;
        }
        let deeper = layer < 3 && kind.secret.is_none() && kind.format != "luks" && self.dice.once_in(3);
        if deeper && self.dice.once_in(2) | kind.writes {
            let id = format!("{} < ", made.id);
            self.snapshots.clear();
            let mut upper = self.image(layer + 1, Some((name, kind.format, size)))?;
            upper.id.insert_str(0, &id);
            return Ok(upper);
        }
        if kind.repacks && self.dice.once_in(3) {
            made = self.repack(made, layer)?;
        }
        made.snapshots = std::mem::take(&mut self.snapshots);
        made.story = std::mem::take(&mut self.story);
        Ok(made)
    }

    fn size(&mut self, kind: &Kind, base: Option<u64>) -> u64 {
        let near = base.filter(|_| self.dice.once_in(2)).unwrap_or(1 << (18 + self.dice.below(7)));
        let size = match self.dice.below(4) {
            0 => near,
            1 => near + self.dice.below(1 << 16) * 512,
            2 => near.saturating_sub(self.dice.below(200) * 512).max(512),
            _ => near / 4096 * 4096,
        };
        // Small clusters reach no further.
        size.min(kind.size_max).max(kind.size_min)
    }

    fn create(&mut self, kind: &Kind, name: &str, size: u64, base: Option<(&str, &str)>) -> Tried<()> {
        let mut words: Vec<String> = ["create", "-q", "--object", SECRET, "-f", kind.format].map(str::to_owned).into();
        if !kind.options.is_empty() {
            words.extend(["-o".into(), kind.options.replace('@', name)]);
        }
        if let Some((name, format)) = base.filter(|_| kind.backs) {
            words.extend(["-b".into(), name.into(), "-F".into(), format.into()]);
        }
        words.extend([name.to_owned(), size.to_string()]);
        if kind.through_raw {
            return self.through_raw(kind, name, size);
        }
        self.run(maker().img().args(words))
    }

    /// What qemu-io cannot write is converted from a raw disk.
    fn through_raw(&mut self, kind: &Kind, name: &str, size: u64) -> Tried<()> {
        let raw = Kind::raw();
        let source = format!("{name}.source");
        self.run(maker().img().args(["create", "-q", "-f", "raw", &source, &size.to_string()]))?;
        self.fill(&raw, &Made { name: source.clone(), ..blank("raw", self.folder) }, size)?;
        let mut run = maker().img().args(["convert", "-q", "-f", "raw", "-O", kind.format]);
        if !kind.options.is_empty() {
            run = run.args(["-o", &kind.options]);
        }
        self.run(run.args([source.as_str(), name]))?;
        std::fs::remove_file(self.folder.join(source)).map_err(|e| e.to_string())
    }

    /// The same content, compressed.
    fn repack(&mut self, made: Made, layer: usize) -> Tried<Made> {
        let name = format!("packed{layer}.{}", made.format);
        let mut run = maker().img().args(["convert", "-q", "-c", "-O", made.format]);
        if made.format == "qcow2" {
            run = run.args(["-o", self.dice.one(&["compression_type=zlib", "compression_type=zstd"])]);
        }
        match self.run(run.args(["-f", made.format, &made.name, &name])) {
            // qemu-img compresses some qcow images and fails at others without a word.
            Err(_) if made.format == "qcow" => return Ok(made),
            ran => ran?,
        }
        self.snapshots.clear();
        Ok(Made { name, id: format!("{} packed", made.id), ..made })
    }

    /// Random writes, and whatever else changes content.
    fn fill(&mut self, kind: &Kind, made: &Made, size: u64) -> Tried<()> {
        for round in 0..1 + self.dice.below(3) {
            let mut commands = Vec::new();
            for _ in 0..self.dice.below(14) {
                commands.push(self.command(kind, size));
            }
            self.io(made, &commands)?;
            if kind.snapshots && self.dice.once_in(3) {
                let name = format!("snap {round}");
                self.run(maker().img().args(["snapshot", "-c", &name, &made.name]))?;
                self.snapshots.push(name);
            }
        }
        Ok(())
    }

    fn command(&mut self, kind: &Kind, size: u64) -> String {
        const UNITS: [u64; 4] = [512, 4096, 65536, 1 << 20];
        let unit = UNITS[self.dice.below(4) as usize].min(size.next_multiple_of(512));
        let at = (self.dice.below(size.max(1)) / unit * unit).min(size.saturating_sub(1) / 512 * 512);
        let left = (size - at) / 512 * 512;
        let len = (unit * (1 + self.dice.below(9))).min(left);
        if len == 0 {
            return "length".to_owned();
        }
        let pattern = 1 + self.dice.below(255);
        match self.dice.below(10) {
            0 => format!("write -z {at} {len}"),
            1 => format!("write -z -u {at} {len}"),
            2 => format!("discard {at} {len}"),
            3 if kind.compresses && at.is_multiple_of(kind.cluster) && left >= kind.cluster => {
                format!("write -c -P {pattern} {at} {}", kind.cluster)
            }
            4 => format!("write -P 0 {at} {len}"),
            _ => format!("write -P {pattern} {at} {len}"),
        }
    }

    fn io(&mut self, made: &Made, commands: &[String]) -> Tried<()> {
        // Older formats flush after every cluster; nobody needs it here.
        let mut run = maker().io().args(["-t", "unsafe"]);
        for command in commands {
            run = run.args(["-c", command]);
        }
        let run = match &made.options {
            Some(options) => run.args(["--object", SECRET, "--image-opts", options]),
            None => run.args(["-f", made.format, &made.name]),
        };
        // A format that cannot discard says so; what it could do stays done.
        let run = run.folder(self.folder);
        self.story.push(run.line());
        match run.go().end {
            End::Code(0 | 1) => Ok(()),
            end => Err(format!("{end:?}")),
        }
    }

    fn run(&mut self, run: Run) -> Tried<()> {
        let run = run.folder(self.folder);
        self.story.push(run.line());
        let ran = run.go();
        if ran.end == End::Code(0) { Ok(()) } else { Err(format!("{}{}", ran.out(), ran.err())) }
    }
}

fn blank(format: &'static str, folder: &Path) -> Made {
    Made {
        folder: folder.to_path_buf(),
        format,
        name: String::new(),
        options: None,
        snapshots: Vec::new(),
        story: Vec::new(),
        id: String::new(),
    }
}
