//! Every option that can be asked for, alone and in pairs: what is made must be what the real program makes of the same.

use crate::formats::{FORMATS, Format, LUKS_IN_QCOW2, SECRET};
use crate::judge::{cell, content, count, put, read, reader, same, seed, sound};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::program;
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::{Report, difference};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The keys of what `info` tells that two images of the same need not share.
const OWN: &[&str] = &["actual-size", "cid", "uuid", "iters", "master-key-iters"];

/// Lengths of disks: none, one sector, odd ones, and such that tables have more than one row.
const LENGTHS: &[u64] = &[0, 512, 1536, 65_536, 66_048, 1_048_576, 1_049_600, 2_097_152, 3_146_240, 4_194_304];

/// What is asked for.
struct Case {
    format: &'static Format,
    options: Vec<String>,
    packed: bool,
    /// It is made empty, and not from a disk.
    empty: bool,
    backed: bool,
    len: u64,
    seed: u64,
}

impl Case {
    /// Each option alone, then pairs by chance.
    fn all(first: u64, wanted: u64) -> Vec<Case> {
        let mut all = Vec::new();
        for format in FORMATS {
            let alone =
                format.options.iter().flat_map(|(key, values)| values.iter().map(move |v| format!("{key}={v}")));
            let alone: Vec<String> = alone.collect();
            for options in std::iter::once(Vec::new()).chain(alone.into_iter().map(|option| vec![option])) {
                all.push(Case::new(format, options, first + all.len() as u64));
            }
        }
        for (number, more) in LUKS_IN_QCOW2.iter().enumerate() {
            all.push(Case::sealed(more, first + number as u64));
        }
        while (all.len() as u64) < wanted {
            let seed = first + all.len() as u64;
            let mut dice = Dice::new(seed);
            // The more there is to ask for, the more often it is asked; keys take the real program seconds to make.
            let of =
                ["qcow2", "qcow2", "qcow2", "vmdk", "vmdk", "vhdx", "vhdx", "qed", "vpc", "parallels", "vdi", "raw"];
            let name = dice.one(&of);
            let format = FORMATS.iter().find(|format| format.name == name).expect("a format");
            let options = format.some(&mut dice, 3);
            all.push(Case::new(format, options, seed));
        }
        all
    }

    fn new(format: &'static Format, options: Vec<String>, seed: u64) -> Case {
        let mut dice = Dice::new(seed);
        let len = LENGTHS[dice.below(LENGTHS.len() as u64) as usize];
        let packed = match format.packed {
            Some("") => dice.once_in(4),
            Some(need) => options.iter().any(|option| option == need) && dice.once_in(2),
            None => false,
        };
        let empty = !packed && dice.once_in(3);
        let backed = format.backs && dice.once_in(6) && len > 0;
        Case { format, options, packed, empty, backed, len, seed }
    }

    fn sealed(more: &str, seed: u64) -> Case {
        let mut options: Vec<String> =
            ["encrypt.format=luks", "encrypt.key-secret=sec0", "encrypt.iter-time=10"].map(str::to_owned).into();
        options.extend((!more.is_empty()).then(|| format!("encrypt.{more}")));
        Case { backed: false, ..Case::new(FORMATS.iter().find(|f| f.name == "qcow2").expect("it"), options, seed) }
    }

    fn is_sealed(&self) -> bool {
        self.format.name == "luks" || self.options.iter().any(|option| option.starts_with("encrypt.format"))
    }

    /// The words after the name of the program.
    fn line(&self) -> Vec<String> {
        let mut words: Vec<String> =
            if self.empty { vec!["create".into(), "-q".into()] } else { vec!["convert".into()] };
        if self.is_sealed() && self.format.name != "luks" {
            words.extend(["--object".into(), SECRET.into()]);
        }
        words.extend(self.format.asked(&self.options));
        if self.backed {
            let kind = if self.format.name == "vmdk" { "vmdk" } else { "raw" };
            let flags = if self.empty { ["-b", "base", "-F", kind] } else { ["-B", "base", "-F", kind] };
            words.extend(flags.map(str::to_owned));
        }
        words.extend(self.packed.then(|| "-c".to_owned()));
        if self.empty {
            words.extend(["-f", self.format.name, "made"].map(str::to_owned));
            words.push(self.len.to_string());
        } else {
            words.extend(["-f", "raw", "-O", self.format.name, "in.raw", "made"].map(str::to_owned));
        }
        words
    }

