//! The images that a killed program leaves behind: what they are before, and what is to be done to them.

use instar_testkit::alike::scatter;
use instar_testkit::oracle::maker;
use instar_testkit::random::Dice;
use std::path::Path;

/// A kind of image, and the changes that are tried on it.
pub struct Case {
    /// Its format.
    pub format: &'static str,
    /// How it is made.
    kind: &'static Kind,
    /// The words of the change; `NAME` stands for the image.
    pub line: &'static str,
    /// What only the native face does.
    pub is_native: bool,
}

/// A layout.
struct Kind {
    format: &'static str,
    options: &'static str,
    /// `c`: compressed, `s`: snapshots, `b`: stands on a raw image, `q`: stands on a qcow2 image, `m`: bitmaps,
    /// `d`: was not closed.
    furniture: &'static str,
}

const fn kind(format: &'static str, options: &'static str, furniture: &'static str) -> Kind {
    Kind { format, options, furniture }
}

const KINDS: &[Kind] = &[
    kind("qcow2", "cluster_size=512", "sbm"),
    kind("qcow2", "cluster_size=512,lazy_refcounts=on", "smqd"),
    kind("qcow2", "cluster_size=1k,compat=0.10", "sqd"),
    kind("qcow2", "cluster_size=1k,refcount_bits=1", "bm"),
    kind("qcow2", "cluster_size=4k,refcount_bits=64,compression_type=zstd", "csmq"),
    kind("qcow2", "cluster_size=2k", "csb"),
    kind("qcow2", "cluster_size=16k,extended_l2=on,lazy_refcounts=on", "sqmd"),
    kind("qcow2", "cluster_size=64k", "csmb"),
    kind("qcow2", "cluster_size=4k,data_file=disk.data", "m"),
    kind("qcow2", "cluster_size=2M", "sm"),
    kind("qed", "cluster_size=4k", "b"),
    kind("qed", "cluster_size=64k", "q"),
    kind("vmdk", "", ""),
    kind("vmdk", "subformat=twoGbMaxExtentSparse", ""),
    kind("vhdx", "block_size=1M,log_size=1M", ""),
    kind("vpc", "", ""),
];

/// Changes: the formats they are for, what furniture they need (or must not have, after a `!`), and the words.
const LINES: &[(&str, &str, &str)] = &[
    ("qcow2", "!d", "resize -f qcow2 --preallocation metadata NAME 12M"),
    ("qcow2", "!d", "resize -f qcow2 NAME 16M"),
    ("qcow2", "!d", "resize -f qcow2 --shrink NAME 5M"),
    ("qcow2", "s", "snapshot -c new NAME"),
    ("qcow2", "s!m", "snapshot -a s0 NAME"),
    ("qcow2", "s", "snapshot -d s0 NAME"),
    ("qcow2", "", "amend -f qcow2 -o refcount_bits=32 NAME"),
    ("qcow2", "", "amend -f qcow2 -o compat=0.10 NAME"),
    ("qcow2", "", "amend -f qcow2 -o compat=1.1,lazy_refcounts=on NAME"),
    ("qcow2 qed", "b", "rebase -b other -F qcow2 NAME"),
    ("qcow2 qed", "q", "rebase -b other -F qcow2 NAME"),
    ("qcow2 qed", "q", "rebase -b  NAME"),
    ("qcow2 qed", "b", "commit NAME"),
    ("qcow2 qed", "q", "commit NAME"),
    ("qcow2 qed", "q", "commit -d NAME"),
    ("qcow2", "m!d", "bitmap --add -g 512 --merge m0 NAME fresh"),
    ("qcow2", "m!d", "bitmap --remove NAME m0"),
    ("qcow2", "m!d", "bitmap --clear NAME m0"),
    ("qcow2", "d", "check -r all NAME"),
    ("qcow2", "d", "check -r leaks NAME"),
    ("qcow2", "c", "convert -n -c -f raw -O qcow2 patch.raw NAME"),
    ("qcow2", "", "convert -n -f raw -O qcow2 patch.raw NAME"),
    ("qed", "", "convert -n -f raw -O qed patch.raw NAME"),
    ("vmdk", "", "convert -n -f raw -O vmdk patch.raw NAME"),
    ("vhdx", "", "convert -n -f raw -O vhdx patch.raw NAME"),
    ("vpc", "", "convert -n -f raw -O vpc patch.raw NAME"),
    ("qed vmdk vhdx vpc", "", "resize NAME 12M"),
    ("qed vmdk vhdx vpc", "", "resize --shrink NAME 4M"),
];