    /// The words that name what was made as a source.
    fn words(&self) -> Vec<String> {
        if self.is_sealed() && self.format.name == "qcow2" {
            let options = "driver=qcow2,encrypt.key-secret=sec0,file.filename=made".to_owned();
            return vec!["--object".into(), SECRET.into(), "--image-opts".into(), options];
        }
        self.format.words("made")
    }

    fn judge(&self, folder: &Path) -> Result<bool, String> {
        let mut dice = Dice::new(self.seed ^ 0xabcd);
        let base = content(&mut dice, self.len);
        let disk = if self.empty { vec![0; self.len as usize] } else { content(&mut dice, self.len) };
        let places = [folder.join("theirs"), folder.join("ours")];
        for place in &places {
            std::fs::create_dir_all(place).expect("a folder");
            put(&place.join("in.raw"), &disk);
            self.backed.then(|| put(&place.join("base"), &base));
        }
        if self.backed && self.format.name == "vmdk" {
            let words = ["convert", "-f", "raw", "-O", "vmdk", "theirs/base", "ours/base"];
            maker().img().folder(folder).args(words).must();
            std::fs::copy(places[1].join("base"), places[0].join("base")).expect("a copy");
        }
        let [theirs, ours] = &places;
        let want = maker().img().called("qemu-img").folder(theirs).args(self.line()).go();
        let run = program().quirky(&maker().version, cell(self.seed)).folder(ours).args(self.line());
        let got = run.go();
        let judged = self.compare(&want, &got, theirs, ours, if self.empty && self.backed { &base } else { &disk });
        judged.map_err(|why| format!("  {}\n{why}", run.line())).map(|()| want.code() == Some(0))
    }

    fn compare(&self, want: &Ran, got: &Ran, theirs: &Path, ours: &Path, disk: &[u8]) -> Result<(), String> {
        if self.format.name == "qcow" && self.packed && want.code() == Some(1) && want.stderr.is_empty() {
            // It fails at some of these without a word, and we do not.
            return if got.code() == Some(0) { Ok(()) } else { Err(got.err()) };
        }
        if self.packed && self.options.iter().any(|option| option.starts_with("data_file=")) {
            // It finds out when it writes, and we before.
            return if got.code() == Some(1) { Ok(()) } else { Err("  it is made".into()) };
        }
        if let End::Signal(_) = want.end {
            return if matches!(got.end, End::Code(_)) { Ok(()) } else { Err(got.err()) };
        }
        let mut differs = difference("stderr", &want.stderr, &got.stderr);
        differs += &difference("stdout", &want.stdout, &got.stdout);
        if want.end != got.end {
            differs += &format!("  end: {:?}, not {:?}\n", got.end, want.end);
        }
        if !differs.is_empty() {
            return Err(differs);
        }
        if want.code() != Some(0) {
            // What it began, the real program may leave; we do not.
            return match files(ours).keys().find(|name| !["in.raw", "base"].contains(&name.as_str())) {
                Some(name) => Err(format!("  {name} is left over")),
                None => Ok(()),
            };
        }
        let sealed = self.is_sealed();
        let opens =
            |place: &Path| sealed || maker().img().folder(place).arg("info").args(self.words()).go().code() == Some(0);
        if !opens(theirs) {
            // The real program makes some that it cannot open.
            return if opens(ours) { Err("  theirs cannot be opened".into()) } else { Ok(()) };
        }
        self.told(theirs, ours)?;
        self.space(theirs, ours)?;
        let words = self.words();
        if self.empty && self.format.name == "luks" {
            // What is in a new container is whatever zeroes are when they are decrypted.
            return Ok(());
        }
        let oracle = if self.is_sealed() { maker() } else { reader(self.seed, self.format) };
        let bytes = read(oracle.img(), ours, &words, disk.len() as u64 + (4 << 20))?;
        same(disk, &bytes)?;
        sound(oracle, ours, self.format, &words)
    }

    /// What others tell of both.
    fn told(&self, theirs: &Path, ours: &Path) -> Result<(), String> {
        let names = if self.is_sealed() { ["--image-opts"].as_slice() } else { &[] };
        let ask = |run: Run, folder: &Path| -> Result<Value, String> {
            let words = if names.is_empty() { self.words() } else { self.words().into_iter().skip(2).collect() };
            let mut words = words;
            // The passphrase is none of the question's business.
            words.iter_mut().for_each(|word| *word = word.replace("key-secret=sec0,", "").replace("encrypt.", ""));
            let run = run.folder(folder).args(["info", "--output=json"]).args(words);
            let ran = run.must();
            let mut told: Value = serde_json::from_slice(&ran.stdout).map_err(|e| format!("  {e}: {}", ran.out()))?;
            strip(&mut told);
            Ok(told)
        };
        let want = ask(maker().img(), theirs)?;
        let got = ask(maker().img(), ours)?;
        differing("info", &want, &got)?;
        let own = ask(program().quirky(&maker().version, cell(self.seed + 1)), ours)?;
        differing("our info", &got, &own)
    }