/// All that go together.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for kind in KINDS {
        for (formats, needs, line) in LINES {
            let (needed, banned) = needs.split_once('!').unwrap_or((needs, ""));
            let fits = formats.split(' ').any(|format| format == kind.format)
                && needed.chars().all(|need| kind.furniture.contains(need))
                && !banned.chars().any(|banned| kind.furniture.contains(banned));
            // An older version has no place for these.
            let has_new = ["refcount_bits=", "extended_l2", "zstd", "data_file"];
            let is_old = line.contains("compat=0.10") && has_new.iter().any(|new| kind.options.contains(new));
            let is_narrow =
                kind.options.contains("0.10") && (line.contains("refcount_bits") || line.contains("resize"));
            let is_split = kind.options.contains("data_file") && line.contains("convert -n -c");
            // Counts that were left behind are not made anew by that.
            let is_behind = kind.options.contains("lazy_refcounts") && line.contains("-r leaks");
            if fits && !is_old && !is_narrow && !is_split && !is_behind {
                let is_native = kind.format != "qcow2" && line.starts_with("resize");
                all.push(Case { format: kind.format, kind, line, is_native });
            }
        }
    }
    all
}

impl Case {
    /// What it is about.
    pub fn about(&self) -> String {
        format!("{} {} {}: {}", self.kind.format, self.kind.options, self.kind.furniture, self.line)
    }

    /// The words of the change.
    pub fn words(&self) -> Vec<String> {
        // An empty name is a word, too.
        self.line.split(' ').map(|word| word.replace("NAME", "disk")).collect()
    }

    /// The images of the folder and their formats, the changed one first.
    pub fn images(&self) -> Vec<(&'static str, &'static str)> {
        let mut all = vec![("disk", self.format)];
        all.extend(self.has('b').then_some(("base", "raw")));
        all.extend(self.has('q').then_some(("base", "qcow2")));
        all
    }

    fn has(&self, letter: char) -> bool {
        self.kind.furniture.contains(letter)
    }

    /// Makes it.
    pub fn furnish(&self, folder: &Path, seed: u64) {
        let img = |words: &[&str]| maker().img().folder(folder).args(words).must();
        let mut dice = Dice::new(seed);
        let size = 8u64 << 20;
        for (number, name) in ["base.raw", "other.raw", "in.raw", "patch.raw"].iter().enumerate() {
            scatter(folder, name, size, seed * 7 + number as u64, 10);
        }
        img(&["convert", "-f", "raw", "-O", "qcow2", "other.raw", "other"]);
        let below = if self.has('b') { "raw" } else { "qcow2" };
        img(&["convert", "-f", "raw", "-O", below, "base.raw", "base"]);
        let mut words = vec!["convert", "-f", "raw", "-O", self.format];
        words.extend(self.has('c').then_some("-c"));
        if !self.kind.options.is_empty() {
            words.extend(["-o", self.kind.options]);
        }
        words.extend(["in.raw", "disk"]);
        img(&words);
        if self.has('b') || self.has('q') {
            img(&["rebase", "-u", "-f", self.format, "-b", "base", "-F", below, "disk"]);
            // What is given up shows what is below.
            self.scribble(folder, &mut dice, 12, &[]);
        }
        let number = if self.has('s') { 3 } else { 1 };
        for number in 0..number {
            if self.has('s') {
                img(&["snapshot", "-c", &format!("s{number}"), "disk"]);
            }
            self.scribble(folder, &mut dice, 12, &[]);
        }
        if self.has('m') {
            img(&["bitmap", "--add", "-g", "512", "disk", "m0"]);
            img(&["bitmap", "--add", "-g", "4k", "--disable", "disk", "m1"]);
            self.scribble(folder, &mut dice, 20, &[]);
        }
        if self.has('d') {
            self.scribble(folder, &mut dice, 20, &["-c", "flush", "-c", "sigraise 9"]);
        }
        for name in ["base.raw", "other.raw", "in.raw"] {
            let _ = std::fs::remove_file(folder.join(name));
        }
    }

    fn scribble(&self, folder: &Path, dice: &mut Dice, count: u64, last: &[&str]) {
        let mut run = maker().io().folder(folder).args(["-f", self.format]);
        for _ in 0..count {
            run = run.args(["-c", &crate::step::scribble(dice, 8 << 20, 4096, false)]);
        }
        run.args(last).arg("disk").go();
    }
}