    /// What a file may be longer at its end: a block of a fixed VHDX, which is there as a whole.
    fn block(&self) -> u64 {
        let is_fixed = self.format.name == "vhdx" && self.options.iter().any(|option| option == "subformat=fixed");
        if is_fixed { 16 << 20 } else { 2 << 20 }
    }

    /// The length of a cluster of qcow2.
    fn cluster(&self) -> u64 {
        match self.options.iter().find_map(|option| option.strip_prefix("cluster_size=")) {
            Some("2M") => 2 << 20,
            Some("256k") => 256 << 10,
            _ => 64 << 10,
        }
    }

    /// How long the files are, and the bytes of what leaves nothing to choose.
    fn space(&self, theirs: &Path, ours: &Path) -> Result<(), String> {
        let (want, got) = (files(theirs), files(ours));
        let names = |files: &BTreeMap<String, u64>| files.keys().cloned().collect::<Vec<_>>();
        if names(&want) != names(&got) {
            return Err(format!("  files {:?}, not {:?}", names(&got), names(&want)));
        }
        let is_whole = |folder: &Path, name: &str| std::fs::read(folder.join(name)).expect("a file");
        for (name, len) in &want {
            let ours_len = got[name];
            if self.empty {
                // Descriptors are as long as the numbers in them; around no disk at all there need not be anything.
                let is_text = self.format.name == "vmdk" && *len < 1024;
                if is_text || (self.len == 0 && ours_len < *len) {
                    continue;
                }
                if ours_len != *len {
                    return Err(format!("  {name} has {ours_len} bytes, not {len}"));
                }
                let plain = self.format.is_plain && !self.is_sealed();
                if plain && is_whole(theirs, name) != is_whole(ours, name) {
                    return Err(format!("  {name} has other bytes"));
                }
            } else if ours_len > len + (len / 100).max(self.block()) {
                return Err(format!("  {name} has {ours_len} bytes, the other {len}"));
            }
            if self.options.iter().any(|o| o.ends_with("=falloc") || o.ends_with("=full")) {
                let taken = |folder: &Path| {
                    let file = std::fs::File::open(folder.join(name)).expect("a file");
                    file.sync_all().expect("it is written");
                    file.metadata().expect("a file").blocks() * 512
                };
                let (want, got) = (taken(theirs), taken(ours));
                // Tables that are zero need no space.
                if got + 4 * self.cluster() < want {
                    return Err(format!("  {name} takes {got} bytes, not {want}"));
                }
            }
        }
        Ok(())
    }
}

/// The files of a folder and their lengths, but for what the test left there.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry));
    named.filter(|(name, _)| name != "read.raw").map(|(name, e)| (name, e.metadata().expect("a file").len())).collect()
}

/// Takes away what two images need not share; how long the file is has its own test.
fn strip(told: &mut Value) {
    match told {
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Object(fields) => {
            if fields.get("format").is_some_and(|format| format == "file") {
                fields.remove("virtual-size");
            }
            fields.retain(|key, _| !OWN.contains(&key.as_str()));
            fields.values_mut().for_each(strip);
        }
        _ => {}
    }
}

fn differing(what: &str, want: &Value, got: &Value) -> Result<(), String> {
    let text = |value: &Value| serde_json::to_vec_pretty(value).expect("it is JSON");
    let differs = difference(what, &text(want), &text(got));
    if differs.is_empty() { Ok(()) } else { Err(differs) }
}

#[test]
fn every_option_makes_what_the_real_program_makes() {
    let scratch = Scratch::new("options");
    let report = Report::new("writes options");
    let cases = Case::all(seed(), count(500));
    let refused = std::sync::atomic::AtomicUsize::new(0);
    each(&cases, |number, case| {
        let folder = scratch.folder(&format!("case{number}"));
        report.tried();
        match case.judge(&folder) {
            Ok(true) => {}
            Ok(false) => _ = refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            Err(why) => report.fault(format!("{} {:?}, seed {}\n{why}", case.format.name, case.options, case.seed)),
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(folder);
        }
    });
    let refused = refused.into_inner();
    eprintln!("{refused} are refused by both");
    assert!(refused < cases.len() / 3, "most of these options make nothing: {refused}");
    report.end();
}
